"""Fronts with uncertainty: what which share of the runs attains, and whether it reaches the oracle.

The empirical attainment function of Grunert da Fonseca, Fonseca and Hall 2001, through moocore.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import moocore
import numpy as np
import pandas as pd

from unlearnkit.errors import UnlearnkitError
from unlearnkit.evaluation import score
from unlearnkit.metrics.table import METRICS
from unlearnkit.tradeoff.fronts import AXES, as_points

MEDIAN, WORST = 0.5, 1.0


@dataclass(frozen=True)
class Target:
    """Where the retrained models lie: the goal is this region, not the upper right corner.

    Attributes:
        forgetting: 1, as retrained, by definition.
        utility: mean of the oracles', relative to the original.
        forgetting_noise, utility_noise: the farthest that an oracle of another seed lies from there.
    """

    forgetting: float
    utility: float
    forgetting_noise: float
    utility_noise: float

    @property
    def corner(self) -> tuple[float, float]:
        """The least that counts as retrained: (forgetting, utility)."""
        return self.forgetting - self.forgetting_noise, self.utility - self.utility_noise


def target(points: pd.DataFrame, method: str = "oracle") -> Target:
    """The target from the rows of the oracles, a seed each.

    Raises:
        UnlearnkitError: fewer than two oracles are measurable: no noise is known.
    """
    known = points[(points["method"] == method) & np.isfinite(points[AXES]).all(axis=1)]
    if len(known) < 2:
        raise UnlearnkitError(
            f"the target needs two retrained models, and {len(known)} of the points are measurable rows of "
            f"method '{method}'."
        )
    center = float(known["utility"].mean())
    return Target(
        1.0, center, float((1 - known["forgetting"]).abs().max()), float((known["utility"] - center).abs().max())
    )


def oracle_scores(
    problem: Any, reference: tuple[Any, list[Any]], metrics: Sequence[str], resamples: int = 0
) -> pd.DataFrame:
    """Rows of `evaluate` of the retrained models as if they were a method, a seed each: what `target` is made of.

    A metric that compares with the first oracle has no row of that one: its distance from itself is no noise.

    Args:
        reference: what `references` returned.
    """
    rows = []
    for k, one in enumerate(reference[1]):
        able = [key for key in metrics if k or not METRICS[key].against_oracle]
        table = score(problem, [one], reference, able, resamples).reset_index()
        rows.append(table[table["key"].isin(able)].assign(method="oracle", balance="sum", seed=k, settings="{}"))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["key", "method"])


def attainment(points: Any, runs: Any, share: float = MEDIAN) -> np.ndarray:
    """The front that at least `share` of the runs attain: (k, 2), from the least forgetting to the most.

    Args:
        runs: the run (a seed, a repeat) that each point belongs to, (n,).
        share: 0.5 the median, 1 the worst case (what every run attains).

    Raises:
        UnlearnkitError: a share outside (0, 1], or as many labels as points are not given.
    """
    found, labels = _by_run(points, runs)
    if not 0 < share <= 1:
        raise UnlearnkitError(f"share = {share!r} is not possible; give one above 0 and up to 1.")
    count = labels.max() + 1
    least = math.ceil(share * count - 1e-9)
    order = np.argsort(labels, kind="stable")  # moocore takes the points of a run to stand together
    # half a run less, so that rounding can't ask for one more
    surface = moocore.eaf(-found[order], labels[order], percentiles=[100 * (least - 0.5) / count])
    surface = -surface[:, :2] + 0.0
    return surface[np.argsort(surface[:, 0])]


def attained(points: Any, runs: Any, goal: Any) -> float:
    """Share of the runs with a point that is at least `goal` on both axes (the value of the attainment function).

    Args:
        goal: (forgetting, utility), or a `Target`, whose corner is then asked for.
    """
    found, labels = _by_run(points, runs)
    corner = goal.corner if isinstance(goal, Target) else goal
    reached = np.all(found >= np.asarray(corner, float), axis=1)  # (n,)
    return float(np.mean([reached[labels == run].any() for run in range(labels.max() + 1)]))


def _by_run(points: Any, runs: Any) -> tuple[np.ndarray, np.ndarray]:
    found = as_points(points)
    labels = pd.factorize(np.asarray(runs))[0]
    if labels.shape != (len(found),) or (labels < 0).any():
        raise UnlearnkitError(f"{len(found)} points need as many runs they belong to; {labels.shape} were given.")
    return found, labels
