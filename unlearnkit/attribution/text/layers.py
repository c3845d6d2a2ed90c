"""Layers: what each holds of the answer (logit lens, patching, unlearning depth) and how far it has drifted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.attacks.text.asking import forgotten
from unlearnkit.attacks.text.inside import at_value, final_norm, layers
from unlearnkit.attribution.base import View, ViewCard, register_view
from unlearnkit.errors import UnlearnkitError
from unlearnkit.text import IGNORE, Batch, answer_tokens, collate, context_length, encode, pad_id

TELLING = 0.05  # nats a token: a layer counts when the oracle's states cost the answer at least this much


def decoder_layers(model: Any) -> nn.ModuleList:
    """The decoder layers of a language model, in their order."""
    count = layers(model)
    found = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not found:
        raise UnlearnkitError(f"the decoder layers of {type(model).__name__} can't be found; this view needs them.")
    return found[0]


@torch.no_grad()
def all_states(model: Any, batch: Batch) -> list[Tensor]:
    """Hidden states after every decoder layer, un-normed: a list of (sequences, tokens, width)."""
    kept: dict[nn.Module, Tensor] = {}

    def keep(layer: nn.Module, _: Any, out: Any) -> None:
        kept[layer] = out[0] if isinstance(out, tuple) else out  # the last pass: an instruction may be read before it

    hooks = [layer.register_forward_hook(keep) for layer in decoder_layers(model)]
    try:
        model(input_ids=batch.ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return [kept[layer] for layer in decoder_layers(model)]


@contextmanager
def patched(model: Any, layer: int, states: Tensor, where: Tensor | None = None) -> Iterator[None]:
    """While open, the hidden states after decoder layer `layer` are `states`: (sequences, tokens, width).

    Args:
        where: bool (sequences, tokens), the positions this is done at; default all.
    """

    def instead(_: nn.Module, __: Any, out: Any) -> Any:
        own = out[0] if isinstance(out, tuple) else out
        if own.shape != states.shape:  # an instruction, read before the prompts
            return out
        new = states.to(own) if where is None else torch.where(where[:, :, None], states.to(own), own)
        return (new, *out[1:]) if isinstance(out, tuple) else new

    hook = decoder_layers(model)[layer].register_forward_hook(instead)
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def patching_drops(original: Any, source: Any, batch: Batch) -> Tensor:
    """Drop of the answer's mean log-probability in the original when each layer's states come from `source`.

    Returns:
        (layers, sequences), nats a token.
    """

    def score() -> Tensor:
        (tokens,) = answer_tokens(original, batch)
        return -tokens.nll / tokens.lengths  # (sequences,)

    before, drops = score(), []
    for layer, states in enumerate(all_states(source, batch)):
        with patched(original, layer, states):
            drops.append(before - score())
    return torch.stack(drops)


def unlearning_depth(oracle: np.ndarray, unlearned: np.ndarray) -> float:
    """UDS = Σ_l Δ_l^S1·clip(Δ_l^S2/Δ_l^S1, 0, 1) / Σ_l Δ_l^S1 over the layers with Δ_l^S1 > 0.05.

    0: nothing is gone; 1: as gone as in the oracle; NaN where no layer of the oracle tells.

    Args:
        oracle, unlearned: Δ^S1 and Δ^S2, (layers,): see `patching_drops`.
    """
    tells = oracle > TELLING
    if not tells.any():
        return float("nan")
    first, second = oracle[tells], unlearned[tells]
    return float((first * np.clip(second / first, 0, 1)).sum() / first.sum())


def cka(a: np.ndarray, b: np.ndarray) -> float:
    """Linear CKA of two sets of states, (rows, width) each: 1 the same up to rotation (arXiv 1905.00414, eq. 3)."""
    a, b = a - a.mean(0), b - b.mean(0)
    size = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    return float(np.linalg.norm(a.T @ b) ** 2 / size) if size else float("nan")


def pca_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """|cos| of the first principal directions of two sets of states, (rows, width) each."""
    first = [np.linalg.svd(x - x.mean(0), full_matrices=False)[2][0] for x in (a, b)]
    return float(abs(first[0] @ first[1]))


@register_view("layers")
class Layers(View):
    """One row a model, layer, record and measure.

    `lens` is the log-probability (nats) of the value's first token read off the layer; `drop` (nats a token) what the
    answer loses in the original when this layer's states come from the model; `uds` (at place −1) the unlearning
    depth score; `cka` and `pca` (item "forget") the similarity of the states at answer tokens to the original's.
    """

    card = ViewCard(
        "Layers: lens, patching, depth, drift",
        "nostalgebraist 2020; Meng et al. 2022, arXiv 2202.05262; Kornblith et al. 2019, arXiv 1905.00414",
        "removed: every layer reads as in the oracle; suppressed: the early layers are still the original's",
    )

    limit: int = Field(40, ge=2)  # forget records looked at

    def rows(self, problem: Any, models: Mapping[str, Any], seed: int) -> pd.DataFrame:
        items = [qa for qa in forgotten(problem) if qa.value in qa.answer][: self.limit]
        if not items:
            raise UnlearnkitError("no forget record's answer holds its value; this view has nothing to look at.")
        original = models["original"]
        counts = {who: layers(model) for who, model in models.items()}
        if len(set(counts.values())) > 1:
            raise UnlearnkitError(f"the models have different numbers of layers {counts}; this view compares layers.")
        pairs = [(qa.question, qa.answer) for qa in items]
        coded = encode(problem.tokenizer, problem.template, pairs, context_length(original))
        batch = collate(coded, range(len(items)), pad_id(problem.tokenizer)).to(problem.device)
        _, positions, labels = at_value(problem, original, items)
        rows: list[dict[str, Any]] = []

        def add(who: str, item: str, place: int, measure: str, value: float) -> None:
            label = f"layer {place + 1}" if place >= 0 else ""
            rows.append(
                {"who": who, "item": item, "place": place, "label": label, "measure": measure, "value": float(value)}
            )

        answer = batch.labels != IGNORE
        reference = [s[answer].float().cpu().numpy() for s in all_states(original, batch)]
        drops = {who: patching_drops(original, model, batch).cpu().numpy() for who, model in models.items()}
        for who, model in models.items():
            states = all_states(model, batch)
            norm, head = final_norm(model), model.get_output_embeddings()
            for layer, state in enumerate(states):
                with torch.no_grad():
                    chosen = norm(state[torch.arange(len(items)), positions].to(head.weight.dtype))
                    lens = head(chosen).float().log_softmax(-1).gather(1, labels[:, None])[:, 0]
                for qa, read, drop in zip(items, lens.tolist(), drops[who][layer], strict=True):
                    add(who, qa.id, layer, "lens", read)
                    add(who, qa.id, layer, "drop", drop)
                own = state[answer].float().cpu().numpy()
                add(who, "forget", layer, "cka", cka(own, reference[layer]))
                add(who, "forget", layer, "pca", pca_similarity(own, reference[layer]))
            if "oracle" in models:
                for k, qa in enumerate(items):
                    add(who, qa.id, -1, "uds", unlearning_depth(drops["oracle"][:, k], drops[who][:, k]))
        return pd.DataFrame(rows)
