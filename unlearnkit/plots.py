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
_METHODS = [_CYCLE[i] for i in (4, 9, 3, 5, 6, 8, 7)]  # colour-blind safe, and none of those above
GAP_CLIP = 3.0  # gaps beyond this are drawn at the edge and labelled


def style() -> None:
    """The look of every figure; called by the config cell of a notebook."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", font_scale=0.9)
    plt.rcParams.update({"figure.dpi": 80, "savefig.dpi": 110, "figure.autolayout": True})
    plt.rcParams.update({"axes.titlesize": 11, "axes.titleweight": "bold"})


def method_colors(names: Sequence[str]) -> dict[str, Any]:
    """A colour a method, the same in every figure of a notebook."""
    palette = _METHODS if len(names) <= len(_METHODS) else sns.color_palette("husl", len(names))
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
        ax.set(title=_wrap(name.replace("_", " "), 18), xlabel="gap to the oracle")
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
            title=(titles or {}).get(name, _wrap(name.replace("_", " "), 20)),
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


def plot_attack(curves: Mapping[str, pd.DataFrame], measure: str, xlabel: str, ylabel: str) -> Figure:
    """Curves of one attack on several methods with 95% intervals, between the original's and the oracles' curves."""
    colors = method_colors(list(curves))
    fig, ax = plt.subplots(figsize=(6.6, 3.6))
    first = next(iter(curves.values()))
    reference = first[(first["measure"] == measure) & (first["who"] != "unlearned")]
    for who, part in reference.groupby("who", sort=False):
        kind = "original" if who == "original" else "oracle"
        ax.plot(part["budget"], part["value"], color=COLORS[kind], lw=2.2 if who == kind else 1, label=who)
    for marker, (name, curve) in zip("osD^vPX*" * len(curves), curves.items(), strict=False):
        part = curve[(curve["measure"] == measure) & (curve["who"] == "unlearned")]
        ax.fill_between(part["budget"], part["low"], part["high"], color=colors[name], alpha=0.2, lw=0)
        ax.plot(part["budget"], part["value"], color=colors[name], marker=marker, ms=6, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return fig


def plot_card(cards: Mapping[str, pd.DataFrame], measure: str, xlabel: str) -> Figure:
    """The robustness card of each method, a row an attack: before it, at its best point, and the references there.

    Filled where the attack finds something beyond the oracle and its noise.

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
        axes[0, column].set_title(_wrap(who.replace("_", " "), 12 * seeds), color=COLORS.get(who, "0.15"), fontsize=9)
        for row, ax in enumerate(axes[:, column]):
            gap = np.full((height, max(1, width // 24), 3), 255, np.uint8)
            strip = [part for one in shown[row] for part in (one, gap)][:-1]
            ax.imshow(np.concatenate(strip, 1), interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
    for ax, prompt in zip(axes[:, 0], prompts, strict=True):
        ax.set_ylabel(_wrap(prompt, 16), rotation=0, ha="right", va="center", fontsize=8)
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


def _wrap(text: str, width: int = 24) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(str(text), width))
