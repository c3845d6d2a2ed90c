"""The review panel: look at many outputs in turn, sort them by likeness, tag what went wrong, keep notes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd

from unlearnkit.errors import UnlearnkitError, whole_number
from unlearnkit.panels import html
from unlearnkit.panels.frame import LABEL, WIDE, Panel
from unlearnkit.panels.likeness import clustered
from unlearnkit.panels.notes import Notes
from unlearnkit.panels.outputs import KINDS, Outputs, outputs_of
from unlearnkit.panels.review_views import clusters_html, counts_html, output_html, sheet_html, summary_of
from unlearnkit.unlearning import check_problem

ALL, UNTAGGED = "(all)", "(no tag yet)"


def review_panel(
    problem: Any, unlearned: Any, *, limit: int = 20, splits: Sequence[str] | None = None,
    file: str | Path | None = None, clusters: int = 8,
) -> ReviewPanel:  # fmt: skip
    """What original, unlearned models and oracle said or drew, to be filtered, sorted by likeness, tagged, noted.

    Args:
        unlearned: name → what `unlearn` or `measure` returned (or a model), or one of these.
        limit: questions or pictures a split; what was measured must have been measured with it.
        splits: default forget and retain.
        file: a CSV in which tags and notes are kept after every change and from which they are taken up again; without
            one they live as long as the kernel, and the button `export` hands them out.
        clusters: how many to begin with.

    Raises:
        UnlearnkitError: not a problem, or a number out of range; what else is wrong, the panel says.
    """
    check_problem(problem)
    whole_number("limit", limit, 1)
    whole_number("clusters", clusters, 1)
    return ReviewPanel(problem, unlearned, limit, splits, file, clusters)


def review_twin(
    problem: Any, unlearned: Any, *, limit: int = 20, splits: Sequence[str] | None = None,
    file: str | Path | None = None, clusters: int = 8,
) -> Any:  # fmt: skip
    """The panel's overview as HTML that stands still: kinds of output by model, and the clusters.

    Args: as of `review_panel`; with a `file`, what a reader tagged is counted, else what a rule makes of the outputs.

    Raises:
        UnlearnkitError: as `review_panel`; nothing to review; a file that isn't a review of these outputs.
    """
    from IPython.display import HTML

    check_problem(problem)
    whole_number("clusters", clusters, 1)
    whole_number("limit", limit, 1)
    outputs = outputs_of(problem, unlearned, limit, splits)
    notes, ids = Notes(outputs, file), outputs.table.index
    counts = counts_html(outputs, notes, ids, "reader" if notes.tags else "rule")
    return HTML(html.page(counts, clusters_html(outputs, clustered(outputs, clusters), ids)))


class ReviewPanel(Panel):
    """Left a list that the filters narrow; right the chosen output beside original and oracle, its tags and its note.

    Several outputs can be chosen and tagged at once. Tabs: `outputs`, `clusters`, `kinds` (counts by model).
    """

    def __init__(
        self,
        problem: Any,
        unlearned: Any,
        limit: int,
        splits: Sequence[str] | None,
        file: str | Path | None,
        count: int,
    ) -> None:  # fmt: skip
        super().__init__("Review: what the models said or drew")
        self._ask = lambda step: outputs_of(problem, unlearned, limit, splits, step)
        self._steps = 1 + (len(unlearned) if isinstance(unlearned, Mapping) else 1)
        self.file, self.clusters = file, pd.Series(dtype=int)
        self._notes: Notes | None = None
        own = {"style": LABEL, "continuous_update": False}
        self.control("search", widgets.Text(description="search", layout=WIDE, **own))
        for name in ("model", "split", "tag", "cluster"):
            self.control(name, widgets.Dropdown(options=[ALL], description=name, style=LABEL))
        self.control("leaks", widgets.Checkbox(description="leaks only", indent=False))
        self.control("clusters", widgets.IntSlider(count, 1, max(24, count), description="clusters", **own))
        tall = widgets.Layout(width="330px", height="410px", flex="0 0 auto")
        self.control("outputs", widgets.SelectMultiple(layout=tall)).add_class("uk-outputs")
        self.own = widgets.Text(description="own tag", layout=WIDE, **own)
        self.own.observe(self._own_tag, "value")
        self.note = widgets.Text(description="note", layout=WIDE, **own)
        self.note.observe(self._noted, "value")
        self.tags = widgets.HBox(layout=widgets.Layout(flex_flow="row wrap"))
        self.tags.add_class("uk-tags")
        buttons = {"next": "arrow-down", "rule": "check", "export": "download"}
        said = {"next": "next without a tag", "rule": "tag as the rule says", "export": "export"}
        for name, icon in buttons.items():
            self.controls[name] = widgets.Button(description=said[name], icon=icon, layout=widgets.Layout(width="auto"))
            self.controls[name].on_click(getattr(self, f"_{name}"))
        self.state = widgets.HTML()
        self.state.add_class("uk-state")
        c = self.controls
        right = [self.view("output", 268), self.tags, widgets.HBox([self.own, self.note]),
                 widgets.HBox([c["next"], c["rule"], c["export"]]), self.state]  # fmt: skip
        look = widgets.HBox([c["outputs"], widgets.VBox(right, layout=widgets.Layout(flex="1", min_width="0"))])
        alike = widgets.VBox([c["clusters"], self.view("clusters", 380)])
        self.tabs = widgets.Tab([look, alike, self.view("kinds", 410)], titles=("outputs", "clusters", "kinds"))
        self.tabs.observe(self._changed, "selected_index")
        filters = [[c["search"], c["model"], c["split"]], [c["tag"], c["cluster"], c["leaks"]]]
        self.box.children = (self.head, *map(widgets.HBox, filters), self.tabs)

    @property
    def notes(self) -> Notes:
        """Tags and notes, and what they are on; the first who asks has the models asked and the file taken up."""
        if self._notes is None:
            outputs = self.once("outputs", "asking the models", self._steps, self._ask)
            self._notes = Notes(outputs, self.file)
            with self.together():
                for name, column in (("model", "who"), ("split", "split")):
                    self.controls[name].options = [ALL, *outputs.table[column].unique()]
        return self._notes

    @property
    def outputs(self) -> Outputs:
        return self.notes.outputs

    def update(self) -> None:
        name = ("output", "clusters", "kinds")[self.tabs.selected_index or 0]
        self.fill(name, getattr(self, f"_show_{name}"))

    def found(self) -> pd.Index:
        """The ids of the outputs that pass the filters."""
        c = self.controls
        model, split, tag, cluster = (
            None if c[k].value == ALL else c[k].value for k in ("model", "split", "tag", "cluster")
        )
        tag = "" if tag == UNTAGGED else tag
        return self.notes.found(c["search"].value, model, split, tag, c["leaks"].value, cluster, self.clusters)

    def _tags(self, key: str) -> tuple[str, ...]:
        return self.notes.tags.get(key, ())

    def _ready(self) -> None:
        """Bring clusters and lists to what the slider and the tags say."""
        outputs, count = self.outputs, self.controls["clusters"].value
        self.clusters = self.once(("clusters", count), "comparing", 1, lambda step: clustered(outputs, count))
        lists = {"cluster": [(ALL, ALL), *summary_of(outputs, self.clusters)]}
        lists["tag"] = [(tag, tag) for tag in (ALL, UNTAGGED, *self.notes.vocabulary)]
        for name, options in lists.items():
            control, before = self.controls[name], self.controls[name].value
            if control.options != tuple(options):
                with self.together():
                    control.options = options
                    control.value = before if before in [value for _, value in options] else ALL

    def _show_output(self) -> str:
        self._ready()
        ids, chosen = self.found(), self.controls["outputs"]
        table = self.outputs.table
        options = [(self._label(table.loc[key]), key) for key in ids]
        with self.together():
            if chosen.options != tuple(options):
                kept = [key for key in chosen.value if key in ids]
                chosen.value = ()  # else the page would mark places that a shorter list doesn't have
                chosen.options = options
                chosen.value = kept or list(ids[:1])
            elif not chosen.value:
                chosen.value = list(ids[:1])
            self._show_tags(list(chosen.value))
        if not len(ids):
            raise UnlearnkitError("no output passes the filters; widen one of them.")
        show = sheet_html if len(chosen.value) > 1 else output_html
        return show(self.outputs, self.notes, list(chosen.value))

    def _label(self, row: Any) -> str:
        said = row["output"] or row["prompt"] if self.outputs.modality == "text" else row["prompt"]
        return f"{'●' if self._tags(str(row.name)) else '○'} {row['who']}: {said[:70]}"

    def _show_tags(self, ids: Sequence[str]) -> None:
        """A button a tag, pressed when all chosen outputs have it; the note of the one that is chosen."""
        if [b.description for b in self.tags.children] != self.notes.vocabulary:
            self.tags.children = [self._tag_button(tag) for tag in self.notes.vocabulary]
        for button in self.tags.children:
            button.value = bool(ids) and all(button.description in self._tags(key) for key in ids)
        self.note.value = self.notes.notes.get(ids[0], "") if len(ids) == 1 else ""
        self.note.disabled = len(ids) != 1
        tagged = sum(map(bool, self.notes.tags.values()))
        kept = f"kept in {self.file}" if self.file else "not kept in a file: export them, or give the panel a file"
        self.state.value = f"<small>{tagged} of {len(self.outputs.table)} outputs have a tag; {escape(kept)}</small>"

    def _tag_button(self, tag: str) -> Any:
        button = widgets.ToggleButton(description=tag, layout=widgets.Layout(width="auto"))
        button.observe(lambda change: self._tag(tag, change["new"]), "value")
        return button

    def _tag(self, tag: str, on: bool) -> None:
        if not self._quiet:
            self._write(lambda notes: notes.tag(self.controls["outputs"].value, tag, on))

    def _own_tag(self, change: Any) -> None:
        if change["new"].strip():
            self._tag(change["new"].strip(), True)
            self.own.value = ""

    def _noted(self, change: Any) -> None:
        if not self._quiet:
            self._write(lambda notes: notes.note(self.controls["outputs"].value[0], change["new"]))

    def _write(self, write: Any) -> None:
        """Change the notes and show it; what goes wrong is said where the state stands."""
        said = ""
        try:
            write(self.notes)
        except UnlearnkitError as error:
            said = html.page(html.sentence(error))
        self.update()
        self.state.value = said or self.state.value

    def _next(self, _: Any) -> None:
        ids = list(self.found())
        chosen = self.controls["outputs"]
        begin = ids.index(chosen.value[-1]) + 1 if chosen.value and chosen.value[-1] in ids else 0
        free = [key for key in ids[begin:] + ids[:begin] if not self._tags(key)]
        if free:
            chosen.value = free[:1]

    def _rule(self, _: Any) -> None:
        chosen = self.outputs.table.loc[list(self.controls["outputs"].value), "rule"]
        for tag in KINDS:
            ids = [key for key, rule in chosen.items() if tag in rule.split("; ")]
            if ids:
                self._write(lambda notes, ids=ids, tag=tag: notes.tag(ids, tag))

    def _show_clusters(self) -> str:
        self._ready()
        return clusters_html(self.outputs, self.clusters, self.found())

    def _show_kinds(self) -> str:
        self._ready()
        return counts_html(self.outputs, self.notes, self.found())

    def _export(self, _: Any) -> None:
        data = base64.b64encode(self.notes.csv()).decode()
        self.state.value = (
            f"<a download='review.csv' href='data:text/csv;base64,{data}'>review.csv</a> <small>"
            f"({len(self.outputs.table)} outputs, UTF-8; <code>unlearnkit.read_review</code> reads it)</small>"
        )
