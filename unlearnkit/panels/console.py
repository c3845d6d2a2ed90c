"""The attack console: pick an attack and its budget, press run, watch the curves grow, and stop it if you like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import ipywidgets as widgets
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from unlearnkit.attacks import ATTACKS
from unlearnkit.errors import UnlearnkitError, unknown
from unlearnkit.panels import html
from unlearnkit.panels.frame import LABEL, WIDE, ModelsPanel, first_models
from unlearnkit.panels.text_attribution import MARKERS
from unlearnkit.panels.worker import Stopped, Worker
from unlearnkit.plots import COLORS
from unlearnkit.robustness import COLUMNS, _points, _rows, reference_key
from unlearnkit.unlearning import check_problem


def attack_console(problem: Any, unlearned: Any, *, seed: int = 0) -> AttackConsole:
    """Any attack on original, unlearned, oracle and a random change of the same size, point by point.

    Args:
        unlearned: name → what `unlearn` returned (or a model), or one of these.
        seed: of the random control and of the attack.

    Raises:
        UnlearnkitError: nothing to attack, or a model of the other modality.
    """
    check_problem(problem)
    return AttackConsole(problem, unlearned, seed)


def attack_twin(
    problem: Any,
    unlearned: Any,
    attack: str = "relearn",
    *,
    budget: Any = None,
    measure: str | None = None,
    seed: int = 0,
) -> Figure:
    """What the console shows of its first model after a run, as one still figure.

    Args:
        attack: a name of `ATTACKS[problem.modality]`; `budget` its points, by default its own.
        measure: by default the attack's first.
    """
    check_problem(problem)
    models, titles = first_models(problem, unlearned, seed)
    *_, curve = grow(problem, models, attack, budget, seed)
    measure = measure or curve["measure"].iloc[0]
    if measure not in set(curve["measure"]):
        raise unknown("measure", measure, curve["measure"].unique().tolist())
    return curve_figure(curve, measure, ATTACKS[problem.modality][attack].unit, titles)


def grow(
    problem: Any, models: Mapping[str, Any], name: str, budget: Any = None, seed: int = 0
) -> Iterator[pd.DataFrame]:
    """The curves so far, after every point of every model; the last table is what `attack` gives of these models.

    Raises:
        UnlearnkitError: as `attack`.
    """
    chosen = ATTACKS[problem.modality][name]()
    points = _points(name, chosen, chosen.budgets if budget is None else budget, budget is None)
    done: list[dict[str, Any]] = []
    for who, model in models.items():
        key = reference_key(name, chosen, points, seed, who)
        found = dict(problem.measured.get(key, {}))
        if found:
            yield pd.DataFrame([*done, *_rows(name, who, [found], seed)], columns=COLUMNS)
        else:
            for at, table in chosen.curve(problem, model, points, seed):
                found[at] = table
                yield pd.DataFrame([*done, *_rows(name, who, [found], seed)], columns=COLUMNS)
            if who in ("original", "oracle"):
                problem.measured[key] = found
        done += _rows(name, who, [found], seed)


def curve_figure(curve: pd.DataFrame, measure: str, unit: str, titles: Mapping[str, str]) -> Figure:
    """One measure over the budget, a line a model with its 95% interval."""
    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=(8.4, 3.2), layout="constrained")
        ax = figure.subplots()
        for who, mine in curve[curve["measure"] == measure].groupby("who", sort=False):
            color, line = COLORS.get(str(who), "0.5"), MARKERS[str(who)] + (":" if who == "random" else "-")
            ax.plot(mine["budget"], mine["value"], line, ms=7, lw=2, color=color, label=titles.get(str(who), who))
            ax.fill_between(mine["budget"], mine["low"], mine["high"], color=color, alpha=0.15, lw=0)
        ax.set(xlabel=f"budget: {unit}", ylabel=measure.replace("_", " "))
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def curve_html(curve: pd.DataFrame, measure: str, unit: str, titles: Mapping[str, str]) -> str:
    """The figure, and under it every value with its interval."""
    mine = curve[curve["measure"] == measure]
    names = list(mine["who"].unique())
    known = mine.set_index(["budget", "who"])
    rows = []
    for at in sorted(mine["budget"].unique()):
        said = [known.loc[(at, w)] if (at, w) in known.index else None for w in names]
        cells = ["–" if r is None else f"{r['value']:.3g} [{r['low']:.3g}, {r['high']:.3g}]" for r in said]
        rows.append((f"{at:g}", *map(html.cell, cells)))
    colors = ["currentColor", *map(html.color_of, names)]
    caption = f"{measure.replace('_', ' ')}, 95% intervals over {int(mine['n'].max())} questions or pictures"
    drawn = html.drawing(curve_figure(curve, measure, unit, titles), f"{measure} over {unit}")
    return drawn + html.table([unit, *(titles.get(w, w) for w in names)], rows, caption, colors)


class AttackConsole(ModelsPanel):
    """Controls: the attack, its budget, buttons that run and stop it, and the measure shown."""

    def __init__(self, problem: Any, unlearned: Any, seed: int) -> None:
        super().__init__("Attacks: original, unlearned, oracle", problem, unlearned, seed)
        self.known, self.worker = ATTACKS[problem.modality], Worker()
        self.curve = pd.DataFrame(columns=COLUMNS)  # of the attack that runs, as far as it is
        options = [(kind.card.title, name) for name, kind in sorted(self.known.items())]
        attack = widgets.Dropdown(options=options, description="attack", style=LABEL)
        attack.observe(self._fill_in, "value")
        self.controls["attack"] = attack
        self.control("budget", widgets.Text(description="budget", style=LABEL, layout=WIDE, continuous_update=False))
        self.control("measure", widgets.Dropdown(description="measure", style=LABEL))
        run = widgets.Button(description="run", icon="play", button_style="primary")
        stop = widgets.Button(description="stop", icon="stop", disabled=True)
        run.on_click(self._start)
        stop.on_click(lambda _: self.worker.stop())
        self.controls |= {"run": run, "stop": stop}
        chosen, attack, budget, measure, *_ = self.controls.values()
        rows = [[chosen, attack, budget], [measure, run, stop]]
        self.box.children = (self.head, *map(widgets.HBox, rows), self.view("curve", 470))
        self._fill_in(None)

    def update(self) -> None:
        if not self.worker.busy:
            self.fill("curve", self._shown)
        elif len(self.curve):
            self.fill("curve", lambda: self._drawn(self.curve))

    def _start(self, _: Any) -> None:
        self._free(False)
        try:
            self.worker.start(lambda: self.fill("curve", self._attacked), lambda: self._free(True))
        except UnlearnkitError as error:
            self._free(True)
            self.views["curve"].value = html.page(html.sentence(error))

    def _free(self, free: bool) -> None:
        """While an attack runs it can be stopped and looked at, and nothing else."""
        for name in ("unlearned", "attack", "budget", "run"):
            self.controls[name].disabled = not free
        self.controls["stop"].disabled = free

    def _fill_in(self, change: Any) -> None:
        kind = self.known[self.controls["attack"].value]
        with self.together():
            self.controls["budget"].value = ", ".join(f"{b:g}" for b in kind.budgets)
        if change is not None:
            self.update()

    def _key(self) -> tuple[str, ...]:
        return "attack", self.name, self.controls["attack"].value, self.controls["budget"].value

    def _shown(self) -> str:
        if self._key() in self._kept:
            return self._drawn(self._kept[self._key()])
        kind = self.known[self.controls["attack"].value]
        return (
            f"<p><b>{escape(kind.card.title)}</b> <small>{escape(kind.card.source)}</small></p>"
            f"<p>The attacker has: {escape(kind.card.access)}. A success says: {escape(kind.card.finds)}.</p>"
            f"<p>Budget: {escape(kind.unit)}. Press <b>run</b>.</p>"
        )

    def _attacked(self) -> str:
        """The whole curve; what there is of it, when it was stopped."""
        self.curve, title = pd.DataFrame(columns=COLUMNS), self.known[self.controls["attack"].value].card.title
        try:
            return self._drawn(self.once(self._key(), title, 1, self._run))
        except Stopped:
            said = "The attack was stopped; what is shown was measured before. Run begins it anew."
            return html.sentence(said) + (self._drawn(self.curve) if len(self.curve) else "")

    def _run(self, step: Any) -> pd.DataFrame:
        name, said = self.controls["attack"].value, self.controls["budget"].value
        try:
            budget = [float(b) for b in said.split(",")] if said.strip() else None
        except ValueError as error:
            raise UnlearnkitError(f"budget '{said}' is not possible; give numbers with commas between them.") from error
        models = self.models()
        self.bar.max = len(models) * len(budget or self.known[name].budgets or "1")
        self.worker.check()
        for curve in grow(self.problem, models, name, budget, self.seed):
            self.curve = curve
            step()
            self.views["curve"].value = html.page(self._drawn(self.curve))
            self.worker.check()
        return self.curve

    def _drawn(self, curve: pd.DataFrame) -> str:
        return curve_html(curve, self._measure(curve), self.known[self.controls["attack"].value].unit, self.titles)

    def _measure(self, curve: pd.DataFrame) -> str:
        """The measure to show; the list offers those that the attack has."""
        measure, options = self.controls["measure"], tuple(curve["measure"].unique())
        if measure.options != options:
            with self.together():
                measure.options = options
                measure.value = options[0]
        return measure.value
