"""The front as the panel shows it: points, what was chosen among them, and where each lies in the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from unlearnkit.plots.base import COLORS, method_colors
from unlearnkit.plots.tradeoff import _edge, _scene, stairs
from unlearnkit.tradeoff import AXES, Target, front

SIZE = (9.2, 4.5)  # inches
PLACE = (0.075, 0.13, 0.61, 0.82)  # of the axes: left, bottom, width, height, shares of the figure
MARKS: dict[str, dict[str, Any]] = {  # what is marked → how
    "best that keeps the utility": {"marker": "o", "ms": 15, "mew": 2.2, "mec": "0.1"},
    "preferred": {"marker": "s", "ms": 17, "mew": 2.0, "mec": "0.1"},
    "selected": {"marker": "X", "ms": 10, "mew": 0.8, "mec": "white", "mfc": "0.1"},
}


def window(points: pd.DataFrame, goal: Target | None, extra: np.ndarray | None = None) -> tuple[Any, Any]:
    """Limits of both axes: they depend on the points alone, so that sliders don't make the picture jump."""
    known = points.loc[np.isfinite(points[AXES]).all(axis=1), AXES]
    low = _edge(known) if len(known) else (-0.05, 0.45)
    ends = [known.to_numpy(float), np.array([[0.0, 1.0], [1.0, 1.0]])]
    if goal is not None:
        noise = np.nan_to_num([goal.forgetting_noise, goal.utility_noise])
        ends.append([[goal.forgetting, goal.utility] + noise])
    high = np.vstack(ends).max(0) + 0.05
    return (low[0], min(high[0], 2.5)), (low[1], min(high[1], 2.5))


def places(points: pd.DataFrame, limits: tuple[Any, Any]) -> np.ndarray:
    """Where each point lies in the picture, (n, 2): shares of its width from the left, of its height from the top."""
    shown = _inside(points[AXES].to_numpy(float), limits)
    low, high = np.array(limits, float).T
    share = (shown - low) / (high - low)
    left, bottom, width, height = PLACE
    return np.column_stack([left + width * share[:, 0], 1 - bottom - height * share[:, 1]])


def plot_choice(
    points: pd.DataFrame,
    goal: Target | None,
    *,
    share: float,
    reference: Sequence[float] = (0.0, 0.0),
    marked: Mapping[str, Sequence[float]] | None = None,
    contour: np.ndarray | None = None,
    mixed: np.ndarray | None = None,
    labels: Sequence[str] = ("forgetting (1 = as retrained)", "utility, share of the original's"),
    order: Sequence[str] = (),
) -> Figure:
    """Points with columns `AXES`, `name` and `way` (points of one run), and what was chosen among them.

    Drawn behind them: original, oracle with its noise region, the utility asked for, and the area that all fronts
    together dominate above the reference point. Points beyond the edge are drawn at it, as triangles.

    Args:
        marked: a key of `MARKS` → (forgetting, utility).
        contour: line (k, 2) along which the preference likes every point as much as the preferred one.
        mixed: mixtures of a model with its original, (k, 2), from the original on.
        order: names in the order of their colours; by default as they come.
    """
    known = points[np.isfinite(points[AXES]).all(axis=1)]
    limits = window(points, goal)
    fig = Figure(figsize=SIZE, dpi=96)
    fig.set_layout_engine("none")  # the panel's buttons lie where PLACE says
    ax = fig.add_axes(PLACE)
    ax.set(xlim=limits[0], ylim=limits[1], xlabel=labels[0], ylabel=labels[1])
    ax.grid(color="0.92")
    ax.set_axisbelow(True)
    _scene(ax, goal, share)
    ax.text(limits[0][0], share, f" utility {share:.0%}", va="bottom", fontsize=8, color="0.35")
    if goal is None:
        ax.axvline(1, color=COLORS["oracle"], lw=1.2, ls=":", label="as retrained")
    ahead = known[(known[AXES] > list(reference)).all(axis=1)]
    if len(ahead):
        corners = stairs(front(ahead), (reference[0], reference[1]))
        ax.fill([*corners[:, 0], reference[0]], [*corners[:, 1], reference[1]], color="0.5", alpha=0.12, lw=0, zorder=0)
    (spot,) = _inside(np.array([reference], float), limits)
    ax.plot(*spot, "+", ms=11, mew=1.8, color="0.25", zorder=3)
    said = "reference" if np.allclose(spot, reference) else f"reference ({reference[0]:g}, {reference[1]:g})"
    ax.annotate(said, (spot[0], spot[1]), (6, 5), textcoords="offset points", fontsize=8, color="0.35")
    colors = method_colors([*dict.fromkeys([*order, *points["name"]])])
    for name, part in known.groupby("name", sort=False):
        _points(ax, part, limits, colors[name], str(name))
    if contour is not None and len(contour):
        ax.plot(*contour.T, color="0.3", lw=1, ls="-.", zorder=2, label="equally preferred")
    if mixed is not None and len(mixed):
        ax.plot(*_inside(mixed, limits).T, "-D", ms=6, lw=1.3, color=COLORS["unlearned"], mec="white", zorder=5,
                label="mixtures")  # fmt: skip
    for what, at in (marked or {}).items():
        (x, y) = _inside(np.array([at], float), limits)[0]
        ax.plot(x, y, **{"mfc": "none", "ls": "none", "zorder": 6, **MARKS[what]}, label=what)
    legend = ax.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.02, 1.0), labelspacing=0.75)
    for handle in legend.legend_handles:
        if isinstance(handle, Line2D):
            handle.set_markersize(min(handle.get_markersize(), 10))
    return fig


def _points(ax: Any, part: pd.DataFrame, limits: tuple[Any, Any], color: Any, name: str) -> None:
    """Points of one name, the way of each run through them, and their front as a staircase."""
    values = part[AXES].to_numpy(float)
    shown, low = _inside(values, limits), tuple(np.array(limits)[:, 0])
    beyond = ~np.isclose(values, shown).all(1)
    for _, way in part.assign(_x=shown[:, 0], _y=shown[:, 1]).groupby("way", sort=False):
        if len(way) > 1:
            ax.plot(way["_x"], way["_y"], color=color, lw=0.8, alpha=0.45, zorder=2)
    ax.plot(*shown[~beyond].T, "o", ms=5.5, color=color, alpha=0.75, mec="white", mew=0.5, zorder=3)
    ax.plot(*shown[beyond].T, "v", ms=6, color=color, alpha=0.75, mec="white", mew=0.5, zorder=3)
    ax.plot(*stairs(front(part), low).T, color=color, lw=1.7, zorder=3, label=name)


def _inside(values: np.ndarray, limits: tuple[Any, Any]) -> np.ndarray:
    """Points (n, 2) drawn in at the edge where they lie beyond it."""
    low, high = np.array(limits, float).T
    return np.clip(values, low + 0.008 * (high - low), high - 0.008 * (high - low))


def contour_of(weight: float, level: float, rule: str, ideal: Sequence[float], limits: tuple[Any, Any]) -> np.ndarray:
    """The line (k, 2) on which `tradeoff.preference` is `level`, within the limits."""
    (left, right), (bottom, top) = limits
    if rule == "sum":
        if weight == 1:
            return np.array([[level, bottom], [level, top]])
        ends = np.array([left, right])
        return np.column_stack([ends, (level - weight * ends) / (1 - weight)])
    x = ideal[0] + level / weight if weight else left
    y = ideal[1] + level / (1 - weight) if weight < 1 else bottom
    corners = [[x, top], [x, y], [right, y]]
    return np.array(corners[int(weight == 0) : 3 - int(weight == 1)])
