"""Curves and cards of attacks."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from unlearnkit.plots.base import COLORS, method_colors


def plot_attack(curves: Mapping[str, pd.DataFrame], measure: str, xlabel: str, ylabel: str) -> Figure:
    """Curves of one attack on several methods with 95% intervals, between the original's and the oracles' curves."""
    colors = method_colors(list(curves))
    fig, ax = plt.subplots(figsize=(6.6, 3.6))
    first = next(iter(curves.values()))
    reference = first[(first["measure"] == measure) & (first["who"] != "unlearned")]
    for who, part in reference.groupby("who", sort=False):
        kind = "original" if who == "original" else "oracle"
        wide = 6 if who == kind else 2.5  # to be seen under a method that lies on it
        ax.plot(part["budget"], part["value"], color=COLORS[kind], lw=wide, alpha=0.55, label=who)
    for marker, (name, curve) in zip("osD^vPX*" * len(curves), curves.items(), strict=False):
        part = curve[(curve["measure"] == measure) & (curve["who"] == "unlearned")]
        ax.fill_between(part["budget"], part["low"], part["high"], color=colors[name], alpha=0.2, lw=0)
        ax.plot(part["budget"], part["value"], color=colors[name], marker=marker, ms=6, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return fig


def plot_card(cards: Mapping[str, pd.DataFrame], measure: str, xlabel: str) -> Figure:
    """The robustness card of each method, a row an attack: before it, at its best point, and the references there.

    Filled where the attack finds something beyond the oracle and its noise; "not measurable" where original and oracle
    do not differ there, or there is no oracle.

    Args:
        measure: one of the cards' measures, such as "accuracy" or "probability".
    """
    names = list(dict.fromkeys(a for card in cards.values() for a in card["attack"]))
    size = (2.6 * len(cards) + 2.6, 0.3 * len(names) + 1.3)
    fig, axes = plt.subplots(1, len(cards), figsize=size, sharey=True, sharex=True, squeeze=False)
    for ax, (method, card) in zip(axes[0], cards.items(), strict=True):
        rows = card[card["measure"] == measure].set_index("attack").reindex(names)
        for y, (_, row) in enumerate(rows.iterrows()):
            if pd.isna(row["after"]):
                ax.text(0.02, y, "not measurable", fontsize=7, va="center", transform=ax.get_yaxis_transform())
                continue
            if pd.notna(row["oracle"]):
                spread = row["floor"] if pd.notna(row["floor"]) else 0
                band = [row["oracle"] - spread, row["oracle"] + spread]
                ax.fill_betweenx([y - 0.35, y + 0.35], *band, color=COLORS["oracle"], alpha=0.25, lw=0)
            for who in ("oracle", "original"):
                ax.plot([row[who]] * 2, [y - 0.35, y + 0.35], color=COLORS[who], lw=2, label=who)
            if pd.isna(row["found"]):
                ax.text(
                    0.5,
                    y,
                    "not measurable",
                    fontsize=7,
                    ha="center",
                    va="center",
                    zorder=3,
                    transform=ax.get_yaxis_transform(),
                    bbox={"fc": "white", "ec": "none", "pad": 1, "alpha": 0.8},
                )
                continue
            ax.plot([row["low"], row["high"]], [y, y], color=COLORS["unlearned"], lw=2)
            ax.plot(row["before"], y, "|", ms=8, mew=2, color="0.3", label="before the attack")
            fill, said = (
                (COLORS["unlearned"], "after it: found") if row["found"] == 1 else ("white", "after it: nothing")
            )
            ax.plot(row["after"], y, "o", ms=6, color=COLORS["unlearned"], mfc=fill, label=said)
        ax.set(title=method, xlabel=xlabel, ylim=(len(names) - 0.5, -0.5))
        ax.margins(x=0.06)
    axes[0, 0].set_yticks(range(len(names)), [n.replace("_", " ") for n in names])
    known = {label: handle for ax in axes[0] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    axes[0, -1].legend(known.values(), known.keys(), loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    return fig
