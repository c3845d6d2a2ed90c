"""Does a weight mask buy anything? The same unlearning with each mask and with a random one of the same size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student

from unlearnkit.attribution.losses import loss_of
from unlearnkit.errors import UnlearnkitError
from unlearnkit.masks import MASKS
from unlearnkit.unlearning import check_problem, unlearn

NONE = "none"  # no mask: every weight may change
LIMIT = 64  # records or pictures a loss is read on


def mask_tradeoff(
    problem: Any,
    method: str | None = None,
    masks: Sequence[str] = (NONE, "salun", "wagle", "random"),
    seeds: Sequence[int] = (0, 1, 2),
    share: float = 0.5,
    **settings: Any,
) -> pd.DataFrame:
    """Forgetting against utility of one method with several masks, all else equal: one row a mask and seed.

    Columns: `mask`, `seed`; `forget` and `retain`, the losses of `loss_of`; `gap` = |forget − oracle's| /
    |original's − oracle's| (0 as retrained, 1 nothing happened; NaN without an oracle, or where it does not differ);
    `utility`, what is left of the original's on the retain set: exp(−(loss − original's)) for texts, the ratio of the
    probabilities of an answer, and original's / loss for images.

    Args:
        method: a gradient method; default "grad_diff" for texts, "grad_ascent" with alpha = 1 for images.
        seeds: of the unlearning and of the random mask; a pair of masks shares them.
        share: of the weights that a mask leaves free.
        settings: of method and loop.

    Raises:
        UnlearnkitError: an unknown mask, method or setting, or no seed.
    """
    check_problem(problem)
    if not seeds:
        raise UnlearnkitError("seeds = () is not possible; give at least one.")
    _ = [MASKS[mask] for mask in masks if mask != NONE]  # an unknown one is said before any work
    if method is None:
        method = "grad_diff" if problem.modality == "text" else "grad_ascent"
        settings = settings if problem.modality == "text" else {"alpha": 1.0, **settings}
    losses = {split: loss_of(problem, split, LIMIT) for split in ("forget", "retain")}

    def levels(model: Any) -> dict[str, float]:
        with torch.no_grad():
            return {split: float(loss(model)) for split, loss in losses.items()}

    original = levels(problem.model)
    oracle = levels(problem.oracle(0))["forget"] if problem.oracles else math.nan
    distance = abs(original["forget"] - oracle)
    rows = []
    for seed in seeds:
        for mask in masks:
            chosen: dict[str, Any] = {} if mask == NONE else {"mask": mask, "mask_share": share}
            model = unlearn(problem, method, seed=seed, progress=False, **chosen, **settings).model
            mine = levels(model)
            lost = mine["retain"] - original["retain"]
            utility = math.exp(-lost) if problem.modality == "text" else original["retain"] / mine["retain"]
            gap = abs(mine["forget"] - oracle) / distance if distance else math.nan
            rows.append({"mask": mask, "seed": seed, **mine, "gap": gap, "utility": utility})
    return pd.DataFrame(rows)


def against_control(table: pd.DataFrame, control: str = "random") -> pd.DataFrame:
    """What each mask gains over the random one at the same seed: the mean paired difference and its 95% interval.

    Student's t over the seeds, the same data and models throughout; with two or three seeds it is wide, and one that
    holds 0 shows nothing. Index (mask, measure), measures `gap` (below 0: nearer to the oracle) and `utility` (above
    0: more of it left); columns `difference`, `low`, `high`, `seeds`.

    Raises:
        UnlearnkitError: the control is not in the table.
    """
    if control not in set(table["mask"]):
        raise UnlearnkitError(f"the table has no mask '{control}' to compare with.")
    rows = []
    for measure in ("gap", "utility"):
        wide = table.pivot(index="seed", columns="mask", values=measure)
        for mask in wide.columns.drop(control):
            paired = (wide[mask] - wide[control]).dropna().to_numpy(float)
            mean, half = (paired.mean() if len(paired) else math.nan), math.nan
            if len(paired) > 1:
                half = float(student.ppf(0.975, len(paired) - 1) * paired.std(ddof=1) / np.sqrt(len(paired)))
            rows.append((mask, measure, mean, mean - half, mean + half, len(paired)))
    columns = ["mask", "measure", "difference", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns).set_index(["mask", "measure"])
