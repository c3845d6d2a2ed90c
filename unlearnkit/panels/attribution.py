"""The attribution panel: pick model, method, prompt and target; see original, unlearned and oracle side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from unlearnkit.attacks.text.inside import layers
from unlearnkit.errors import UnlearnkitError
from unlearnkit.panels import image_attribution as pictures
from unlearnkit.panels import text_attribution as text
from unlearnkit.panels.frame import LABEL, WIDE, Panel, given_models, side_by_side
from unlearnkit.panels.html import titles_of
from unlearnkit.unlearning import check_problem

OWN = "a prompt of your own"


def attribution_panel(problem: Any, unlearned: Any, *, seed: int = 0) -> Panel:
    """Where an answer comes from, in original, unlearned, oracle and a random change of the same size.

    Text: heat maps of the prompt's tokens, and lens and probe of a layer. Images: the cross-attention maps of a token.

    Args:
        unlearned: name → what `unlearn` returned (or a model), or one of these.
        seed: of the random control, of what a view draws, and (images) the first noise shown.

    Raises:
        UnlearnkitError: nothing to show, or a model of the other modality.
    """
    check_problem(problem)
    kind = ImageAttributionPanel if problem.modality == "image" else TextAttributionPanel
    return kind(problem, given_models(problem, unlearned), seed)


def attribution_twin(
    problem: Any,
    unlearned: Any,
    *,
    prompt: str | None = None,
    target: str | None = None,
    method: str = "integrated_gradients",
    token: str | None = None,
    seed: int = 0,
) -> Figure:
    """What the panel shows of its first model, as one still figure.

    Args:
        prompt: by default the first forget question or prompt.
        target: text: the answer explained; by default that of the first forget question.
        method: text: of token attribution.
        token: images: the token whose maps are shown; by default the concept's.

    Raises:
        UnlearnkitError: a prompt of one's own without a target, or a token that isn't in the prompt.
    """
    check_problem(problem)
    name, model = next(iter(given_models(problem, unlearned).items()))
    models = side_by_side(problem, model, seed)
    titles = titles_of(models, name)
    if problem.modality == "image":
        found = pictures.attention_of(problem, models, prompt or problem.prompts_of("forget")[0][0], seed)
        return pictures.attention_figure(found, _place(problem, found.tokens, token), titles)
    record = problem.direct("forget")[0]
    if target is None and prompt not in (None, record.question):
        raise UnlearnkitError("a prompt of your own needs a target: the answer whose probability is explained.")
    asked = prompt or record.question, target or record.answer
    tokens = text.token_table(problem, models, *asked, method, seed)
    return text.twin_figure(tokens, text.lens_table(problem, models, *asked), _probe(problem, models, seed), titles)


class TextAttributionPanel(Panel):
    """Tabs `tokens` and `layers` over a prompt and a target."""

    def __init__(self, problem: Any, models: dict[str, Any], seed: int) -> None:
        super().__init__("Attribution: original, unlearned, oracle")
        self.problem, self.given, self.seed = problem, models, seed
        self._columns: tuple[str, dict[str, Any]] = ("", {})
        records = problem.direct("forget")
        own = {"style": LABEL, "layout": WIDE, "continuous_update": False}
        shown = [(f"{k + 1}. {qa.question}", k) for k, qa in enumerate(records)]
        choice = {"style": LABEL, "layout": WIDE}
        chosen = self.control("unlearned", widgets.Dropdown(options=list(models), description="unlearned", **choice))
        record = widgets.Dropdown(options=[*shown, (OWN, -1)], description="record", **choice)
        record.observe(self._fill_in, "value")
        self.controls["record"], self.records = record, records
        prompt = self.control("prompt", widgets.Text(records[0].question, description="prompt", **own))
        target = self.control("target", widgets.Text(records[0].answer, description="target", **own))
        methods = [(label, name) for name, label in text.METHODS.items()]
        method = self.control("method", widgets.Dropdown(options=methods, description="method", style=LABEL))
        depth = layers(problem.model)
        layer = widgets.IntSlider(depth, 0, depth, description="layer", continuous_update=False, style=LABEL)
        self.control("layer", layer)
        self.tabs = widgets.Tab(
            [widgets.VBox([method, self.view("tokens", 470)]), widgets.VBox([layer, self.view("layers", 470)])],
            titles=("tokens", "layers"),
        )
        self.tabs.observe(self._changed, "selected_index")
        rows = [widgets.HBox([chosen, record]), widgets.HBox([prompt, target])]
        self.box.children = (self.head, *rows, self.tabs)

    def update(self) -> None:
        name, prompt, target = (self.controls[k].value for k in ("unlearned", "prompt", "target"))
        show: Callable[[], str] = self._layers if self.tabs.selected_index else self._tokens
        self.fill("layers" if self.tabs.selected_index else "tokens", show)
        with self.together():  # a prompt typed by hand is none of the records
            asked = [k for k, qa in enumerate(self.records) if (qa.question, qa.answer) == (prompt, target)]
            self.controls["record"].value = asked[0] if asked else -1

    def _models(self) -> dict[str, Any]:
        name = self.controls["unlearned"].value
        if self._columns[0] != name:  # one set of models at a time: the random change is a copy
            self._columns = name, side_by_side(self.problem, self.given[name], self.seed)
        return self._columns[1]

    def _tokens(self) -> str:
        name, prompt, target, method = (self.controls[k].value for k in ("unlearned", "prompt", "target", "method"))
        models = self._models()
        found = self.once(
            ("tokens", name, prompt, target, method), text.METHODS[method], len(models),
            lambda step: text.token_table(self.problem, models, prompt, target, method, self.seed, step),
        )  # fmt: skip
        return text.token_html(found, titles_of(models, name))

    def _layers(self) -> str:
        name, prompt, target, layer = (self.controls[k].value for k in ("unlearned", "prompt", "target", "layer"))
        models = self._models()
        lens = self.once(
            ("lens", name, prompt, target), "logit lens", len(models),
            lambda step: text.lens_table(self.problem, models, prompt, target, step),
        )  # fmt: skip
        probe = self.once(
            ("probe", name), "linear probe", 2, lambda step: _probe(self.problem, models, self.seed, step)
        )
        return text.layers_html(lens, probe, layer, titles_of(models, name))

    def _fill_in(self, change: Any) -> None:
        if self._quiet or change["new"] < 0:
            return
        record = self.records[change["new"]]
        with self.together():
            self.controls["prompt"].value, self.controls["target"].value = record.question, record.answer
        self.update()


class ImageAttributionPanel(Panel):
    """The cross-attention maps of one token of a prompt."""

    def __init__(self, problem: Any, models: dict[str, Any], seed: int) -> None:
        super().__init__("Cross-attention: original, unlearned, oracle")
        self.problem, self.given, self.seed = problem, models, seed
        self._columns: tuple[str, dict[str, Any]] = ("", {})
        own = {"style": LABEL, "continuous_update": False}
        chosen = widgets.Dropdown(options=list(models), description="unlearned", style=LABEL)
        prompt = widgets.Text(problem.prompts_of("forget")[0][0], description="prompt", layout=WIDE, **own)
        noise = widgets.IntSlider(seed, 0, max(9, seed + 9), description="noise", **own)
        token = widgets.Dropdown(description="token", style=LABEL)
        self.control("unlearned", chosen)
        self.control("prompt", prompt)
        self.control("noise", noise)
        self.control("token", token)
        rows = [widgets.HBox([chosen, prompt]), widgets.HBox([noise, token])]
        self.box.children = (self.head, *rows, self.view("attention", 620))

    def update(self) -> None:
        self.fill("attention", self._attention)

    def _attention(self) -> str:
        name, prompt, noise = (self.controls[k].value for k in ("unlearned", "prompt", "noise"))
        if self._columns[0] != name:
            self._columns = name, side_by_side(self.problem, self.given[name], self.seed)
        models = self._columns[1]
        found = self.once(
            ("attention", name, prompt, noise), "drawing", len(models),
            lambda step: pictures.attention_of(self.problem, models, prompt, noise, step),
        )  # fmt: skip
        token = self.controls["token"]
        options = [(f"{k}: {label}", k) for k, label in enumerate(found.tokens)]
        if tuple(options) != token.options:
            with self.together():
                token.options = options
                token.value = _place(self.problem, found.tokens, None)
        return pictures.attention_html(found, token.value, titles_of(models, name))


def _place(problem: Any, tokens: list[str], token: str | None) -> int:
    """Where a token stands; by default the concept's first one, else the first after the start token."""
    if token is not None:
        if token not in tokens:
            raise UnlearnkitError(f"token '{token}' is not in the prompt; its tokens are {', '.join(tokens)}.")
        return tokens.index(token)
    first = (problem.word or "").lower().split()[:1]
    return next((k for k, t in enumerate(tokens) if [t.lower()] == first), min(1, len(tokens) - 1))


def _probe(problem: Any, models: dict[str, Any], seed: int, step: Callable[[], None] = lambda: None) -> Any:
    """The probe's table, or why there is none."""
    try:
        return text.probe_table(problem, models, seed, step)
    except UnlearnkitError as reason:
        return str(reason)
