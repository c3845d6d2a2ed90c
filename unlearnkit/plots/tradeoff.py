"""The trade-off: two gradients in the plane, conflict by layer, fronts, attainment, methods at equal utility."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from unlearnkit.plots.base import COLORS, method_colors
from unlearnkit.plots.plane import _label as label_points
from unlearnkit.tradeoff import AXES, Target, attainment, front, knee

LABELS = {"forgetting": "forgetting (1 = as retrained)", "utility": "utility, share of the original's"}


def stairs(surface: np.ndarray, low: tuple[float, float]) -> np.ndarray:
    """Corners of the border of what a front (k, 2) dominates, from the left edge `low[0]` down to `low[1]`."""
    ordered = surface[np.argsort(surface[:, 0])]
    corners = [(low[0], ordered[0, 1])]
    for (x, y), below in zip(ordered, [*ordered[1:, 1], low[1]], strict=True):
        corners += [(x, y), (x, below)]
    return np.array(corners)


def plot_directions(forget: Any, retain: Any, directions: Mapping[str, Any]) -> Figure:
    """Steps −g in the plane: both gradients, the cone in which both losses fall, and what balances make of them."""
    across = min(4, len(directions))
    rows = -(-len(directions) // across)
    fig, axes = plt.subplots(rows, across, figsize=(2.3 * across, 2.4 * rows), squeeze=False, sharex=True, sharey=True)
    f, r = (np.asarray(g, float) for g in (forget, retain))
    size = 1.15 * max(np.abs([f, r, *(np.asarray(d, float) for d in directions.values())]).max(), 1e-9)
    angle = np.linspace(0, 2 * np.pi, 721)
    circle = 3 * size * np.stack([np.cos(angle), np.sin(angle)], 1)  # (721, 2)
    both = (circle @ -f >= 0) & (circle @ -r >= 0)
    for ax in axes.flat[len(directions) :]:
        ax.set_visible(False)
    for ax, (name, step) in zip(axes.flat, directions.items(), strict=False):
        first = -int(np.flatnonzero(~both)[0])  # so that the cone is in one piece
        cone = np.vstack([[0.0, 0.0], np.roll(circle, first, 0)[np.roll(both, first)]])
        ax.fill(*cone.T, color="0.9", lw=0, zorder=0)
        for vector, color, label in ((f, COLORS["unlearned"], "forget"), (r, COLORS["oracle"], "retain")):
            ax.annotate("", -vector, (0, 0), arrowprops={"arrowstyle": "-|>", "color": color, "lw": 1.4})
            ax.annotate(label, -vector, (3, 3), textcoords="offset points", color=color, fontsize=8)
        ax.annotate("", -np.asarray(step, float), (0, 0), arrowprops={"arrowstyle": "-|>", "color": "0.1", "lw": 2.4})
        ax.set(title=name, xlim=(-size, size), ylim=(-size, size), xticks=(), yticks=(), aspect="equal")
    return fig


def plot_descents(
    paths: Mapping[str, np.ndarray], losses: Any, pareto: np.ndarray, stops: Mapping[str, np.ndarray] | None = None
) -> Figure:
    """Ways down two losses of two weights: in the plane of the weights, and in that of the losses.

    Args:
        paths: name → weights (steps, 2).
        losses: weights (n, 2) → (forget losses, retain losses).
        pareto: weights (n, 2) of the Pareto set.
        stops: name → weights (n, 2) of further points to mark.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.6))
    everything = np.vstack([*paths.values(), pareto])
    low, high = everything.min(0) - 0.4, everything.max(0) + 0.4
    grid = np.stack(np.meshgrid(np.linspace(low[0], high[0], 80), np.linspace(low[1], high[1], 80)), -1)
    for loss, color in zip(losses(grid.reshape(-1, 2)), (COLORS["unlearned"], COLORS["oracle"]), strict=True):
        left.contour(grid[..., 0], grid[..., 1], loss.reshape(80, 80), 8, colors=[color], linewidths=0.6, alpha=0.7)
    left.plot(*pareto.T, color="0.2", lw=3, alpha=0.35, label="Pareto set")
    right.plot(*losses(pareto), color="0.2", lw=3, alpha=0.35, label="Pareto front")
    for (name, path), color in zip(paths.items(), method_colors(list(paths)).values(), strict=True):
        for ax, line in ((left, path.T), (right, losses(path))):
            above = {"ls": "--", "lw": 2.2, "zorder": 3} if name == next(iter(paths)) else {"lw": 1.5}
            ax.plot(*line, color=color, label=name, **above)
            ax.plot(line[0][-1], line[1][-1], "o", color=color, ms=6)
    for name, points in (stops or {}).items():
        for ax, marks in ((left, points.T), (right, losses(points))):
            ax.plot(*marks, "x", color="0.2", ms=5, label=name)
    left.set(xlabel="weight 1", ylabel="weight 2", title="in the plane of the weights")
    right.set(xlabel="forget loss", ylabel="retain loss", title="in the plane of the losses")
    right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return fig


def plot_layers(traces: Mapping[str, pd.DataFrame], prefix: str = "cosine_") -> Figure:
    """Cosine of both gradients by layer (rows) and step (columns): a panel a method; red is conflict."""
    fig, axes = plt.subplots(1, len(traces), figsize=(2.4 * len(traces) + 1.2, 2.9), squeeze=False, sharey=True)
    image = None
    most = max((float(np.nanmax(np.abs(t.filter(like=prefix).to_numpy(float)))) for t in traces.values()), default=1.0)
    most = max(0.1, most)  # of the colours; a cosine near 0 everywhere should look like one
    for ax, (name, trace) in zip(axes[0], traces.items(), strict=True):
        layers = [c for c in trace if str(c).startswith(prefix)]
        known = trace.dropna(subset=layers, how="all")
        table = known[layers].T.to_numpy(float)  # (layers, steps)
        image = ax.imshow(table, cmap="RdBu", vmin=-most, vmax=most, aspect="auto")
        ax.set_xticks(range(len(known)), known["step"].astype(int), fontsize=7, rotation=90)
        ax.set_yticks(range(len(layers)), [c.removeprefix(prefix) for c in layers])
        ax.set(title=name, xlabel="step")
        ax.grid(visible=False)
    if image is not None:
        fig.colorbar(image, ax=axes[0].tolist(), label="cosine", shrink=0.9)
    fig.set_layout_engine("none")
    return fig


def _scene(ax: Any, goal: Target | None, share: float | None) -> None:
    """Original, oracle with its noise region, and the least utility, behind the points."""
    ax.plot(0, 1, "s", ms=8, color=COLORS["original"], mec="white", zorder=4, label="original")
    if goal is not None:
        corner = (goal.forgetting - goal.forgetting_noise, goal.utility - goal.utility_noise)
        size = (2 * goal.forgetting_noise, 2 * goal.utility_noise)
        if np.isfinite(size).all():  # of a single oracle no noise is known
            ax.add_patch(Rectangle(corner, *size, color=COLORS["oracle"], alpha=0.25, lw=0, zorder=1))
        ax.plot(
            goal.forgetting, goal.utility, "*", ms=15, color=COLORS["oracle"], mec="white", zorder=4, label="oracle"
        )
    if share is not None:
        ax.axhline(share, color="0.35", lw=1, ls="--", zorder=1)


def plot_front(
    points: pd.DataFrame, goal: Target | None = None, share: float | None = None, by: str = "method", title: str = ""
) -> Figure:
    """All points, each group's front as a staircase with its knee ringed; original and oracle's noise region behind.

    Args:
        share: the utility that is asked for; a dashed line.

    Points beyond the edge of the axes (utility below 0.45, forgetting below −0.55) are drawn at it, as triangles.
    """
    known = points[np.isfinite(points[AXES]).all(axis=1)]
    fig, ax = plt.subplots(figsize=(6.8, 4.2))
    _scene(ax, goal, share)
    low = _edge(known)
    for name, color in method_colors(list(dict.fromkeys(points[by]))).items():
        part = known[known[by] == name]
        if not len(part):
            continue
        seen = (part[AXES] >= low).all(axis=1)
        ax.plot(part["forgetting"][seen], part["utility"][seen], "o", ms=4, color=color, alpha=0.45, zorder=2)
        beyond = part[~seen][AXES].clip(lower=np.array(low) + 0.01, axis=1)
        ax.plot(beyond["forgetting"], beyond["utility"], "v", ms=5, color=color, alpha=0.6, zorder=2)
        ax.plot(*stairs(front(part), low).T, color=color, lw=1.8, label=str(name), zorder=3)
        if (at := knee(part)) is not None:
            ax.plot(*part[AXES].iloc[at], "o", ms=11, mfc="none", mec=color, mew=1.6, zorder=3)
    ax.set(xlabel=LABELS["forgetting"], ylabel=LABELS["utility"], title=title, xlim=(low[0], None), ylim=(low[1], None))
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return fig


def plot_attainment(points: pd.DataFrame, goal: Target | None = None, by: str = "method", runs: str = "seed") -> Figure:
    """What half of the runs attain, and what all of them do: a panel a group."""
    known = points[np.isfinite(points[AXES]).all(axis=1)]
    names = list(dict.fromkeys(known[by]))
    across = min(4, len(names))
    rows = -(-len(names) // across)
    fig, axes = plt.subplots(
        rows, across, figsize=(2.5 * across + 0.6, 2.2 * rows + 0.6), squeeze=False, sharex=True, sharey=True
    )
    low = _edge(known)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    for ax, (name, color) in zip(axes.flat, method_colors(names).items(), strict=False):
        part = known[known[by] == name]
        _scene(ax, goal, None)
        best, median, worst = (stairs(attainment(part, part[runs], s), low) for s in (1e-9, 0.5, 1.0))
        ax.fill([*best[:, 0], *worst[::-1, 0]], [*best[:, 1], *worst[::-1, 1]], color=color, alpha=0.2, lw=0)
        ax.plot(*median.T, color=color, lw=2, label="half of the runs")
        ax.plot(*worst.T, color=color, lw=1, ls=":", label="every run")
        ax.set(title=f"{name} ({part[runs].nunique()} runs)", xlim=(low[0], None), ylim=(low[1], None))
        ax.title.set_fontsize(9)
    fig.supxlabel(LABELS["forgetting"], fontsize=10)
    fig.supylabel(LABELS["utility"], fontsize=10)
    return fig


def plot_equal(table: pd.DataFrame, label: str = "forgetting at equal utility", goal: float | None = None) -> Figure:
    """A table of `tradeoff.compare`: mean and difference from the best method, each with its 95% interval."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 0.36 * len(table) + 1.2), sharey=True)
    against = table.attrs.get("against", "the best")
    for ax, (value, low, high), name in (
        (left, ("mean", "low", "high"), label),
        (right, ("difference", "difference_low", "difference_high"), f"difference from {against}, paired"),
    ):
        for y, (_, row) in enumerate(table.iterrows()):
            ax.plot([row[low], row[high]], [y, y], color="0.5", lw=2)
            ax.plot(row[value], y, "o", ms=7, color=COLORS["unlearned"])
        ax.set(xlabel=name, ylim=(len(table) - 0.5, -0.5))
    if goal is not None:
        left.axvline(goal, color=COLORS["oracle"], lw=1.5)
    right.axvline(0, color="0.4", lw=1)
    left.set_yticks(range(len(table)), table.index)
    return fig


def plot_published(table: pd.DataFrame, x: str, y: str, by: str, labels: Sequence[str], name: str = "method") -> Figure:
    """Published figures, a panel a model: every method by name, original and retrained in their colours.

    The horizontal axis is logarithmic beyond ±1.
    """
    groups = list(table.groupby(by, sort=False))
    fig, axes = plt.subplots(1, len(groups), figsize=(4.4 * len(groups), 3.6), squeeze=False, sharey=True, sharex=True)
    axes[0, 0].set_xscale("symlog", linthresh=1)
    for ax, (title, part) in zip(axes[0], groups, strict=True):
        rows = part.assign(who=part[name].replace({"finetuned": "original", "retain": "oracle"})).set_index("who")
        for who, row in rows.iterrows():
            marker, size = {"original": ("s", 9), "oracle": ("*", 15)}.get(str(who), ("o", 8))
            ax.plot(row[x], row[y], marker, ms=size, color=COLORS.get(str(who), COLORS["unlearned"]), mec="white")
        ax.set(title=str(title), xlabel=labels[0])
        ax.margins(0.14)
    axes[0, 0].set_ylabel(labels[1])
    for ax, (_, part) in zip(axes[0], groups, strict=True):
        names = part[name].replace({"finetuned": "original", "retain": "oracle"})
        label_points(ax, dict(zip(names, zip(part[x], part[y], strict=True), strict=True)))
    return fig


def _edge(known: pd.DataFrame) -> tuple[float, float]:
    """Where the axes begin: below the points, but never so low that ruined models squeeze the rest."""
    left, down = known[AXES].min()
    return max(min(left, 0.0), -0.5) - 0.05, max(min(down, 0.9), 0.5) - 0.05
