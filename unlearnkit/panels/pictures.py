"""Pictures side by side: original, unlearned and oracle draw the same prompts from the same noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure

from unlearnkit.attacks.image.showing import drawn_with, seen
from unlearnkit.errors import UnlearnkitError, whole_number
from unlearnkit.metrics.measure_image import judge_trouble
from unlearnkit.models.diffusion import sample
from unlearnkit.panels import html
from unlearnkit.panels.frame import LABEL, WIDE, ModelsPanel, check_modality, first_models
from unlearnkit.plots import image_grid

MOST = 6  # prompts of a grid
OTHERWISE = "pictures are drawn by diffusion models; for text take answers_panel."


def pictures_panel(problem: Any, unlearned: Any, *, seed: int = 0) -> PicturesPanel:
    """What original, unlearned, oracle and a random change of the same size draw, prompts edited by hand.

    Args:
        unlearned: name → what `unlearn` returned (or a pipeline), or one of these.
        seed: of the random control and of the first noise.

    Raises:
        UnlearnkitError: nothing to show, or a problem or model of text.
    """
    check_modality(problem, "image", OTHERWISE)
    return PicturesPanel(problem, unlearned, seed)


def pictures_twin(
    problem: Any, unlearned: Any, *, prompts: Sequence[str] | None = None, count: int = 4, seed: int = 0
) -> Figure:
    """What the panel shows of its first model, as one still figure.

    Args:
        prompts: by default one that asks for the concept and one that doesn't.
        count: pictures a prompt.
    """
    check_modality(problem, "image", OTHERWISE)
    whole_number("count", count, 1)
    models, titles = first_models(problem, unlearned, seed)
    grid = draw_grid(problem, models, prompts or _first(problem), range(seed, seed + count))
    return image_grid({titles[w]: p for w, p in grid.pictures.items()}, grid.prompts)


@dataclass(frozen=True)
class Grid:
    """Pictures of prompts (rows) and seeds: model → uint8 (prompts, seeds, height, width, 3).

    `shown` has for each picture whether the judge reads the erased concept in it; `why` says what it lacks.
    """

    prompts: list[str]
    seeds: list[int]
    pictures: dict[str, np.ndarray]
    shown: dict[str, np.ndarray]
    why: str


def draw_grid(
    problem: Any,
    models: Mapping[str, Any],
    prompts: Sequence[str],
    seeds: Sequence[int],
    step: Callable[[], None] = lambda: None,
) -> Grid:
    """Each prompt drawn from each seed by every model, with the steps and the guidance that metrics draw with."""
    asked = [p.strip() for p in prompts if p.strip()]
    if not 0 < len(asked) <= MOST:
        raise UnlearnkitError(f"{len(asked)} prompts can't be drawn; give one to {MOST}, one a line.")
    steps, guidance = drawn_with(problem)
    every = [p for p in asked for _ in seeds]
    why = judge_trouble(problem.judge) if problem.concept else "no concept was erased, but single pictures"
    grid = Grid(asked, list(seeds), {}, {}, why)
    for who, model in models.items():
        drawn = sample(model, every, [*seeds] * len(asked), steps=steps, guidance=guidance)
        shape = (len(asked), len(seeds))
        grid.pictures[who] = drawn.reshape(*shape, *drawn.shape[1:])
        if not why:
            read = seen(problem, drawn, list(map(str, range(len(drawn)))))
            grid.shown[who] = read["shown"].to_numpy().reshape(shape) > 0
        step()
    return grid


def grid_html(grid: Grid, concept: str, titles: Mapping[str, str]) -> str:
    """A row a prompt, a column a model; what the judge reads under the pictures and, of each one, on hover."""
    names = list(grid.pictures)
    heads = "".join(
        f"<th scope='col' style='text-align:left;border-bottom-color:{html.color_of(w)}'>"
        f"{escape(titles.get(w, w))}</th>"
        for w in names
    )
    rows = []
    for k, prompt in enumerate(grid.prompts):
        cells = []
        for who in names:
            shown = grid.shown.get(who)
            pictures = "".join(
                html.picture(image, f"{titles.get(who, who)}: {prompt}, seed {seed}{_read(shown, k, i, concept)}")
                for i, (seed, image) in enumerate(zip(grid.seeds, grid.pictures[who][k], strict=True))
            )
            said = "" if shown is None else f"<small>“{escape(concept)}” in {shown[k].sum()} of {len(shown[k])}</small>"
            cells.append(f"<td class='uk-text'><div class='uk-strip'>{pictures}</div>{said}</td>")
        rows.append(f"<tr><th scope='row'>{escape(prompt)}</th>{''.join(cells)}</tr>")
    why = f"What the pictures show is not measurable: {grid.why}." if grid.why else "Read by the judge."
    return (
        f"<table class='uk-grid'><caption>The same noise for all models, seeds {grid.seeds[0]} to {grid.seeds[-1]}. "
        f"{escape(why)}</caption><thead><tr><th scope='col'>prompt</th>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _read(shown: np.ndarray | None, row: int, column: int, concept: str) -> str:
    return "" if shown is None else f"; read as {concept}: {'yes' if shown[row, column] else 'no'}"


def _first(problem: Any) -> list[str]:
    return [problem.asked["forget"][0], *problem.asked["retain"][:1]]


class PicturesPanel(ModelsPanel):
    """Controls: prompts, one a line; how many pictures a prompt, and the first seed."""

    def __init__(self, problem: Any, unlearned: Any, seed: int) -> None:
        super().__init__("Pictures: original, unlearned, oracle", problem, unlearned, seed)
        own = {"style": LABEL, "continuous_update": False}
        text = "\n".join(_first(problem))
        self.control("prompts", widgets.Textarea(text, description="prompts", rows=3, layout=WIDE, **own))
        self.control("count", widgets.IntSlider(3, 1, 6, description="pictures", **own))
        self.control("first", widgets.IntSlider(seed, 0, seed + 99, description="first seed", **own))
        chosen, prompts, count, first = self.controls.values()
        left = widgets.VBox([chosen, count, first], layout=widgets.Layout(flex="0 0 320px"))
        self.box.children = (self.head, widgets.HBox([left, prompts]), self.view("pictures", 430))

    def update(self) -> None:
        self.fill("pictures", self._pictures)

    def _pictures(self) -> str:
        models, (prompts, count, first) = self.models(), (self.controls[k].value for k in ("prompts", "count", "first"))
        grid = self.once(
            ("pictures", self.name, prompts, count, first), "drawing", len(models),
            lambda step: draw_grid(self.problem, models, prompts.splitlines(), range(first, first + count), step),
        )  # fmt: skip
        return grid_html(grid, self.problem.word, self.titles)
