"""Default settings of the image methods: the same search with the same number of trials for each.

``python -m unlearnkit.tuning_image [METHOD …] [--trials N]`` tunes on other requests than the one that is shown, of
the same original, and writes every trial to ``data/tuned/image.csv``; the defaults in the method files are its best
rows (a test compares them). No oracle is looked at: for these requests, and in practice, there is none.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.evaluation import measure
from unlearnkit.methods import METHODS
from unlearnkit.metrics.measure import Measured
from unlearnkit.metrics.table import METRICS, Items, arrays
from unlearnkit.paths import data_dir
from unlearnkit.problem import load_problem
from unlearnkit.tuning import LOST, record, search
from unlearnkit.unlearning import unlearn

REQUESTS = ("dotted", "crossed")  # results are shown on "striped"
LIMIT = 36  # pictures a split
TRIALS = 6
STEPS = [25, 50, 100]
UTILITY = ("ira", "cra", "retain_alignment")  # share of the original's
CONTROLS = ("retain_finetune", "grad_ascent")  # not tuned: no forget term, no retain term
TUNED = (
    "uce", "concept_ablation", "salun", "esd", "selective_amnesia", "erasediff", "forget_me_not", "ssd", "sld",
    "advunlearn", "spm",
)  # fmt: skip


def objective(mine: Measured, original: Measured) -> dict[str, float]:
    """What is minimised, `loss`, with its parts: 1 − UA, and the mean loss of utility, weighted as for text."""
    now, before = arrays(mine.items), arrays(original.items)
    parts = {"ua": METRICS["ua"].compute(Items(now, []))}
    for metric in UTILITY:
        parts[metric] = METRICS[metric].compute(Items(now, [])) / METRICS[metric].compute(Items(before, []))
    lost = float(np.mean([max(0.0, 1 - parts[metric]) for metric in UTILITY]))
    return {"loss": 1 - parts["ua"] + LOST * lost, **parts}


@lru_cache(maxsize=len(REQUESTS))
def _request(name: str) -> tuple[Any, Measured]:
    problem = load_problem("canvas", name, oracles=0)
    return problem, measure(problem, problem.model, LIMIT, progress=False)


def tune(method: str, trials: int = TRIALS) -> pd.DataFrame:
    """Every trial of one method: settings (JSON), loss and its parts, means over the requests. Nothing is pruned."""
    quiet: dict[str, Any] = {} if hasattr(METHODS["image"][method], "apply") else {"trace_every": 0}

    def run(settings: dict[str, Any]) -> dict[str, float]:
        found = []
        for problem, original in map(_request, REQUESTS):
            unlearned = unlearn(problem, method, seed=0, progress=False, **quiet, **settings)
            found.append(objective(measure(problem, unlearned.model, LIMIT, progress=False), original))
        return pd.DataFrame(found).mean().to_dict()

    return search("image", method, run, trials, STEPS, worst=1 + LOST)


if __name__ == "__main__":
    record(__doc__, tune, list(TUNED), data_dir() / "tuned" / "image.csv", TRIALS)
