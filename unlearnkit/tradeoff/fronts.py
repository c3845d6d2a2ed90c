"""Fronts of points (forgetting, utility), both maximised, and what one number says about them (moocore)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import moocore
import numpy as np
import pandas as pd

from unlearnkit.errors import UnlearnkitError

AXES = ["forgetting", "utility"]
REFERENCE = (0.0, 0.0)  # as much known as by the original, and nothing else left: what hypervolume is measured from


def as_points(points: Any) -> np.ndarray:
    """A frame with the columns `AXES`, or an array, as float (n, 2).

    Raises:
        UnlearnkitError: another shape, no point at all, or one that is not finite.
    """
    if isinstance(points, pd.DataFrame):
        if lacking := [name for name in AXES if name not in points]:
            raise UnlearnkitError(f"the points have no column '{lacking[0]}'; make them with tradeoff.points.")
        points = points[AXES]
    found = np.asarray(points, float)
    if found.ndim != 2 or found.shape[1] != 2 or not len(found):
        raise UnlearnkitError(f"points of shape {found.shape} are not possible; give (n, 2): forgetting, utility.")
    if not np.isfinite(found).all():
        raise UnlearnkitError(
            f"{(~np.isfinite(found).all(1)).sum()} of {len(found)} points are not measurable; leave them out "
            "(their column `why` says why)."
        )
    return found


def nondominated(points: Any) -> np.ndarray:
    """bool (n,): points that no other beats on one axis without losing on the other; of equal ones the first."""
    return moocore.is_nondominated(as_points(points), maximise=True)


def front(points: Any) -> np.ndarray:
    """The non-dominated points, (k, 2), from the least forgetting (and most utility) to the most."""
    found = as_points(points)
    kept = found[nondominated(found)]
    return kept[np.argsort(kept[:, 0])]


def hypervolume(points: Any, reference: Sequence[float] = REFERENCE) -> float:
    """Area between the front and a reference point; points that don't exceed it on both axes add nothing."""
    return float(moocore.hypervolume(as_points(points), ref=list(reference), maximise=True))


def igd_plus(points: Any, goal: Any) -> float:
    """IGD+: mean distance from the points of a `goal` front to what this one lacks of them (Ishibuchi et al. 2015)."""
    return float(moocore.igd_plus(as_points(points), ref=as_points(goal), maximise=True))


def epsilon(points: Any, goal: Any) -> float:
    """Additive epsilon: the least that must be added to every point on both axes to dominate the `goal` front."""
    return float(moocore.epsilon_additive(as_points(points), ref=as_points(goal), maximise=True))


def knee(points: Any) -> int | None:
    """The point that lies farthest beyond the chord of the front, both axes scaled to its extent: its row in `points`.

    None where no point lies beyond the chord (fewer than three points, or a front that bends inwards).
    """
    found = as_points(points)
    rows = np.flatnonzero(nondominated(found))
    low, high = found[rows].min(0), found[rows].max(0)
    if len(rows) < 3:
        return None
    beyond = ((found[rows] - low) / (high - low)).sum(1) - 1  # √2 times the distance from the chord x + y = 1
    best = int(beyond.argmax())
    return int(rows[best]) if beyond[best] > 1e-12 else None


def indicators(
    points: pd.DataFrame, by: str | list[str] = "method", reference: Sequence[float] = REFERENCE, goal: Any = None
) -> pd.DataFrame:
    """One row a group: points, those on its front, hypervolume, IGD+, additive epsilon, knee.

    Columns: `points`, `missing` (not measurable), `front`, `hypervolume` (larger is better), `igd_plus` and `epsilon`
    (smaller is better), `knee_forgetting`, `knee_utility`.

    Args:
        goal: the front that IGD+ and epsilon compare with; default the front of all points together.

    Raises:
        UnlearnkitError: nothing is measurable.
    """
    known = points[np.isfinite(points[AXES]).all(axis=1)]
    goal = front(known) if goal is None else as_points(goal)
    rows = []
    for name, part in points.groupby(by, sort=False):
        mine = known.loc[known.index.intersection(part.index)]
        row: dict[str, Any] = dict(
            zip([by] if isinstance(by, str) else by, np.atleast_1d(np.array(name, object)), strict=True)
        )
        row |= {"points": len(mine), "missing": len(part) - len(mine)}
        if len(mine):
            at = knee(mine)
            corner = mine[AXES].iloc[at] if at is not None else pd.Series(np.nan, AXES)
            row |= {
                "front": int(nondominated(mine).sum()),
                "hypervolume": hypervolume(mine, reference),
                "igd_plus": igd_plus(mine, goal),
                "epsilon": epsilon(mine, goal),
                "knee_forgetting": corner["forgetting"],
                "knee_utility": corner["utility"],
            }
        rows.append(row)
    return pd.DataFrame(rows).set_index(by)
