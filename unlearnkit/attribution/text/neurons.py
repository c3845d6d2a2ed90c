"""Neurons: which hidden units of the MLPs an answer hangs on, and whether unlearning left them in charge; by captum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import pandas as pd
import torch
from captum.attr import LayerGradientXActivation, LayerIntegratedGradients
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.attribution.base import View, ViewCard, register_view
from unlearnkit.attribution.text.layers import decoder_layers
from unlearnkit.attribution.text.tokens import COMPLETE, MOST_STEPS, Question, question_of
from unlearnkit.errors import UnlearnkitError
from unlearnkit.text import widen

OUTPUTS = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "wo")  # what the hidden units of an MLP feed

SMALL = 1.0  # nats: a gap is not set against less, as float32 leaves some 1e-5 of a log-probability of tens of nats


def mlp_output(layer: nn.Module) -> nn.Module:
    """The linear map whose input is the hidden units of a decoder layer's MLP.

    Raises:
        UnlearnkitError: there is none under a known name.
    """
    inner = getattr(layer, "mlp", layer)
    for name in OUTPUTS:
        if isinstance(getattr(inner, name, None), nn.Module):
            return getattr(inner, name)
    raise UnlearnkitError(
        f"the MLP of a {type(layer).__name__} has none of {', '.join(OUTPUTS)}; its hidden units can't be found."
    )


def of_embeddings(model: Any, asked: Question) -> Callable[[Tensor], Tensor]:
    """f(embeddings of prompt and answer (n, tokens, width)) = log p(answer | prompt): (n,), nats.

    An instruction that a model reads before its prompts is not read here: the attribution is that of the weights.
    """
    size = len(asked.answer)

    def f(embedded: Tensor) -> Tensor:
        logits = model(inputs_embeds=embedded, use_cache=False).logits[:, -size - 1 : -1]  # (n, answer, vocabulary)
        label = asked.answer.expand(len(embedded), -1)
        return widen(logits).log_softmax(-1).gather(2, label[:, :, None])[:, :, 0].sum(1)

    return f


@torch.no_grad()
def embeddings_of(model: Any, ids: Tensor) -> Tensor:
    """The input embeddings of token ids as a pass of the model itself sees them: (n, tokens, width)."""
    kept: list[Tensor] = []
    handle = model.get_input_embeddings().register_forward_hook(lambda _, __, out: kept.append(out))
    try:
        model(input_ids=ids, use_cache=False)
    finally:
        handle.remove()
    return kept[-1].detach()  # an instruction may be read before them


def embedded(model: Any, asked: Question) -> tuple[Tensor, Tensor]:
    """Embeddings of the question and of nothing asked (pad tokens in its place): (1, tokens, width) each."""
    blank = torch.full_like(asked.question, asked.baseline)
    x, nothing = (embeddings_of(model, asked.whole(q[None])) for q in (asked.question, blank))
    return x, nothing


def layer_gradients(
    f: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor, blank: Tensor, of_input: bool, steps: int
) -> tuple[Tensor, float, int]:
    """Integrated gradients of f over a layer's activations: (1, tokens, units), completeness gap, steps.

    The path is straight, from the layer's activations at `blank` to those at `x`, all else as at `x`; the attributions
    sum to f(x) less f with the layer's activations as at `blank`. Steps are doubled until the gap, as a share of that
    difference or of `SMALL` where it is smaller, is at most `COMPLETE`.
    """
    kept: list[Tensor] = []

    def keep(_: nn.Module, given: Any, out: Any = None) -> None:
        kept.append(_first(given if of_input else out).detach())

    def put(_: nn.Module, given: Any, out: Any = None) -> Any:
        whole = given if of_input else out
        return (kept[0], *whole[1:]) if isinstance(whole, tuple) else kept[0]

    hooking = module.register_forward_pre_hook if of_input else module.register_forward_hook
    with torch.no_grad():
        for hook, at in ((keep, blank), (put, x)):
            handle = hooking(hook)
            try:
                value = f(at)
            finally:
                handle.remove()
        difference = float(f(x) - value)
    tool = LayerIntegratedGradients(f, module)
    while True:
        found: Any = tool.attribute(
            x, baselines=blank, n_steps=steps, internal_batch_size=64, attribute_to_layer_input=of_input
        )
        found = _first(found).detach()
        gap = abs(float(found.double().sum()) - difference) / max(abs(difference), SMALL)
        if gap <= COMPLETE or 2 * steps > MOST_STEPS:
            return found, gap, steps
        steps *= 2


def _first(whole: Any) -> Tensor:
    return whole[0] if isinstance(whole, tuple) else whole


def top(values: Tensor, share: float) -> set[int]:
    """The `share` of entries with the largest absolute value, at least one (ties by position)."""
    order = values.abs().reshape(-1).argsort(descending=True, stable=True)
    return set(order[: max(1, round(share * len(order)))].tolist())


def jaccard(a: set[int], b: set[int]) -> float:
    """|A ∩ B| / |A ∪ B|; of two random sets of a share s of the whole it is about s / (2 − s)."""
    return len(a & b) / len(a | b)


@register_view("neurons")
class Neurons(View):
    """Attribution of a fixed answer to each layer and to the hidden units of its MLP; one row a model, layer, measure.

    Of the states after a layer: `question`, `template`, `answer` (nats), the attribution at these tokens. Integrated
    gradients sum to log p(answer | question) − log p(answer | pad tokens) at every layer; where the sum lies says how
    far it has moved.
    Of the MLP's hidden units: `mlp` (nats), their sum over units and tokens; `neuron`, that of each of the `shown`
    strongest units of the model (label: its number); `overlap_original` and `overlap_oracle`, the Jaccard overlap of
    the strongest `share` of units with the original's and the oracle's, by layer and, at place −1, of all layers. Two
    random choices overlap by share / (2 − share); "random" is the control of the same size.
    `completeness` (label "states" or "mlp") is the gap of integrated gradients as a share of what they must sum to.
    """

    card = ViewCard(
        "Layers and neurons",
        "captum; Sundararajan et al. 2017, arXiv 1703.01365; Dai et al. 2022 (knowledge neurons), arXiv 2104.08696",
        "the original's neurons still in charge of the answer: it was covered, not removed",
    )

    method: Literal["integrated_gradients", "gradient_x_activation"] = "integrated_gradients"
    prompt: str | None = None  # by default the first forget questions
    target: str | None = None  # by default their answers
    limit: int = Field(1, ge=1)  # forget questions looked at
    share: float = Field(0.05, gt=0, lt=1)  # of the hidden units that count as the strongest
    shown: int = Field(10, ge=0)  # strongest units with a row of their own
    steps: int = Field(16, ge=2)  # of integrated gradients, at first

    def rows(self, problem: Any, models: Mapping[str, Any], seed: int) -> pd.DataFrame:
        rows: list[dict[str, Any]] = []

        def add(who: str, item: str, place: int, measure: str, value: float, label: str = "") -> None:
            label = label or (f"layer {place + 1}" if place >= 0 else "")
            rows.append(
                {"who": who, "item": item, "place": place, "label": label, "measure": measure, "value": float(value)}
            )

        for prompt, target in self._asked(problem):
            units: dict[str, Tensor] = {}  # who → (layers, units)
            for who, model in models.items():
                asked = question_of(problem, model, prompt, target)
                units[who] = self._read(model, asked, lambda *row, w=who, p=prompt: add(w, p, *row))
                for k in units[who].abs().reshape(-1).argsort(descending=True, stable=True)[: self.shown].tolist():
                    layer, unit = divmod(k, units[who].shape[1])
                    add(who, prompt, layer, "neuron", float(units[who][layer, unit]), str(unit))
            for against in ("original", "oracle"):
                for who, mine in units.items():
                    if against not in units or mine.shape != units[against].shape:
                        continue
                    for place, (a, b) in enumerate(zip(mine, units[against], strict=True)):
                        add(who, prompt, place, f"overlap_{against}", jaccard(top(a, self.share), top(b, self.share)))
                    whole = jaccard(top(mine, self.share), top(units[against], self.share))
                    add(who, prompt, -1, f"overlap_{against}", whole)
        return pd.DataFrame(rows)

    def _asked(self, problem: Any) -> list[tuple[str, str]]:
        records = problem.direct("forget")
        if self.prompt is None:
            return [(qa.question, self.target or qa.answer) for qa in records[: self.limit]]
        answer = self.target or next((qa.answer for qa in records if qa.question == self.prompt), None)
        if answer is None:
            raise UnlearnkitError("a prompt of your own needs a target: the answer whose probability is explained.")
        return [(self.prompt, answer)]

    def _read(self, model: Any, asked: Question, add: Callable[..., None]) -> Tensor:
        """Files the rows of one model and question; returns the attribution of its hidden units, (layers, units)."""
        f, (x, blank) = of_embeddings(model, asked), embedded(model, asked)
        first, end = len(asked.before), len(asked.before) + len(asked.question)
        answer = x.shape[1] - len(asked.answer)
        layers = list(decoder_layers(model))
        states = self._explained(f, layers, x, blank, False)
        hidden = self._explained(f, [mlp_output(layer) for layer in layers], x, blank, True)
        for place, (state, units) in enumerate(zip(states, hidden, strict=True)):
            at = state[0][0].sum(1)  # (tokens,)
            add(place, "question", at[first:end].sum())
            add(place, "answer", at[answer:].sum())
            add(place, "template", at[:first].sum() + at[end:answer].sum())
            add(place, "mlp", units[0].sum())
            for label, (_, gap) in (("states", state), ("mlp", units)):
                if gap is not None:
                    add(place, "completeness", gap, label)
        return torch.stack([units[0].sum(0) for units, _ in hidden])

    def _explained(
        self, f: Callable[[Tensor], Tensor], modules: list[nn.Module], x: Tensor, blank: Tensor, of_input: bool
    ) -> list[tuple[Tensor, float | None]]:
        """Of each module: its activations' attribution (1, tokens, units) and, where one is promised, the gap."""
        if self.method == "integrated_gradients":
            return [layer_gradients(f, module, x, blank, of_input, self.steps)[:2] for module in modules]
        product: Any = LayerGradientXActivation(f, modules).attribute(x, attribute_to_layer_input=of_input)
        return [(_first(found).detach(), None) for found in product]
