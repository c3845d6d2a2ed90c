"""Figures of the series: one palette, original / unlearned / oracle always in the same colours, oracle as target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

_CYCLE = sns.color_palette("colorblind")
COLORS: dict[str, Any] = {"original": _CYCLE[0], "unlearned": _CYCLE[1], "oracle": _CYCLE[2], "floor": "0.85"}
GAP_CLIP = 3.0  # gaps beyond this are drawn at the edge and labelled


def style() -> None:
    """The look of every figure; called by the config cell of a notebook."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", font_scale=0.9)
    plt.rcParams.update({"figure.dpi": 80, "savefig.dpi": 110, "figure.autolayout": True})
    plt.rcParams.update({"axes.titlesize": 11, "axes.titleweight": "bold"})


def method_colors(names: Sequence[str]) -> dict[str, Any]:
    """A colour a method, the same in every figure of a notebook."""
    palette = sns.color_palette("husl", max(len(names), 3))
    return dict(zip(names, palette, strict=False))


def plot_levels(scores: pd.DataFrame, metrics: Sequence[str], title: str = "") -> Figure:
    """One panel a metric: original, unlearned with its 95% interval, and the oracle with its noise band."""
    shown = [m for m in metrics if m in scores.index]
    fig, axes = plt.subplots(1, len(shown), figsize=(1.9 * len(shown) + 0.6, 2.7), squeeze=False)
    for ax, name in zip(axes[0], shown, strict=True):
        row = scores.loc[name]
        if pd.isna(row["unlearned"]):
            ax.text(0.5, 0.5, _wrap(row["why"]), ha="center", va="center", fontsize=8, transform=ax.transAxes)
        else:
            if pd.notna(row["oracle"]):
                spread = row["floor"] * abs(row["original"] - row["oracle"]) if pd.notna(row["floor"]) else 0
                ax.axhspan(row["oracle"] - spread, row["oracle"] + spread, color=COLORS["oracle"], alpha=0.2, lw=0)
                ax.axhline(row["oracle"], color=COLORS["oracle"], lw=1)
            for x, who in enumerate(("original", "unlearned", "oracle")):
                ax.plot(x, row[who], "o", ms=8, color=COLORS[who])
            if pd.notna(row["low"]):
                ax.plot([1, 1], [row["low"], row["high"]], color=COLORS["unlearned"], lw=2)
        ax.set(title=_wrap(name.replace("_", " "), 16), xticks=range(3), xlim=(-0.6, 2.6))
        ax.set_xticklabels(["original", "unlearned", "oracle"], rotation=40, ha="right")
        ax.grid(axis="x", visible=False)
    if title:
        fig.suptitle(title)
    return fig


def plot_gaps(tables: Mapping[str, pd.DataFrame], metrics: Sequence[str]) -> Figure:
    """Gap to the oracle per method and metric, with interval; grey: the noise floor; 1: nothing happened."""
    fig, axes = plt.subplots(
        1, len(metrics), figsize=(2.3 * len(metrics) + 1.2, 0.34 * len(tables) + 1.3), sharey=True, squeeze=False
    )
    for ax, name in zip(axes[0], metrics, strict=True):
        for y, scores in enumerate(tables.values()):
            if name not in scores.index or pd.isna(scores.loc[name, "gap"]):
                ax.text(0.02, y, "not measurable", fontsize=7, va="center", color="0.4")
                continue
            row = scores.loc[name]
            gap = min(row["gap"], GAP_CLIP)
            ends = [min(row["gap_low"], GAP_CLIP), min(row["gap_high"], GAP_CLIP)]
            ax.plot(ends, [y, y], color="0.5", lw=2, zorder=2)
            ax.plot(gap, y, ">" if row["gap"] > GAP_CLIP else "o", color=COLORS["unlearned"], ms=7, zorder=3)
            if row["gap"] > GAP_CLIP:
                ax.text(gap - 0.08, y, f"{row['gap']:.1f}", ha="right", va="center", fontsize=8)
        floors = [t.loc[name, "floor"] for t in tables.values() if name in t.index and pd.notna(t.loc[name, "floor"])]
        if floors:
            ax.axvspan(0, float(np.mean(floors)), color=COLORS["oracle"], alpha=0.25, lw=0)
        ax.axvline(1, color=COLORS["original"], lw=1.2)
        ax.set(title=_wrap(name.replace("_", " "), 18), xlim=(0, GAP_CLIP + 0.1), xlabel="gap to the oracle")
    axes[0, 0].set_yticks(range(len(tables)), list(tables))
    axes[0, 0].invert_yaxis()
    return fig


def plot_plane(
    tables: Mapping[str, pd.DataFrame], forgetting: str, utility: str, colors: Mapping[str, Any] | None = None
) -> Figure:
    """Where each method lands: a forget metric against utility, with original and oracle as the two landmarks."""
    colors = colors or method_colors(list(tables))
    fig, ax = plt.subplots(figsize=(6.4, 4.4))
    first = next(iter(tables.values()))
    for who, marker in (("original", "s"), ("oracle", "*")):
        x, y = first.loc[forgetting, who], first.loc[utility, who]
        ax.plot(x, y, marker, ms=16 if who == "oracle" else 10, color=COLORS[who], label=who, ls="none", zorder=4)
    target = first.loc[forgetting]
    if pd.notna(target["floor"]):
        spread = target["floor"] * abs(target["original"] - target["oracle"])
        ax.axvspan(target["oracle"] - spread, target["oracle"] + spread, color=COLORS["oracle"], alpha=0.15, lw=0)
    for name, scores in tables.items():
        x, y = scores.loc[forgetting], scores.loc[utility]
        ax.errorbar(
            x["unlearned"],
            y["unlearned"],
            xerr=[[max(0, x["unlearned"] - x["low"])], [max(0, x["high"] - x["unlearned"])]],
            yerr=[[max(0, y["unlearned"] - y["low"])], [max(0, y["high"] - y["unlearned"])]],
            fmt="o",
            ms=8,
            color=colors[name],
            label=name,
            elinewidth=1,
            alpha=0.9,
        )
    ax.set(xlabel=forgetting.replace("_", " "), ylabel=utility.replace("_", " "))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
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


def side_by_side(rows: pd.DataFrame, mark: str = "") -> Any:
    """A table of texts as HTML, every cell escaped; cells that contain the row's `mark` column are highlighted."""
    from IPython.display import HTML

    def cell(row: pd.Series, column: str) -> str:
        text = escape(str(row[column]))
        hit = mark and column != mark and str(row[mark]).lower() in str(row[column]).lower()
        return f"<td style='text-align:left'>{'<mark>' + text + '</mark>' if hit else text}</td>"

    columns = [str(c) for c in rows.columns]
    head = "".join(f"<th style='text-align:left'>{escape(c)}</th>" for c in columns)
    body = "".join("<tr>" + "".join(cell(row, c) for c in columns) + "</tr>" for _, row in rows.iterrows())
    return HTML(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def _wrap(text: str, width: int = 24) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(str(text), width))
