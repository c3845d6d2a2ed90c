"""Scores beside original and oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from unlearnkit.plots.base import COLORS, GAP_CLIP, wrap


def plot_levels(scores: pd.DataFrame, metrics: Sequence[str], title: str = "") -> Figure:
    """One panel a metric: original, unlearned with its 95% interval, and the oracle with its noise band."""
    shown = [m for m in metrics if m in scores.index]
    fig, axes = plt.subplots(1, len(shown), figsize=(1.9 * len(shown) + 0.6, 2.7), squeeze=False)
    for ax, name in zip(axes[0], shown, strict=True):
        row = scores.loc[name]
        if pd.isna(row["unlearned"]):
            ax.text(0.5, 0.5, wrap(row["why"]), ha="center", va="center", fontsize=8, transform=ax.transAxes)
        else:
            if pd.notna(row["oracle"]):
                spread = row["floor"] * abs(row["original"] - row["oracle"]) if pd.notna(row["floor"]) else 0
                ax.axhspan(row["oracle"] - spread, row["oracle"] + spread, color=COLORS["oracle"], alpha=0.2, lw=0)
                ax.axhline(row["oracle"], color=COLORS["oracle"], lw=1)
            for x, who in enumerate(("original", "unlearned", "oracle")):
                ax.plot(x, row[who], "o", ms=8, color=COLORS[who])
            if pd.notna(row["low"]):
                ax.plot([1, 1], [row["low"], row["high"]], color=COLORS["unlearned"], lw=2)
        ax.set(title=wrap(name.replace("_", " "), 16), xticks=range(3), xlim=(-0.6, 2.6))
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
        ax.set(title=wrap(name.replace("_", " "), 18), xlabel="gap to the oracle")
        ax.set(xlim=(-0.1, GAP_CLIP + 0.1), ylim=(-0.6, len(tables) - 0.4))
    axes[0, 0].set_yticks(range(len(tables)), list(tables))
    axes[0, 0].invert_yaxis()
    return fig


def plot_against(
    tables: Mapping[str, pd.DataFrame], labels: Mapping[str, str], titles: Mapping[str, str] | None = None
) -> Figure:
    """Each method's value with its 95% interval between original and oracle (with its noise): a panel a metric.

    Args:
        labels: metric → axis label with its unit; the order of the panels.
        titles: metric → title of its panel; by default the metric's name.
    """
    fig, axes = plt.subplots(
        1, len(labels), figsize=(2.7 * len(labels) + 2.4, 0.36 * len(tables) + 1.7), sharey=True, squeeze=False
    )
    for ax, (name, label) in zip(axes[0], labels.items(), strict=True):
        rows = {who: t.loc[name] for who, t in tables.items() if name in t.index}
        first = next(iter(rows.values()), pd.Series(dtype=float))
        for who, width in (("original", 4), ("oracle", 1.5)):  # both are seen where they coincide
            if pd.notna(first.get(who)):
                ax.axvline(first[who], color=COLORS[who], lw=width, label=who, zorder=1)
        if pd.notna(first.get("floor")):
            spread = first["floor"] * abs(first["original"] - first["oracle"])
            ax.axvspan(first["oracle"] - spread, first["oracle"] + spread, color=COLORS["oracle"], alpha=0.2, lw=0)
        for y, who in enumerate(tables):
            row = rows.get(who, pd.Series(dtype=float))
            if pd.isna(row.get("unlearned")):
                ax.text(0.02, y, "not measurable", fontsize=7, va="center", transform=ax.get_yaxis_transform())
                continue
            ax.plot([row["low"], row["high"]], [y, y], color="0.45", lw=2, zorder=2, solid_capstyle="butt")
            ax.plot(
                row["unlearned"], y, "o", color=COLORS["unlearned"], ms=7, zorder=3, label="_" * (y > 0) + "unlearned"
            )
        ax.set(
            title=(titles or {}).get(name, wrap(name.replace("_", " "), 20)),
            xlabel=label,
            ylim=(len(tables) - 0.5, -0.5),
        )
        ax.margins(x=0.07)
    axes[0, 0].set_yticks(range(len(tables)), list(tables))
    handles, names = axes[0, 0].get_legend_handles_labels()
    axes[0, -1].legend(handles, names, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    return fig


def plot_ecdf(samples: Mapping[str, Any], colors: Mapping[str, Any], ax: Any = None, mark: Sequence[str] = ()) -> Any:
    """Empirical distribution functions; an arrow at the largest distance of the two samples named in `mark`."""
    ax = ax or plt.subplots(figsize=(5.2, 3.4))[1]
    known = {name: np.sort(np.asarray(values, float)) for name, values in samples.items()}
    low, high = min(v[0] for v in known.values()), max(v[-1] for v in known.values())
    pad = 0.06 * (high - low)
    for name, values in known.items():
        steps = np.concatenate([[low - pad], values, [high + pad]])
        share = np.concatenate([[0], np.arange(1, len(values) + 1) / len(values), [1]])
        ax.step(steps, share, where="post", color=colors[name], lw=2, label=f"{name} (n = {len(values)})")
    if mark:
        a, b = (known[name] for name in mark)
        grid = np.concatenate([a, b])
        shares = [np.searchsorted(v, grid, side="right") / len(v) for v in (a, b)]
        at = int(np.abs(shares[0] - shares[1]).argmax())
        ends = [(grid[at], shares[k][at]) for k in (0, 1)]
        ax.annotate("", *ends, arrowprops={"arrowstyle": "<->", "color": "0.15", "lw": 1.6})
        middle = (ends[0][1] + ends[1][1]) / 2
        ax.annotate(
            f"D = {abs(ends[0][1] - ends[1][1]):.2f}",
            (grid[at], middle),
            (6, 0),
            textcoords="offset points",
            va="center",
            bbox={"fc": "white", "ec": "none", "pad": 1.5},
        )
    ax.set(ylabel="share of items at or below", ylim=(-0.03, 1.03))
    ax.legend(frameon=False, fontsize=8)
    return ax


def answer_table(answers: Mapping[str, Sequence[str]], questions: Sequence[str], truths: Sequence[str]) -> Any:
    """What each model answers, a row a model, as HTML: every cell escaped, the true value highlighted."""
    from IPython.display import HTML

    def cell(text: str, truth: str) -> str:
        at = text.lower().find(truth.lower()) if truth else -1
        if at < 0:
            return escape(text)
        end = at + len(truth)
        return f"{escape(text[:at])}<mark>{escape(text[at:end])}</mark>{escape(text[end:])}"

    left = "style='text-align:left;vertical-align:top'"
    head = "".join(f"<th {left}>{escape(q)}</th>" for q in questions)
    body = "".join(
        f"<tr><th {left}>{escape(who)}</th>"
        + "".join(f"<td {left}>{cell(str(t), str(truth))}</td>" for t, truth in zip(texts, truths, strict=True))
        + "</tr>"
        for who, texts in answers.items()
    )
    return HTML(f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>")
