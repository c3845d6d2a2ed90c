"""Figures of attribution: the colours of the series, the oracle and a control always drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from unlearnkit.plots.base import COLORS, method_colors

CONTROL = "0.5"  # the random change of the same size
TINTS = {"removed": COLORS["oracle"], "suppressed": COLORS["unlearned"], "present": COLORS["original"]}


def model_colors(names: Sequence[str]) -> dict[str, Any]:
    """A colour for each of the models: the series' for original, oracles and control, one of its own for a method."""
    own = method_colors([n for n in names if not _fixed(n)])
    series = COLORS | {"random": CONTROL}
    return {n: own[n] if n in own else series[n.split()[0]] for n in names}


def _fixed(name: str) -> bool:
    return name in COLORS or name == "random" or name.startswith("oracle ")


def plot_tokens(values: Mapping[str, Sequence[float]], tokens: Sequence[str], title: str = "") -> Figure:
    """Attribution of each token, a row a model, with its exact value in nats; 0 is white.

    Args:
        values: model → one number a token.
    """
    grid = np.array([list(v) for v in values.values()], float)  # (models, tokens)
    top = max(float(np.abs(grid).max()), 1e-9)
    fig, ax = plt.subplots(figsize=(0.52 * len(tokens) + 2.6, 0.42 * len(values) + 1.3))
    picture = ax.imshow(grid, cmap="PuOr_r", vmin=-top, vmax=top, aspect="auto")
    for (row, column), value in np.ndenumerate(grid):
        shade = "white" if abs(value) > 0.65 * top else "0.1"
        ax.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8, color=shade)
    ax.set(xticks=range(len(tokens)), yticks=range(len(values)), title=title)
    ax.set_xticklabels([t.strip() or "␣" for t in tokens], rotation=40, ha="right", fontsize=8)
    for label, (who, color) in zip(ax.set_yticklabels(list(values)), model_colors(list(values)).items(), strict=True):
        label.set(color=color if _fixed(who) else "0.15", fontweight="bold" if who in COLORS else "normal")
    ax.grid(visible=False)
    fig.colorbar(picture, label="attribution, nats", shrink=0.9, pad=0.02)
    return fig


def plot_layers(tables: Mapping[str, pd.DataFrame], labels: Mapping[str, str]) -> Figure:
    """A panel a measure of the view `layers`: its mean over the records, layer by layer.

    Args:
        tables: method → its table; original, oracles (mean and range) and the control are those of the first.
        labels: measure → label of the axis, with its unit.
    """
    fig, axes = plt.subplots(1, len(labels), figsize=(3.1 * len(labels) + 1.6, 3.0), squeeze=False)
    colors = model_colors(list(tables))
    for ax, (measure, label) in zip(axes[0], labels.items(), strict=True):
        first = _by_layer(next(iter(tables.values())), measure)
        oracles = first[[c for c in first if str(c).startswith("oracle")]]
        if len(oracles.columns):
            ax.fill_between(first.index, oracles.min(axis=1), oracles.max(axis=1), color=COLORS["oracle"], alpha=0.25)
            ax.plot(first.index, oracles.mean(axis=1), color=COLORS["oracle"], lw=2.5, label="oracle")
        for who, style in (("original", "-"), ("random", ":")):
            if who in first:
                shade = COLORS.get(who, CONTROL)
                ax.plot(first.index, first[who], style, color=shade, lw=2.5, label=who, zorder=1 + (style == ":"))
        for marker, (name, table) in zip("osD^vPX*" * len(tables), tables.items(), strict=False):
            mine = _by_layer(table, measure)["unlearned"]
            ax.plot(mine.index, mine, color=colors[name], marker=marker, ms=5, label=name, zorder=4)
        ax.set(xlabel="layer", ylabel=label, xticks=first.index)
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    return fig


def _by_layer(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Mean over the records: (layers from 1, models)."""
    rows = table[(table["measure"] == measure) & (table["place"] >= 0)]
    wide = rows.groupby(["place", "who"], sort=False)["value"].mean().unstack()
    return wide.set_axis(wide.index.astype(int) + 1)


def plot_traces(grids: Mapping[str, pd.DataFrame], label: str = "share restored") -> Figure:
    """Causal tracing: kinds of token × layers, a panel a model, one scale for all, from 0 to 1.

    Args:
        grids: model → table, index the kind of token, columns the layer from 0.
    """
    rows = list(next(iter(grids.values())).index)
    size = (1.75 * len(grids) + 3.0, 0.27 * len(rows) + 1.2)
    fig, axes = plt.subplots(1, len(grids), figsize=size, squeeze=False, sharey=True, layout="constrained")
    colors = model_colors(list(grids))
    for ax, (who, grid) in zip(axes[0], grids.items(), strict=True):
        values = grid.reindex(rows).to_numpy(float)
        shown = ax.imshow(values, cmap="Greys", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            said = "–" if np.isnan(value) else f"{value:.1f}"
            ax.text(column, row, said, ha="center", va="center", fontsize=7, color="white" if value > 0.6 else "0.1")
        ax.set_title(who, color=colors[who], fontsize=9)
        ax.set(xticks=range(values.shape[1]), xticklabels=[int(c) + 1 for c in grid.columns], xlabel="layer")
        ax.grid(visible=False)
    axes[0, 0].set_yticks(range(len(rows)), rows, fontsize=8)
    fig.colorbar(shown, ax=axes, label=label, pad=0.01)
    return fig


def plot_bars(
    groups: Mapping[str, pd.DataFrame], chance: float | None, label: str, order: Sequence[str], said: str = "chance"
) -> Figure:
    """A group a model, a bar a score, with its 95% interval where it has one, and the level of chance.

    Args:
        groups: model → table with index the score and columns `value` and, if known, `low`, `high`.
        chance: level that says nothing; None draws none.
        order: the scores, in their order.
    """
    fig, ax = plt.subplots(figsize=(1.15 * len(order) + 3.2, 3.0))
    colors, width = model_colors(list(groups)), 0.8 / len(groups)
    for k, (who, table) in enumerate(groups.items()):
        rows = table.reindex(order)
        at = np.arange(len(order)) + (k - (len(groups) - 1) / 2) * width
        ax.bar(at, rows["value"], 0.9 * width, color=colors[who], label=who)
        if "low" in rows:
            ax.vlines(at, rows["low"], rows["high"], color="0.15", lw=1.5)
    if chance is not None:
        ax.axhline(chance, color="0.15", lw=1.2, ls="--", label=said)
    ax.set(xticks=range(len(order)), xticklabels=[o.replace("_", "\n") for o in order], ylabel=label)
    ax.grid(axis="x", visible=False)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return fig


def plot_maps(
    pictures: Mapping[str, np.ndarray],
    maps: Mapping[str, Mapping[str, np.ndarray]],
    title: str = "",
    label: str = "share of attention",
) -> Figure:
    """Picture and map of each word on one seed and noise: a row a model, one scale for all maps.

    Args:
        pictures: model → uint8 (height, width, 3).
        maps: model → word → (height, width).
        label: what a map shows, with its unit.
    """
    words = list(next(iter(maps.values())))
    low, high = (f(m.min() if f is min else m.max() for ws in maps.values() for m in ws.values()) for f in (min, max))
    fig, axes = plt.subplots(
        len(maps), len(words) + 1, figsize=(0.8 * (len(words) + 1) + 1.9, 0.72 * len(maps) + 0.5),
        squeeze=False, layout="constrained",
    )  # fmt: skip
    colors = model_colors(list(maps))
    for row, (who, own) in enumerate(maps.items()):
        axes[row, 0].imshow(pictures[who], interpolation="nearest")
        axes[row, 0].set_ylabel(
            who.replace("_", "\n"), rotation=0, ha="right", va="center", color=colors[who] if _fixed(who) else "0.15"
        )
        for ax, word in zip(axes[row, 1:], words, strict=True):
            shown = ax.imshow(own[word], cmap="viridis", vmin=low, vmax=high)
            if row == 0:
                ax.set_title(f"“{word}”", fontsize=10)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
    fig.colorbar(shown, ax=axes, label=label, shrink=0.7)
    if title:
        fig.suptitle(title)
    return fig
