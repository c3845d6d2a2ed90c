"""Forgetting against utility, and what the two gradients did on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from unlearnkit.plots.base import COLORS, method_colors


def plot_plane(
    tables: Mapping[str, pd.DataFrame],
    forgetting: str,
    utility: str,
    labels: tuple[str, str] | None = None,
    least: float | None = None,
) -> Figure:
    """Where each method lands with its 95% intervals, original and oracle (with its noise region) as landmarks.

    Args:
        forgetting, utility: the metrics of the axes; `labels` their axis labels.
        least: draw a line at this share of the original's utility.
    """
    fig, ax = plt.subplots(figsize=(8.2, 5.2))
    first = next(iter(tables.values()))
    x0, y0 = first.loc[forgetting], first.loc[utility]
    if pd.notna(x0["floor"]):
        spread = x0["floor"] * abs(x0["original"] - x0["oracle"])
        ax.axvspan(x0["oracle"] - spread, x0["oracle"] + spread, color=COLORS["oracle"], alpha=0.2, lw=0)
    if least:
        ax.axhline(least * y0["original"], color="0.35", lw=1.2, ls="--")
        at = (1, least * y0["original"])
        ax.annotate(
            f"{least:.0%} of the original", at, (-4, -4), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", va="top", fontsize=8, color="0.35",
        )  # fmt: skip
    points: dict[str, tuple[float, float]] = {}
    for name, scores in tables.items():
        x, y = scores.loc[forgetting], scores.loc[utility]
        if pd.isna(x["unlearned"]) or pd.isna(y["unlearned"]):
            continue
        points[name] = (x["unlearned"], y["unlearned"])
        for row, across, up in (
            (x, [x["low"], x["high"]], [y["unlearned"]] * 2),
            (y, [x["unlearned"]] * 2, [y["low"], y["high"]]),
        ):
            if pd.notna(row["low"]):
                ax.plot(across, up, color="0.72", lw=1, zorder=2)
        ax.plot(*points[name], "o", ms=8, color=COLORS["unlearned"], mec="white", zorder=3)
    for who, marker in (("original", "s"), ("oracle", "*")):
        if pd.notna(x0[who]) and pd.notna(y0[who]):
            points[who] = (x0[who], y0[who])
            ax.plot(*points[who], marker, ms=17 if who == "oracle" else 10, color=COLORS[who], mec="white", zorder=4)
    ax.set(xlabel=(labels or (forgetting,))[0], ylabel=(labels or (utility,))[-1])
    ax.margins(0.08)
    _label(ax, points)
    return fig


def _label(ax: Any, points: Mapping[str, tuple[float, float]]) -> None:
    """Names beside points, each where it covers the fewest points and names."""
    ax.figure.canvas.draw()
    place = {name: ax.transData.transform(point) for name, point in points.items()}
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in place.values()]
    frame = ax.get_window_extent()
    for name, (x, y) in sorted(place.items(), key=lambda item: -item[1][1]):
        width, height = 6.2 * len(name) * ax.figure.dpi / 80, 12 * ax.figure.dpi / 80
        best, cost = (10.0, 0.0), float("inf")
        for radius in (12, 22, 34, 48):
            for angle in range(0, 360, 20):
                dx, dy = radius * np.cos(np.radians(angle)), radius * np.sin(np.radians(angle))
                left = x + dx - (width if dx < 0 else 0)
                box = (left, y + dy - height / 2, left + width, y + dy + height / 2)
                over = sum(
                    max(0, min(box[2], b[2]) - max(box[0], b[0])) * max(0, min(box[3], b[3]) - max(box[1], b[1]))
                    for b in taken
                )
                near = [
                    np.hypot(np.clip(u, box[0], box[2]) - u, y + dy - v) for u, v in place.values() if (u, v) != (x, y)
                ]
                other = max(0.0, radius + 6 - min(near, default=99.0))  # a name next to another point misleads
                outside = box[0] < frame.x0 or box[2] > frame.x1 or box[1] < frame.y0 or box[3] > frame.y1
                if (now := over + 1e4 * outside + radius + 20 * other) < cost:
                    best, cost, chosen = (dx, dy), now, box
        taken.append(chosen)
        scale = 72 / ax.figure.dpi  # pixels → points
        ax.annotate(
            name, points[name], (best[0] * scale, best[1] * scale), textcoords="offset points", fontsize=9,
            ha="right" if best[0] < 0 else "left", va="center", zorder=5,
            fontweight="bold" if name in COLORS else "normal", color=COLORS.get(name, "0.15"),
            arrowprops={"arrowstyle": "-", "color": "0.6", "lw": 0.7, "shrinkA": 0, "shrinkB": 4},
        )  # fmt: skip


def plot_conflict(traces: Mapping[str, pd.DataFrame], columns: int = 4) -> Figure:
    """Cosine between forget and retain gradient over the steps, a panel a method; below 0 they conflict."""
    rows = -(-len(traces) // columns)
    across = min(columns, len(traces))
    size = (2.5 * across + 0.6, 1.7 * rows + 0.7)
    fig, axes = plt.subplots(rows, across, figsize=size, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(traces) :]:
        ax.set_visible(False)
    for ax, (name, trace) in zip(axes.flat, traces.items(), strict=False):
        known = trace[["step", "cosine"]].dropna()
        ax.fill_between(known["step"], known["cosine"].clip(upper=0), 0, color=COLORS["unlearned"], alpha=0.3, lw=0)
        ax.plot(known["step"], known["cosine"], ".-", color="0.25")
        ax.axhline(0, color="0.4", lw=1)
        ax.set(title=f"{name}: mean {known['cosine'].mean():+.2f}", ylim=(-1.05, 1.05))
        ax.title.set_fontsize(9)
    for ax in axes.flat[max(0, len(traces) - across) : len(traces)]:  # the last of each column
        ax.set_xlabel("step")
        ax.tick_params(labelbottom=True)
    fig.supylabel("cosine of the two gradients", fontsize=10)
    return fig


def plot_trace(
    traces: Mapping[str, pd.DataFrame], columns: Sequence[str] = ("forget_loss", "retain_loss", "cosine")
) -> Figure:
    """Training traces side by side: one panel a column, one line a method."""
    fig, axes = plt.subplots(1, len(columns), figsize=(3.6 * len(columns), 2.9), squeeze=False)
    colors = method_colors(list(traces))
    for ax, column in zip(axes[0], columns, strict=True):
        marker = "." if column == "cosine" else ""
        for name, trace in traces.items():
            if column in trace:
                known = trace[["step", column]].dropna()
                ax.plot(known["step"], known[column], color=colors[name], label=name, marker=marker)
        ax.set(xlabel="step", title=column.replace("_", " "))
        if column == "cosine":
            ax.axhline(0, color="0.4", lw=1)
            ax.set(ylim=(-1.05, 1.05), title="cosine(forget, retain gradient)")
    axes[0, -1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return fig
