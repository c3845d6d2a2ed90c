"""What all panels share: controls above a view of fixed height, a progress bar, errors as one sentence."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ipywidgets as widgets

from unlearnkit.attribution.base import random_change
from unlearnkit.errors import UnlearnkitError
from unlearnkit.panels.html import page, sentence, titles_of
from unlearnkit.panels.worker import alone, cells_take_turns
from unlearnkit.unlearning import check_problem, model_of

WIDE = widgets.Layout(width="100%")
LABEL = {"description_width": "92px"}
KEPT = 16  # results a panel remembers, the latest


class Panel:
    """Controls, a progress bar, and views that are replaced as a whole, so that nothing flickers or jumps.

    Shown as the value of a cell, it first appears and then computes, with the bar in sight.

    Attributes:
        box: the widget.
        controls: name → widget; set a `.value` to do what a reader does.
        views: name → `widgets.HTML` that is filled by the function of the same name in `update`.
    """

    def __init__(self, title: str) -> None:
        cells_take_turns()
        self.controls: dict[str, Any] = {}
        self.views: dict[str, widgets.HTML] = {}
        self._kept: dict[Hashable, Any] = {}
        self._quiet = False
        self.title = widgets.HTML(f"<b>{title}</b>", layout=widgets.Layout(flex="1"))
        self.bar = widgets.IntProgress(layout=widgets.Layout(width="220px", height="18px"))
        self.doing = widgets.Label()
        self.progress = widgets.HBox([self.doing, self.bar], layout=widgets.Layout(visibility="hidden"))
        self.progress.add_class("uk-progress")
        self.head = widgets.HBox([self.title, self.progress], layout=widgets.Layout(height="28px"))
        self.box = widgets.VBox([self.head])

    def control(self, name: str, widget: Any) -> Any:
        """File a control; a change of its value updates the panel."""
        self.controls[name] = widget
        widget.observe(self._changed, "value")
        return widget

    def view(self, name: str, height: int) -> Any:
        """A part of the panel that shows HTML, `height` pixels high whatever it shows."""
        layout = widgets.Layout(height=f"{height}px", overflow="auto", width="100%")
        self.views[name] = widgets.HTML(layout=layout)
        self.views[name].add_class(f"uk-view-{name}")
        return self.views[name]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Several controls change, the panel updates once."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    def update(self) -> None:
        """Compute and show what the controls ask for."""
        raise TypeError(f"{type(self).__name__} has no update(); a panel must give it")

    def fill(self, name: str, make: Callable[[], str]) -> None:
        """Put HTML into a view; whatever goes wrong is said there in one sentence."""
        try:
            shown = make()
        except UnlearnkitError as error:
            shown = sentence(error)
        except Exception as error:  # a reader of a panel sees no traceback; the kernel goes on
            said = (str(error).splitlines() or [""])[0]
            shown = sentence(f"This can't be computed here: {type(error).__name__}: {said}")
        self.views[name].value = page(shown)

    def once(self, key: Hashable, what: str, steps: int, make: Callable[[Callable[[], None]], Any]) -> Any:
        """The result of `make(step)`, kept under `key`; `step()` moves the progress bar on, `steps` times in all."""
        if key not in self._kept:
            self.doing.value, self.bar.value, self.bar.max = f"{what} …", 0, steps
            self.progress.layout.visibility = "visible"

            def step() -> None:
                self.bar.value += 1

            try:
                with alone():
                    self._kept[key] = make(step)
            finally:
                self.progress.layout.visibility = "hidden"
            while len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        return self._kept[key]

    def _changed(self, change: Any) -> None:
        if not self._quiet:
            self.update()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.box)
        self.update()


def side_by_side(problem: Any, model: Any, seed: int = 0, control: bool = True) -> dict[str, Any]:
    """The models of the columns: original, unlearned, the first oracle if there is one, and the random change."""
    models = {"original": problem.model, "unlearned": model}
    if problem.oracles:
        models["oracle"] = problem.oracle(0)
    if control:
        models["random"] = random_change(problem.model, model, seed)
    return models


class ModelsPanel(Panel):
    """A panel on one unlearned model at a time, picked by name, beside original, oracle and random change."""

    def __init__(self, title: str, problem: Any, unlearned: Any, seed: int = 0) -> None:
        super().__init__(title)
        self.problem, self.given, self.seed = problem, given_models(problem, unlearned), seed
        self._columns: tuple[str, dict[str, Any]] = ("", {})
        self.control("unlearned", widgets.Dropdown(options=list(self.given), description="unlearned", style=LABEL))

    @property
    def name(self) -> str:
        return self.controls["unlearned"].value

    def models(self) -> dict[str, Any]:
        """The models of the columns; one set at a time is kept, since the random change is a copy."""
        if self._columns[0] != self.name:
            self._columns = self.name, side_by_side(self.problem, self.given[self.name], self.seed)
        return self._columns[1]

    @property
    def titles(self) -> dict[str, str]:
        return titles_of(self.models(), self.name)


class RecordPanel(ModelsPanel):
    """A panel on a language model whose texts come from a forget record, or are typed by hand.

    Args:
        fields: name of a text control → attribute of the record that fills it.
    """

    def __init__(self, title: str, problem: Any, unlearned: Any, fields: Mapping[str, str], seed: int = 0) -> None:
        super().__init__(title, problem, unlearned, seed)
        self.fields, self.records = fields, problem.direct("forget")
        shown = [(f"{k + 1}. {qa.question}", k) for k, qa in enumerate(self.records)]
        options = [*shown, ("a prompt of your own", -1)]
        record = widgets.Dropdown(options=options, description="record", style=LABEL, layout=WIDE)
        record.observe(self._fill_in, "value")
        self.controls["record"] = record
        for name, attribute in fields.items():
            text = getattr(self.records[0], attribute)
            own = {"description": name, "style": LABEL, "layout": WIDE, "continuous_update": False}
            self.control(name, widgets.Text(text, **own))

    def texts(self) -> tuple[str, ...]:
        """What the text controls say; the list of records follows what is typed by hand."""
        said = tuple(self.controls[name].value for name in self.fields)
        known = (k for k, qa in enumerate(self.records) if said == self._texts_of(qa))
        with self.together():
            self.controls["record"].value = next(known, -1)
        return said

    def _texts_of(self, record: Any) -> tuple[str, ...]:
        return tuple(getattr(record, attribute) for attribute in self.fields.values())

    def _fill_in(self, change: Any) -> None:
        if self._quiet or change["new"] < 0:
            return
        with self.together():
            for name, text in zip(self.fields, self._texts_of(self.records[change["new"]]), strict=True):
                self.controls[name].value = text
        self.update()


def first_models(problem: Any, unlearned: Any, seed: int) -> tuple[dict[str, Any], dict[str, str]]:
    """What a twin shows: the models of the columns for the first unlearned one, and their titles."""
    name, model = next(iter(given_models(problem, unlearned).items()))
    models = side_by_side(problem, model, seed)
    return models, titles_of(models, name)


def check_modality(problem: Any, modality: str, otherwise: str) -> None:
    """Raise UnlearnkitError unless this is a problem, and one of this modality."""
    check_problem(problem)
    if problem.modality != modality:
        raise UnlearnkitError(otherwise)


def given_models(problem: Any, unlearned: Any) -> dict[str, Any]:
    """Name → unlearned model, from a mapping of what `unlearn` returned, or from one of them.

    Raises:
        UnlearnkitError: an empty mapping, or something that is no model of this problem.
    """
    given = unlearned if isinstance(unlearned, Mapping) else {"unlearned": unlearned}
    if not given:
        raise UnlearnkitError('there is no model to show; give a mapping such as {"npo": unlearned}.')
    return {str(name): model_of(problem, one) for name, one in given.items()}
