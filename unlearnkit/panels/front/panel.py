"""What the controls of the front panel do."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from unlearnkit import tradeoff
from unlearnkit.attribution import VIEWS, attribute
from unlearnkit.errors import UnlearnkitError
from unlearnkit.evaluation import measure, references, score
from unlearnkit.panels import html
from unlearnkit.panels.front import says
from unlearnkit.panels.front.controls import FrontControls
from unlearnkit.panels.front.source import ALL, GIVEN, LAST, Choice, Source, choose, narrowed, settings_of
from unlearnkit.plots.front import contour_of, places, plot_choice, window
from unlearnkit.runs.files import unwritable, write
from unlearnkit.tradeoff import AXES
from unlearnkit.unlearning import Unlearned, model_of

ALT = "Forgetting against utility of every model, with the oracle's region and what was chosen"


def labels_of(source: Source, forgetting: str, utility: str, beyond: bool = False, less: bool = False) -> list[str]:
    if source.scores is None:
        return ["forgetting (1 = as retrained)", "utility, share of the original's"]
    share = "original's share of it" if less else "share of the original's"
    return [
        f"forgetting: {forgetting}, {'way to and beyond the oracle' if beyond else '1 − gap'} (1 = as retrained)",
        f"utility: {utility}, {share}",
    ]


def drawn(shown: Any, goal: Any, choice: Any, share: float, weight: float, rule: str, reference: Any, labels: Any,
           selected: Any = None, mixed: Any = None, order: Sequence[str] = ()) -> Figure:  # fmt: skip
    """The figure of a choice."""
    chosen = {"best that keeps the utility": choice.best, "preferred": choice.preferred, "selected": selected}
    marked = {k: shown.loc[i, AXES].to_numpy(float) for k, i in chosen.items() if i is not None}
    contour = contour_of(weight, choice.level, rule, choice.ideal, window(shown, goal))
    return plot_choice(
        shown, goal, share=share, reference=reference, marked=marked, contour=contour, mixed=mixed, labels=labels,
        order=order,
    )  # fmt: skip


class FrontPanel(FrontControls):
    """What the controls do.

    Attributes:
        shown: the points in sight, with all their columns; `choice` what was chosen among them.
    """

    def __init__(self, source: Source, asked: tuple[str, str], problem: Any, unlearned: Mapping[str, Any], limit: int,
                 folder: str) -> None:  # fmt: skip
        super().__init__("The front: forgetting against utility")
        for one in unlearned.values():
            model_of(problem, one)
        self.source, self.asked, self.problem, self.limit = source, asked, problem, limit
        self.unlearned = {str(name): one for name, one in unlearned.items()}
        self.mixed: dict[Any, dict[float, np.ndarray]] = {}  # model and axes → a → point
        self.choice: Choice | None = None
        self.build(source.axes(), asked, list(self.unlearned), getattr(problem, "modality", "text"), folder)
        self.controls["beyond"].disabled = self.controls["less"].disabled = source.scores is None  # points are as given
        self.load()

    def load(self) -> None:
        c, self.trouble = self.controls, ""
        try:
            self.every = self.source.points(*self._of("forgetting", "utility", "beyond", "less"))
        except UnlearnkitError as error:
            self.trouble, self.every = str(error), pd.DataFrame(columns=["method", "name", "seed", "step", *AXES])
        self.fill("mixture", str)  # what it said was said of other axes
        self.goal = self.source.goal(self.every)
        mine = self.every[self.every["method"] != "oracle"]
        steps = sorted(mine["step"].dropna().unique())
        with self.together():
            for name, options in (("methods", mine["name"].unique()), ("seeds", sorted(mine["seed"].unique()))):
                kept = [v for v in c[name].value if v in options]
                c[name].options = [(str(v), v) for v in options]
                c[name].value = kept or list(options)
            step = c["step"].value
            offered = [("every look", ALL), ("where each run ended", LAST), *((f"{s:g}", s) for s in steps)]
            c["step"].options = offered
            c["step"].value = step if step in [v for _, v in offered] else ALL
        self.update()

    def update(self) -> None:
        self.fill("front", self._front)
        if self.choice is None:
            for name in ("choice", "details", "samples", "attribution"):
                self.fill(name, str)
            return
        if self.controls["a"].value in self.mixed.get(self._mixing(), {}):
            self.fill("mixture", self._mixed)
        share, weight, rule = self._chosen()
        said = says.sentences(self.shown, self.choice, self.goal, share, weight, rule, self._reference())
        self.fill("choice", lambda: says.choice_html(self.shown, said, share, self._reference()))
        self.fill("details", lambda: says.point_html(self.selected, self.shown))
        self.fill("samples", lambda: says.samples_html(self.source.samples(self.selected)))
        self.fill("attribution", lambda: self._attributed(now=False))

    def _of(self, *names: str) -> list[Any]:
        return [self.controls[name].value for name in names]

    def _chosen(self) -> tuple[float, float, str]:
        share, weight, rule = self._of("share", "weight", "rule")
        return share / 100, weight, rule

    def _reference(self) -> list[float]:
        return self._of("reference_forgetting", "reference_utility")

    @property
    def selected(self) -> dict[str, Any]:
        """The row of the selected point."""
        return dict(self.shown.loc[self.controls["run"].value])

    def figure(self, selected: Any = None) -> Figure:
        """The figure as it stands."""
        mixed = self.mixed.get(self._mixing(), {})
        path = np.array([[0.0, 1.0], *(mixed[a] for a in sorted(mixed))]) if mixed else None
        labels = labels_of(self.source, *self._of("forgetting", "utility", "beyond", "less"))
        order = list(dict.fromkeys(self.every.loc[self.every["method"] != "oracle", "name"]))
        return drawn(
            self.shown, self.goal, self.choice, *self._chosen(), self._reference(), labels, selected, path, order
        )  # fmt: skip

    def _front(self) -> str:
        self.choice = None
        if self.trouble:
            raise UnlearnkitError(self.trouble)
        mine = self.every[self.every["method"] != "oracle"]
        self.shown = narrowed(mine, *self._of("methods", "seeds", "step"))
        self.choice = choose(self.shown, self.goal, *self._chosen(), self._reference())
        titles = [(says.title_of(dict(row)), index) for index, row in self.shown.iterrows()]
        first = self.choice.preferred if self.choice.best is None else self.choice.best
        selected = self.offer(titles, places(self.shown, window(self.shown, self.goal)), first)
        return html.drawing(self.figure(selected), ALT)

    def _mixing(self) -> tuple[Any, ...]:
        return tuple(self._of("model", "forgetting", "utility", "beyond", "less"))

    def mix(self) -> None:
        self.fill("mixture", self._mixed)
        self.update()

    def _mixed(self) -> str:
        name, a = self._of("model", "a")
        known = self.mixed.setdefault(self._mixing(), {})
        if a not in known:
            key = ("mix", *self._mixing(), a)
            known[a] = self.once(key, "evaluating the mixture", 4, lambda step: self._mixture(a, step))
        at = dict(zip(AXES, known[a], strict=True))
        share = self.controls["share"].value / 100
        keeps = "keeps" if at["utility"] >= share else "loses"
        return f"<p>{a:.2f} of {escape(name)}: {says.values_of(at)}; {keeps} the utility asked for.</p>"

    def _mixture(self, a: float, step: Any) -> np.ndarray:
        """(forgetting, utility) of the mixture, measured."""
        name, forgetting, utility, beyond, less = self._mixing()
        keys = list(self.asked if forgetting == GIVEN else (forgetting, utility))
        quiet: dict[str, Any] = {"progress": False} if self.problem.modality == "image" else {}
        step()
        reference = references(self.problem, self.limit)
        step()
        model = tradeoff.mix(self.problem, self.unlearned[name], a)
        step()
        mine = measure(self.problem, model, self.limit, **quiet)
        step()
        found = tradeoff.point(score(self.problem, [mine], reference, keys, 0), *keys, beyond=beyond, less=less)
        if found["why"]:
            raise UnlearnkitError(f"the mixture has no place here: {found['why']}.")
        return np.array([found[axis] for axis in AXES])

    def attribute(self) -> None:
        self.fill("attribution", lambda: self._attributed(now=True))

    def _attributed(self, now: bool) -> str:
        row, view = self.selected, self.controls["view"].value
        key = ("attribution", view, row["way"], str(row["step"]), row["settings"])
        model = self._model(row)
        if key not in self._kept and not now:
            return f"<p>Press <b>attribute</b>: {escape(VIEWS[self.problem.modality][view].card.title)}.</p>"
        table = self.once(key, "attributing", 1, lambda _: attribute(self.problem, model(), view))
        return says.attribution_html(table, view)

    def _model(self, row: Mapping[str, Any]) -> Any:
        """A function that gives the model of a point, mixed if the point is a mixture."""
        own = settings_of(row)
        a = own.pop("a", 1.0)
        for one in self.unlearned.values():
            if not isinstance(one, Unlearned) or (one.method, one.seed) != (row["method"], row["seed"]):
                continue
            settings = {"balance": "sum", **one.settings}
            last = pd.isna(row["step"]) or row["step"] == one.cost.get("steps")
            if last and settings["balance"] == row["balance"] and all(settings.get(k, v) == v for k, v in own.items()):
                return lambda: one if a == 1 else tradeoff.mix(self.problem, one, a)
        given = ", ".join(self.unlearned) or "none"
        raise UnlearnkitError(
            f"The model of {says.title_of(row)} is not at hand (models given: {given}), and a run folder keeps none. "
            "Unlearn it again with these parameters, and give it to the panel with problem= and unlearned={name: …}."
        )

    def export(self) -> None:
        self.fill("exported", self._exported)

    def _exported(self) -> str:
        if self.choice is None:
            raise UnlearnkitError("there is nothing to export: no point is shown.")
        if not self.controls["folder"].value.strip():
            raise UnlearnkitError("no folder was named to export to; give one.")
        folder = Path(self.controls["folder"].value).expanduser().absolute()
        marked = {"best": self.choice.best, "preferred": self.choice.preferred, "selected": self.controls["run"].value}
        said = [" ".join(name for name, at in marked.items() if at == index) for index in self.shown.index]
        table = self.shown.drop(columns=["way"]).assign(marked=said)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        write(folder / "front.csv", table.to_csv(index=False).encode())
        for kind in ("png", "svg"):
            data = io.BytesIO()
            self.figure(self.controls["run"].value).savefig(data, format=kind, dpi=150)
            write(folder / f"front.{kind}", data.getvalue())
        return f"<p>written: <code>{escape(str(folder))}/</code>front.csv, front.png, front.svg</p>"
