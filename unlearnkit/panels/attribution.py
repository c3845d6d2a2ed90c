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
from unlearnkit.panels.frame import LABEL, WIDE, ModelsPanel, Panel, RecordPanel, first_models
from unlearnkit.unlearning import check_problem


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
    return kind(problem, unlearned, seed)


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
    models, titles = first_models(problem, unlearned, seed)
    if problem.modality == "image":
        found = pictures.attention_of(problem, models, prompt or problem.prompts_of("forget")[0][0], seed)
        return pictures.attention_figure(found, _place(problem, found.tokens, token), titles)
    record = problem.direct("forget")[0]
    if target is None and prompt not in (None, record.question):
        raise UnlearnkitError("a prompt of your own needs a target: the answer whose probability is explained.")
    asked = prompt or record.question, target or record.answer
    tokens = text.token_table(problem, models, *asked, method, seed)
    return text.twin_figure(tokens, text.lens_table(problem, models, *asked), _probe(problem, models, seed), titles)


class TextAttributionPanel(RecordPanel):
    """Tabs `tokens` and `layers` over a prompt and a target."""

    def __init__(self, problem: Any, unlearned: Any, seed: int) -> None:
        fields = {"prompt": "question", "target": "answer"}
        super().__init__("Attribution: original, unlearned, oracle", problem, unlearned, fields, seed)
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
        chosen, record, prompt, target, *_ = self.controls.values()
        self.box.children = (self.head, widgets.HBox([chosen, record]), widgets.HBox([prompt, target]), self.tabs)

    def update(self) -> None:
        asked = self.texts()
        if self.tabs.selected_index:
            self.fill("layers", lambda: self._layers(*asked))
        else:
            self.fill("tokens", lambda: self._tokens(*asked))

    def _tokens(self, prompt: str, target: str) -> str:
        models, method = self.models(), self.controls["method"].value
        found = self.once(
            ("tokens", self.name, prompt, target, method), text.METHODS[method], len(models),
            lambda step: text.token_table(self.problem, models, prompt, target, method, self.seed, step),
        )  # fmt: skip
        return text.token_html(found, self.titles)

    def _layers(self, prompt: str, target: str) -> str:
        models = self.models()
        lens = self.once(
            ("lens", self.name, prompt, target), "logit lens", len(models),
            lambda step: text.lens_table(self.problem, models, prompt, target, step),
        )  # fmt: skip
        probe = self.once(
            ("probe", self.name), "linear probe", 2, lambda step: _probe(self.problem, models, self.seed, step)
        )
        return text.layers_html(lens, probe, self.controls["layer"].value, self.titles)


class ImageAttributionPanel(ModelsPanel):
    """The cross-attention maps of one token of a prompt."""

    def __init__(self, problem: Any, unlearned: Any, seed: int) -> None:
        super().__init__("Cross-attention: original, unlearned, oracle", problem, unlearned, seed)
        own = {"style": LABEL, "continuous_update": False}
        first = problem.prompts_of("forget")[0][0]
        self.control("prompt", widgets.Text(first, description="prompt", layout=WIDE, **own))
        self.control("noise", widgets.IntSlider(seed, 0, seed + 9, description="noise", **own))
        self.control("token", widgets.Dropdown(description="token", style=LABEL))
        chosen, prompt, noise, token = self.controls.values()
        rows = [widgets.HBox([chosen, prompt]), widgets.HBox([noise, token])]
        self.box.children = (self.head, *rows, self.view("attention", 620))

    def update(self) -> None:
        self.fill("attention", self._attention)

    def _attention(self) -> str:
        models, (prompt, noise) = self.models(), (self.controls[k].value for k in ("prompt", "noise"))
        found = self.once(
            ("attention", self.name, prompt, noise), "drawing", len(models),
            lambda step: pictures.attention_of(self.problem, models, prompt, noise, step),
        )  # fmt: skip
        token = self.controls["token"]
        options = [(f"{k}: {label}", k) for k, label in enumerate(found.tokens)]
        if tuple(options) != token.options:
            with self.together():
                token.options = options
                token.value = _place(self.problem, found.tokens, None)
        return pictures.attention_html(found, token.value, self.titles)


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
