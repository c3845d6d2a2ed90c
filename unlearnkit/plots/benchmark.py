"""Figures of the benchmark: leaderboards, places under several aggregates, and what metrics are worth."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from unlearnkit.plots.base import COLORS, method_colors

TRUTH_COLORS = {
    "knows": COLORS["original"],
    "hides": COLORS["unlearned"],
    "ignorant": COLORS["oracle"],
    "ruined": "0.45",
}
BOARD = {  # column → axis label, and where the oracle stands on it
    "gap": ("gap to the oracle\n(0 = as retrained, 1 = untouched)", 0.0),
    "utility": ("utility,\nshare of the original's", None),
    "recovered": ("what the better attack brings back\n(0 = oracle, 1 = original)", 0.0),
    "seconds": ("cost, seconds of CPU", None),
}
FAR = {"gap": 2.0, "utility": 1.1, "recovered": 1.3}  # values beyond are drawn at the edge, as triangles


def plot_board(board: pd.DataFrame, columns: Mapping[str, tuple[str, float | None]] = BOARD) -> Figure:
    """A leaderboard: each method's mean with its 95% interval over seeds, a panel a column.

    Filled: keeps the utility asked for (dashed line); hollow: doesn't, so it has no place. Green: the oracle, with the
    noise floor of the gap as a band.

    Args:
        board: what `leaderboard` returned, in the order to be drawn.
        columns: column → (axis label, the oracle's value where it follows from the definition).
    """
    named = [name for name in board.index if name != "oracle"]
    size = (2.45 * len(columns) + 1.6, 0.27 * len(named) + 1.5)
    fig, axes = plt.subplots(1, len(columns), figsize=size, sharey=True, squeeze=False)
    for ax, (column, (label, at)) in zip(axes[0], columns.items(), strict=True):
        edge = FAR.get(column, np.inf)
        target = board[column].get("oracle", np.nan) if at is None else at
        if pd.notna(target):
            ax.axvline(target, color=COLORS["oracle"], lw=1.5, zorder=1, label="oracle")
        if column == "gap" and board["floor"].notna().any():
            ax.axvspan(0, float(board["floor"].max()), color=COLORS["oracle"], alpha=0.2, lw=0)
        if column == "utility":
            ax.axvline(board.attrs.get("bar", 0.9), color="0.35", lw=1, ls="--")
        for y, name in enumerate(named):
            row = board.loc[name]
            if pd.isna(row[column]):
                ax.text(
                    0.02, y, "not measurable", transform=ax.get_yaxis_transform(), fontsize=6, color="0.5", va="center"
                )
                continue
            ends = [row.get(f"{column}_{end}", np.nan) for end in ("low", "high")]
            if pd.notna(ends[0]):
                ax.plot(np.clip(ends, None, edge), [y, y], color="0.5", lw=1.8, zorder=2)
            color, out = COLORS["unlearned"], row[column] > edge
            face = color if row["usable"] is True or row["usable"] == True else "white"  # noqa: E712 (None is neither)
            ax.plot(min(row[column], edge), y, ">" if out else "o", color=color, mfc=face, mew=1.4, ms=6, zorder=3)
        ax.set(xlabel=label, ylim=(len(named) - 0.5, -0.5))
        ax.xaxis.label.set_size(9)
        if column == "seconds":
            ax.set_xscale("log")
    axes[0, 0].set_yticks(range(len(named)), named, fontsize=9)
    return fig


def plot_places(ranks: pd.DataFrame, marked: Sequence[str] = ()) -> Figure:
    """Every method's place under each aggregate, a line a method; grey lines but for the `marked`."""
    fig, ax = plt.subplots(figsize=(1.15 * len(ranks.columns) + 2.6, 0.25 * len(ranks) + 1.6))
    colors = method_colors(list(marked))
    spots: dict[tuple[int, float], int] = {}
    for name, places in ranks.iterrows():
        color = colors.get(str(name))
        y = places.to_numpy(float).copy()
        for x, place in enumerate(y):  # methods that share a place are drawn beside each other
            if np.isfinite(place):
                nth = spots[x, place] = spots.get((x, place), -1) + 1
                y[x] = place + 0.42 * nth
        ax.plot(range(len(y)), y, "o-", color=color or "0.8", lw=2 if color else 1, ms=5, zorder=3 if color else 2)
        if np.isfinite(y[-1]):
            ax.annotate(
                str(name), (len(y) - 1, y[-1]), (7, 0), textcoords="offset points", va="center", fontsize=8,
                color=color or "0.4",
            )  # fmt: skip
    ax.set_xticks(range(len(ranks.columns)), [c.replace(" ", "\n") for c in ranks.columns], fontsize=8)
    ax.set(ylabel="place (1 is best)", xlim=(-0.3, len(ranks.columns) - 0.1))
    ax.invert_yaxis()
    ax.grid(axis="x", visible=False)
    return fig


def plot_radar(shares: pd.DataFrame, marked: Sequence[str], orders: Sequence[Sequence[str]]) -> Figure:
    """The same shares (methods × axes, 0–1, 1 is best) as a radar, once for each order of the axes."""
    fig, axes = plt.subplots(
        1, len(orders), figsize=(3.6 * len(orders) + 1.2, 3.4), subplot_kw={"projection": "polar"}, squeeze=False
    )
    for number, (ax, order) in enumerate(zip(axes[0], orders, strict=True), 1):
        angles = np.linspace(0, 2 * np.pi, len(order), endpoint=False)
        for name, color in method_colors(list(marked)).items():
            values = shares.loc[name, list(order)].to_numpy(float)
            ax.plot(np.r_[angles, angles[0]], np.r_[values, values[0]], color=color, lw=2, label=name)
            ax.fill(angles, values, color=color, alpha=0.12)
        ax.set_xticks(angles, list(order), fontsize=8)
        ax.set(ylim=(0, 1), yticks=(0.5, 1), title=f"order {number}")
        ax.tick_params(axis="y", labelsize=7)
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1.2, 0.5), frameon=False, fontsize=8)
    return fig


def radar_area(values: Sequence[float]) -> float:
    """Area of a radar's polygon as a share of the largest: it hangs on which axes are neighbours."""
    v = np.asarray(values, float)
    return float((v * np.roll(v, -1)).mean())


def plot_pool(values: pd.DataFrame, labels: Mapping[str, str]) -> Figure:
    """What a metric says of models of known truth: a point a model, a panel a metric; lines: original and oracle.

    Args:
        values: `Pool.values()`.
        labels: metric → axis label with its unit.
    """
    fig, axes = plt.subplots(1, len(labels), figsize=(2.6 * len(labels) + 0.8, 3.0), squeeze=False)
    draw = np.random.default_rng(0)
    for ax, (metric, label) in zip(axes[0], labels.items(), strict=True):
        own = values[(values["metric"] == metric) & (values["attack"] == "")]
        for who in ("original", "oracle"):
            for level in own[own["truth"] == who]["value"]:
                ax.axhline(level, color=COLORS[who], lw=1.2, alpha=0.7, zorder=1)
        for x, (truth, color) in enumerate(TRUTH_COLORS.items()):
            y = own[own["truth"] == truth]["value"].to_numpy(float)
            ax.plot(x + draw.uniform(-0.22, 0.22, len(y)), y, "o", color=color, ms=5, alpha=0.8, mec="white")
        ax.set(ylabel=label, xticks=range(len(TRUTH_COLORS)), xlim=(-0.5, len(TRUTH_COLORS) - 0.5))
        ax.set_xticklabels(list(TRUTH_COLORS), rotation=30, ha="right", fontsize=8)
        ax.grid(axis="x", visible=False)
    return fig


def plot_estimates(
    table: pd.DataFrame, panels: Mapping[str, tuple[str, float | None]], marked: Sequence[str] = ()
) -> Figure:
    """Estimates with 95% intervals, a row a metric and a panel a column; a dashed line at chance.

    Args:
        table: what `meta_evaluate` returned, in the order to be drawn.
        panels: column → (axis label, where chance lies).
        marked: metrics drawn in the colour of unlearned models, such as the reader's own.
    """
    size = (2.5 * len(panels) + 2.2, 0.23 * len(table) + 1.3)
    fig, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for ax, (column, (label, chance)) in zip(axes[0], panels.items(), strict=True):
        if chance is not None:
            ax.axvline(chance, color="0.4", lw=1, ls="--")
        for y, (name, row) in enumerate(table.iterrows()):
            if pd.isna(row[column]):
                ax.text(chance or 0.5, y, "–", ha="center", va="center", color="0.6")
                continue
            color: Any = COLORS["unlearned"] if name in marked else "0.2"
            ends = [row.get(f"{column}_low", np.nan), row.get(f"{column}_high", np.nan)]
            if pd.notna(ends[0]):
                ax.plot(ends, [y, y], color=color, lw=1.8, alpha=0.55, zorder=2)
            ax.plot(row[column], y, "o", color=color, ms=5, zorder=3)
        ax.set(xlabel=label, ylim=(len(table) - 0.5, -0.5), xlim=(-0.04, 1.04))
        ax.xaxis.label.set_size(9)
    axes[0, 0].set_yticks(range(len(table)), [str(name).replace("_", " ") for name in table.index], fontsize=8)
    return fig


def plot_beside(pairs: Mapping[str, pd.DataFrame], columns: int = 3) -> Figure:
    """The order of published numbers (left) and of ours (right), largest on top; a line a name, a panel a comparison.

    Equal values share a place and a label. Orange: names that move by more than one place.

    Args:
        pairs: title → table with columns `published` and `ours`, index the names.
    """
    rows = -(-len(pairs) // columns)
    across = min(columns, len(pairs))
    fig, axes = plt.subplots(rows, across, figsize=(3.7 * across, 2.9 * rows), squeeze=False, layout="constrained")
    for ax in axes.flat[len(pairs) :]:
        ax.remove()
    for ax, (title, table) in zip(axes.flat, pairs.items(), strict=False):
        places = table[["published", "ours"]].rank(ascending=False)
        for left, right in places.to_numpy(float):
            color = COLORS["unlearned"] if abs(left - right) > 1 else "0.6"
            ax.plot([0, 1], [left, right], "o-", color=color, lw=1.6, ms=5)
        for x, side in ((0, "published"), (1, "ours")):
            for place, names in places.groupby(side).groups.items():
                label = "\n".join(textwrap.wrap(", ".join(map(str, names)), 22))
                ax.annotate(
                    label, (x, place), (8 * (2 * x - 1), 0), textcoords="offset points", fontsize=9, va="center",
                    ha="left" if x else "right",
                )  # fmt: skip
        ax.set(title=title, xlim=(-1.25, 2.25), ylim=(len(places) + 0.5, 0.5), xticks=(0, 1), yticks=())
        ax.set_xticklabels(("published", "ours"))
        ax.grid(visible=False)
        for spine in ax.spines.values():
            spine.set_visible(False)
    return fig
