"""The way a method takes through the plane of forgetting and utility, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from unlearnkit.errors import whole_number
from unlearnkit.evaluation import measure, references, score
from unlearnkit.metrics.table import metric_names
from unlearnkit.tradeoff.points import point
from unlearnkit.unlearning import Unlearned, unlearn


def trajectory(
    problem: Any,
    method: Any,
    forgetting: str,
    utility: str,
    *,
    every: int = 10,
    limit: int = 40,
    resamples: int = 0,
    seed: int = 0,
    **settings: Any,
) -> tuple[pd.DataFrame, Unlearned]:
    """`unlearn` with a look every few steps: a row a look (see `point`), with `step` 0 for the original.

    The looks don't change the run: the model of the last step is that of `unlearn` without them.

    Args:
        forgetting, utility: keys of metrics.
        every: steps between two looks; the last step is always looked at.
        limit: questions asked, or pictures sampled, a split and look.
        resamples: bootstrap draws of each look's intervals; 0 for none.
        settings: as in `unlearn`.

    Raises:
        UnlearnkitError: as `unlearn`; an unknown metric.
    """
    whole_number("every", every, 1)
    names = metric_names(problem.modality, [forgetting, utility])
    quiet = {"progress": False} if problem.modality == "image" else {}
    reference = references(problem, limit)
    rows = [{"step": 0, **_at(problem, reference[0], reference, names, resamples, seed)}]

    def look(step: int, model: Any) -> None:
        if (step + 1) % every == 0:
            add(step + 1, model)

    def add(step: int, model: Any) -> None:
        with torch.random.fork_rng():
            mine = measure(problem, model, limit, **quiet)
        rows.append({"step": step, **_at(problem, mine, reference, names, resamples, seed)})

    unlearned = unlearn(problem, method, seed=seed, on_step=look, **settings)
    if (done := int(unlearned.cost["steps"])) % every or not done:
        add(done, unlearned.model)
    table = pd.DataFrame(rows).assign(method=unlearned.method, seed=seed)
    return table.drop_duplicates("step", keep="last").reset_index(drop=True), unlearned


def _at(problem: Any, mine: Any, reference: Any, names: list[str], resamples: int, seed: int) -> dict[str, Any]:
    table = score(problem, [mine], reference, names, resamples, seed)
    for column in ("low", "high", "gap_low", "gap_high"):
        if column not in table:
            table[column] = np.nan
    return point(table, *names)
