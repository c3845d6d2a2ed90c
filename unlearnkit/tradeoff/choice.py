"""Which point to take: the best that keeps a utility, or the one a weighting of both axes prefers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.errors import UnlearnkitError, unknown
from unlearnkit.tradeoff.fronts import AXES

RULES = {
    "sum": "weighted sum: w · forgetting + (1 − w) · utility",
    "chebyshev": "weighted Chebyshev: the larger of w · (what forgetting lacks) and (1 − w) · (what utility lacks)",
}


def best_feasible(points: pd.DataFrame, share: float) -> Any:
    """Index of the point that forgets most among those with utility ≥ share (ε-constraint); None where there is none.

    Of equal ones the one with more utility.
    """
    able = points[np.isfinite(points[AXES]).all(axis=1) & (points["utility"] >= share)]
    return able.sort_values(AXES, ascending=False, kind="stable").index[0] if len(able) else None


def preference(points: Any, weight: float, rule: str = "sum", ideal: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """How much a scalarisation likes each point (n, 2); more is better.

    `sum` reaches only points on the convex hull of a front; `chebyshev` reaches every non-dominated one for some weight
    (Miettinen 1999, *Nonlinear Multiobjective Optimization*, 3.4), as long as none is beyond `ideal`.

    Args:
        weight: of forgetting, 0 to 1; utility has the rest.
        ideal: (forgetting, utility) from which `chebyshev` counts what a point lacks.

    Raises:
        UnlearnkitError: a weight outside [0, 1], or an unknown rule.
    """
    if not 0 <= weight <= 1:
        raise UnlearnkitError(f"weight = {weight!r} is not possible; give the weight of forgetting, 0 to 1.")
    if rule not in RULES:
        raise unknown("scalarisation", rule, RULES)
    weights, found = np.array([weight, 1 - weight]), np.asarray(points, float)
    if rule == "sum":
        return found @ weights
    return -(weights * np.maximum(np.asarray(ideal) - found, 0)).max(1)


def preferred(points: pd.DataFrame, weight: float, rule: str = "sum", ideal: tuple[float, float] = (1.0, 1.0)) -> Any:
    """Index of the point that `preference` likes best, of equal ones the largest sum; None without points."""
    known = points[np.isfinite(points[AXES]).all(axis=1)]
    if not len(known):
        return None
    liked = known.assign(_liked=preference(known[AXES], weight, rule, ideal), _sum=known[AXES].sum(axis=1))
    return liked.sort_values(["_liked", "_sum"], ascending=False, kind="stable").index[0]
