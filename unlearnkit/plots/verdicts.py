"""Figures of verdicts: where each model stands, how often the rule is right, and a detector's ROC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from unlearnkit.plots.attribution import CONTROL, model_colors
from unlearnkit.plots.base import COLORS

TINTS = {"removed": COLORS["oracle"], "suppressed": COLORS["unlearned"], "present": COLORS["original"]}


def plot_confusion(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Truth against verdict, in models, a panel a branch; right answers are the diagonal.

    Args:
        tables: title → counts, index the truth, columns the verdict.
    """
    width, height = next(iter(tables.values())).shape[::-1]
    size = (0.9 * width * len(tables) + 1.6, 0.5 * height + 1.5)
    fig, axes = plt.subplots(1, len(tables), figsize=size, sharey=True, squeeze=False)
    for ax, (title, counts) in zip(axes[0], tables.items(), strict=True):
        grid = counts.to_numpy(float)
        ax.imshow(grid / np.maximum(grid.sum(1, keepdims=True), 1), cmap="Greys", vmin=0, vmax=3, aspect="auto")
        for (row, column), value in np.ndenumerate(grid):
            right = counts.index[row] == counts.columns[column]
            ax.text(
                column, row, f"{value:.0f}", ha="center", va="center", fontsize=12,
                fontweight="bold" if right else "normal", color=COLORS["oracle"] if right and value else "0.1",
            )  # fmt: skip
        ax.set(xticks=range(width), yticks=range(height), xlabel="verdict", title=title)
        ax.set_xticklabels(list(counts.columns), fontsize=8)
        ax.set_yticklabels(list(counts.index))
        ax.grid(visible=False)
    axes[0, 0].set_ylabel("truth")
    return fig


def plot_verdicts(branches: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Mean level of the output against that of the white box, a panel a branch: 1 as the original, 0 as the oracle.

    Args:
        branches: title → model → `Verdict`; the bands are the thresholds of the first.
    """
    fig, axes = plt.subplots(1, len(branches), figsize=(4.6 * len(branches), 3.9), squeeze=False)
    for ax, (title, found) in zip(axes[0], branches.items(), strict=True):
        limits = next(iter(found.values())).thresholds
        ax.axvspan(limits["said"], 2, color=COLORS["original"], alpha=0.12, lw=0)
        for low, high, shade in (
            (limits["unchanged"], 2, COLORS["unlearned"]),
            (-2, limits["forgotten"], COLORS["oracle"]),
        ):
            ax.fill_between([-2, limits["gone"]], low, high, color=shade, alpha=0.15, lw=0)
        for (x, y), names in _together(found).items():
            ax.plot(x, y, "o", ms=8, color=TINTS.get(found[names[0]].label, CONTROL), mec="white")
            side = ("right", -7) if x > 0.6 else ("left", 7)
            ax.annotate(", ".join(names), (x, y), (side[1], 5), textcoords="offset points", ha=side[0], fontsize=8)
        for x, y, said in ((-0.1, 1.12, "suppressed"), (-0.1, -0.17, "removed"), (0.85, -0.17, "present")):
            ax.text(x, y, said, fontsize=8, color="0.35", style="italic")
        ax.set(title=title, xlabel="output: level", ylabel="white box: level", xlim=(-0.15, 1.15), ylim=(-0.22, 1.22))
    return fig


def _together(found: Mapping[str, Any]) -> dict[tuple[float, float], list[str]]:
    """Models by their place in the plane, those at the same place in one list; levels beyond 0 and 1 count as these."""
    out: dict[tuple[float, float], list[str]] = {}
    for name, verdict in found.items():
        if np.isfinite([verdict.output, verdict.inside]).all():
            at = (round(min(verdict.output, 1.0), 2), round(min(verdict.inside, 1.0), 2))
            out.setdefault(at, []).append(name)
    return out


def plot_roc(curves: Mapping[str, Mapping[str, pd.DataFrame]], names: Mapping[str, str] | None = None) -> Figure:
    """ROC curves, a panel a comparison, a line a model; the diagonal is chance.

    Args:
        curves: title → model → table with columns `fpr` and `tpr`.
        names: model → its name in the legend, where that is another one.
    """
    fig, axes = plt.subplots(1, len(curves), figsize=(3.3 * len(curves) + 1.8, 3.2), sharey=True, squeeze=False)
    for ax, (title, lines) in zip(axes[0], curves.items(), strict=True):
        for who, color in model_colors(list(lines)).items():
            style, label = ":" if who == "random" else "-", (names or {}).get(who, who)
            ax.plot(lines[who]["fpr"], lines[who]["tpr"], style, color=color, lw=2, label=label)
        ax.plot([0, 1], [0, 1], "--", color="0.6", lw=1)
        ax.set_title(title.replace(" against ", "\nagainst "), fontsize=9)
        ax.set(xlabel="innocent prompts suspected", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes[0, 0].set_ylabel("attacks caught")
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    return fig
