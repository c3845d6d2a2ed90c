"""Grids of samples, and the damage to related concepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from unlearnkit.plots.base import COLORS, method_colors, wrap


def image_grid(pictures: Mapping[str, Any], prompts: Sequence[str], title: str = "") -> Figure:
    """Pictures of several models on the same prompts and seeds: a row a prompt, a column a model.

    Args:
        pictures: model → uint8 (prompts, height, width, 3) or (prompts, seeds, height, width, 3), a strip a cell.
    """
    cells = {who: np.asarray(p) if np.ndim(p) == 5 else np.asarray(p)[:, None] for who, p in pictures.items()}
    seeds, height, width = next(iter(cells.values())).shape[1:4]
    size = 0.78 * seeds**0.75  # inches of a cell's width
    fig, axes = plt.subplots(
        len(prompts), len(cells), figsize=(size * len(cells) + 1.5, size / seeds * height / width * len(prompts) + 0.7),
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for column, (who, shown) in enumerate(cells.items()):
        axes[0, column].set_title(wrap(who.replace("_", " "), 12 * seeds), color=COLORS.get(who, "0.15"), fontsize=9)
        for row, ax in enumerate(axes[:, column]):
            gap = np.full((height, max(1, width // 24), 3), 255, np.uint8)
            strip = [part for one in shown[row] for part in (one, gap)][:-1]
            ax.imshow(np.concatenate(strip, 1), interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
    for ax, prompt in zip(axes[:, 0], prompts, strict=True):
        ax.set_ylabel(wrap(prompt, 16), rotation=0, ha="right", va="center", fontsize=8)
    if title:
        fig.suptitle(title)
    return fig


def plot_related(damage: Mapping[str, pd.DataFrame]) -> Figure:
    """Drop in accuracy of each retained concept, the nearest to the erased one first, with 95% intervals.

    Args:
        damage: method → table of `related_damage`; the oracle's own drop is drawn as the target.
    """
    first = next(iter(damage.values()))
    at = np.arange(len(first))
    fig, ax = plt.subplots(figsize=(max(4.5, 0.9 * len(first) + 2.2), 3.2))
    if first["oracle_drop"].notna().any():
        ax.plot(at, 100 * first["oracle_drop"], "_", ms=26, mew=2.5, color=COLORS["oracle"], label="oracle", zorder=2)
    ax.axhline(0, color=COLORS["original"], lw=1.4, label="original", zorder=1)
    colors = method_colors(list(damage)) if len(damage) > 1 else dict.fromkeys(damage, COLORS["unlearned"])
    for place, (who, table) in zip(np.linspace(-0.25, 0.25, len(damage) + 2)[1:-1], damage.items(), strict=True):
        rows = 100 * table.reindex(first.index)[["drop", "low", "high"]]
        ax.vlines(at + place, rows["low"], rows["high"], color=colors[who], lw=1.6, zorder=3)
        ax.plot(at + place, rows["drop"], "o", ms=6, color=colors[who], label=who, zorder=4)
    labels = [f"{concept}\n{distance:.1f}" for concept, distance in first["distance"].items()]
    ax.set_xticks(at, labels, fontsize=8, rotation=60 if len(first) > 12 else 0)
    ax.set(xlabel="retained concept, and its distance from the erased one", ylabel="drop in accuracy, points")
    ax.margins(x=0.08)
    ax.grid(axis="x", visible=False)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return fig
