"""Figures of loss landscapes: lines, planes, and the paths of runs; original, oracle and control always drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from unlearnkit.plots.attribution import model_colors
from unlearnkit.plots.base import COLORS


def plot_lines(tables: Mapping[str, pd.DataFrame], splits: Sequence[str]) -> Figure:
    """The one-dimensional loss landscape: a panel a split, a line a model, from the original (0) to the model (1)."""
    fig, axes = plt.subplots(1, len(splits), figsize=(3.3 * len(splits) + 1.6, 3.0), sharey=True, squeeze=False)
    colors = model_colors(list(tables))
    for ax, split in zip(axes[0], splits, strict=True):
        drawn = set()
        for name, table in tables.items():
            for who, part in table[table["item"] == split].groupby("who", sort=False):
                if who in drawn:
                    continue
                own = who == "unlearned"
                drawn |= set() if own else {who}
                shade = colors[name] if own else model_colors([str(who)])[str(who)]
                style = ":" if who == "random" else "-"
                ax.plot(
                    part["place"], part["value"], style, color=shade, lw=1.6 if own else 2.4,
                    marker="o" if own else None, ms=4, label=name if own else who,
                )  # fmt: skip
        for at, said in ((0, "original"), (1, "the model")):
            ax.axvline(at, color="0.4", lw=1)
            ax.text(at, 1.0, said, transform=ax.get_xaxis_transform(), fontsize=8, ha="center", va="bottom")
        ax.set_title(split, pad=16)
        ax.set(xlabel="position t on the line")
    axes[0, 0].set_ylabel("NLL, nats a token")
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return fig


def plot_paths(
    paths: Mapping[str, pd.DataFrame], marks: Mapping[str, tuple[float, float]], labels: tuple[str, str]
) -> Figure:
    """Where runs lead while they unlearn: retain against forget NLL over the steps, towards the oracle.

    Args:
        paths: run → table with columns `forget` and `retain` (nats a token), a row a measured step; its end is marked.
        marks: "original" and "oracle" → (forget, retain).
    """
    fig, ax = plt.subplots(figsize=(6.4, 3.4))
    for marker, (name, color) in zip("osD^vPX*" * len(paths), model_colors(list(paths)).items(), strict=False):
        forget, retain = paths[name]["forget"], paths[name]["retain"]
        ax.plot(forget, retain, ":" if name == "random" else "-", color=color, lw=1.6)
        ax.plot(forget.iloc[-1:], retain.iloc[-1:], marker, color=color, ms=8, mec="white", label=name)
    for who, marker in (("original", "s"), ("oracle", "*")):
        ax.plot(*marks[who], marker, ms=16 if who == "oracle" else 10, color=COLORS[who], mec="white", label=who)
    ax.set(xlabel=labels[0], ylabel=labels[1])
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return fig


def plot_surface(
    grids: Mapping[str, np.ndarray], xs: Sequence[float], ys: Sequence[float], marks: Mapping[str, tuple[float, float]]
) -> Figure:
    """The loss over a plane of weights: filled contours, a panel a split, the models marked.

    Args:
        grids: split → NLL, (ys, xs), nats a token.
        marks: model → where it lies in the plane: "original", and the two that span it with the original, in order.
    """
    fig, axes = plt.subplots(1, len(grids), figsize=(4.1 * len(grids) + 0.4, 3.5), squeeze=False)
    signs = {"original": "s", "oracle": "*"}
    first, second = [who for who in marks if who != "original"][:2]
    for ax, (split, grid) in zip(axes[0], grids.items(), strict=True):
        drawn = ax.contourf(xs, ys, grid, levels=14, cmap="Greys_r")
        for who, (x, y) in marks.items():
            ax.plot(
                x, y, signs.get(who, "o"), ms=15 if who == "oracle" else 10, color=model_colors([who])[who],
                mec="white", mew=1.5, label=who,
            )  # fmt: skip
        ax.set(title=split, xlabel=f"weights, towards {first}", ylabel=f"at right angles, towards {second}")
        ax.grid(visible=False)
        fig.colorbar(drawn, ax=ax, label="NLL, nats a token")
    axes[0, 0].legend(fontsize=8, loc="best", framealpha=0.85)
    return fig
