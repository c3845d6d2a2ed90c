"""What the review panel shows: an output beside original and oracle, several of them, the clusters, and the counts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy.stats import binomtest

from unlearnkit.errors import UnlearnkitError
from unlearnkit.panels import html
from unlearnkit.panels.likeness import described
from unlearnkit.panels.notes import Notes
from unlearnkit.panels.outputs import Outputs
from unlearnkit.plots import COLORS, method_colors

MOST = 60  # outputs that are shown at once


def output_html(outputs: Outputs, notes: Notes, ids: Sequence[str]) -> str:
    """One output beside what original and oracle made of the same; what must not be said is highlighted."""
    table, (key,) = outputs.table, ids
    row = table.loc[key]
    mine = [] if row["who"] in ("original", "oracle") else [row["who"]]
    cards, titles = {}, {}
    for who in ("original", *mine, "oracle"):
        other = f"{who}/{row['split']}/{row['item']}"
        if other in table.index:
            shown = who if who in ("original", "oracle") else "unlearned"
            kinds = [f"rule: {table.loc[other, 'rule'] or 'nothing'}"]
            kinds += [f"tags: {'; '.join(notes.tags[other])}"] if notes.tags.get(other) else []
            cards[shown] = f"{_shown(outputs, other)}<small>{escape(' · '.join(kinds))}</small>"
            titles[shown] = f"{'▸ ' * (other == key)}{who}"
    asked = "" if outputs.pictures else f"<br><small>true answer:</small> {html.marked(row['truth'], row['value'])}"
    return f"<p><small>{escape(row['split'])}:</small> {escape(row['prompt'])}{asked}</p>{html.columns(cards, titles)}"


def sheet_html(outputs: Outputs, notes: Notes, ids: Sequence[str]) -> str:
    """Several outputs, a row each."""
    rows = []
    for key in ids[:MOST]:
        row = outputs.table.loc[key]
        said = f"<td class='uk-text'>{_shown(outputs, key)}</td>"
        words = (
            html.cell(text, words=True) for text in (row["prompt"], row["rule"], "; ".join(notes.tags.get(key, ())))
        )
        prompt, rule, tags = words
        rows.append((row["who"], prompt, said, rule, tags))
    left = f", the first {MOST} of them" if len(ids) > MOST else ""
    caption = f"{len(ids)} outputs are chosen{left}; a tag is put on all of them"
    return html.table(["model", "prompt", "output", "rule", "tags"], rows, caption)


def summary_of(outputs: Outputs, clusters: pd.Series) -> list[tuple[str, int]]:
    """A line a cluster with its size and its words (of pictures its most typical prompt), and its number."""
    lines = []
    for number, size in clusters.value_counts().sort_index().items():
        typical, words = described(outputs, clusters, int(str(number)))
        said = words or outputs.table.loc[typical, "output"] or outputs.table.loc[typical, "prompt"]
        lines.append((f"{number}: {size} × {said[:60]}", int(str(number))))
    return lines


def clusters_html(outputs: Outputs, clusters: pd.Series, ids: Sequence[str]) -> str:
    """A row a cluster: its most typical output, its words, and how many outputs of each model are in it."""
    known = clusters.loc[list(ids)]
    models = outputs.table.loc[list(ids), "who"]
    names = list(models.unique())
    rows = []
    for number in sorted(known.unique()):
        typical, words = described(outputs, clusters, number)
        counts = models[known == number].value_counts()
        cells = (html.cell(f"{counts[w]}" if w in counts else "–") for w in names)
        shown = f"<td class='uk-text'>{_shown(outputs, typical)}</td>"
        said = [] if outputs.pictures else [html.cell(words, words=True)]
        rows.append((str(number), shown, *said, *cells))
    head = ["cluster", "most typical output", *([] if outputs.pictures else ["its words"]), *names]
    lines = ["currentColor"] * (len(head) - len(names)) + list(_colors(names, css=True).values())
    by = "the judge's features or pixels" if outputs.pictures else "words they share"
    caption = f"{len(known)} outputs by likeness ({by}), and how many of each model"
    return html.table(head, rows, caption, lines)


def tag_counts(outputs: Outputs, notes: Notes, ids: Sequence[str], by: str = "reader") -> pd.DataFrame:
    """How many outputs of each model are of each kind, among those that a reader tagged, or (`by="rule"`) among all.

    Columns: `kind`, `who`, `n`, `of`, and the share's 95% interval (Wilson) `low`–`high`.
    """
    table = outputs.table.loc[list(ids)]
    tags = [notes.tags.get(k, ()) if by == "reader" else tuple(filter(None, table.loc[k, "rule"].split("; ")))
            for k in table.index]  # fmt: skip
    rows = []
    for kind in notes.vocabulary:
        for who in table["who"].unique():
            mine = [t for t, w in zip(tags, table["who"], strict=True) if w == who and (t or by == "rule")]
            if mine:
                n = sum(kind in t for t in mine)
                interval = binomtest(n, len(mine)).proportion_ci(method="wilson")
                rows.append((kind, who, n, len(mine), interval.low, interval.high))
    return pd.DataFrame(rows, columns=["kind", "who", "n", "of", "low", "high"])


def counts_figure(counts: pd.DataFrame) -> Figure:
    """The share of each kind, a mark a model with its 95% interval."""
    names, kinds = list(counts["who"].unique()), list(counts["kind"].unique())
    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=(8.4, 0.42 * len(kinds) + 1.1), layout="constrained")
        ax = figure.subplots()
        for k, (who, color) in enumerate(_colors(names).items()):
            mine = counts[counts["who"] == who]
            y = mine["kind"].map(kinds.index) + 0.62 * ((k + 0.5) / len(names) - 0.5)
            share = 100 * mine["n"] / mine["of"]
            ax.hlines(y, 100 * mine["low"], 100 * mine["high"], color=color, lw=2.4, alpha=0.6)
            ax.plot(share, y, {"original": "o", "oracle": "^"}.get(who, "s"), color=color, ms=6, label=who)
        ax.set(yticks=range(len(kinds)), ylim=(len(kinds) - 0.5, -0.5), xlim=(-3, 103), xlabel="share of outputs, %")
        ax.set_yticklabels(kinds, parse_math=False)
        legend = ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def counts_html(outputs: Outputs, notes: Notes, ids: Sequence[str], by: str = "reader") -> str:
    """Figure and table of the kinds, by the reader's tags or by the rule."""
    counts = tag_counts(outputs, notes, ids, by)
    if counts.empty and by == "reader" and len(ids):
        said = "<p>No output shown here has a tag yet, so this is what the rule makes of them.</p>"
        return said + counts_html(outputs, notes, ids, "rule")
    if counts.empty:
        raise UnlearnkitError("no output passes the filters; widen one of them.")
    names = list(counts["who"].unique())
    rows: list[tuple[Any, ...]] = []
    for kind, part in counts.groupby("kind", sort=False):
        cells = []
        for r in part.set_index("who").loc[names].itertuples():
            said = f"{r.n} of {r.of} [{r.low:.0%}, {r.high:.0%}]"
            cells.append(html.cell(said, html.shade(r.n / r.of, "Blues")))
        rows.append((kind, *cells))
    whose = "tags of a reader, among tagged outputs" if by == "reader" else "by rule, looked at by nobody"
    lines = ["currentColor", *_colors(names, css=True).values()]
    drawn = html.drawing(counts_figure(counts), "Share of each kind of output, by model", light=True)
    return drawn + html.table(["kind", *names], rows, f"Kinds of output: {whose}; 95% intervals, Wilson", lines)


def _shown(outputs: Outputs, key: str) -> str:
    row = outputs.table.loc[key]
    if key not in outputs.pictures:
        return f"<p>{html.marked(row['output'], row['value'])}</p>"
    drawn = html.picture(outputs.pictures[key], f"{row['who']}: {row['prompt']}")
    return drawn + (f"<small>read as {html.marked(row['output'], row['value'])}</small><br>" if row["output"] else "")


def _colors(names: Sequence[str], css: bool = False) -> dict[str, Any]:
    """The colours of models: as in every figure; several methods have one each."""
    from matplotlib.colors import to_hex

    methods = [n for n in names if n not in ("original", "oracle")]
    own = method_colors(methods) if len(methods) > 1 else dict.fromkeys(methods, COLORS["unlearned"])
    found: dict[str, Any] = {name: own.get(name, COLORS.get(name)) for name in names}
    return {name: to_hex(color) for name, color in found.items()} if css else found
