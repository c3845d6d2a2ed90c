"""Attacks that read the hidden states: logit lens and linear probes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unlearnkit.attacks.base import Attack, AttackCard, Curve, register_attack
from unlearnkit.attacks.text.asking import forgotten, table
from unlearnkit.errors import UnlearnkitError
from unlearnkit.text import Batch, collate, context_length, encode, pad_id
from unlearnkit.worlds.records import QA


def layers(model: Any) -> int:
    """Number of decoder layers; hidden state 0 is the embeddings."""
    config = model.config
    return int(getattr(config, "num_hidden_layers", None) or config.n_layer)


@torch.inference_mode()
def hidden_states(model: Any, batch: Batch, positions: Tensor) -> Tensor:
    """Hidden states at one position a sequence: (layers + 1, sequences, width); the last one is normed already."""
    inner: Any = getattr(model, "base_model", model)
    states = inner(input_ids=batch.ids, output_hidden_states=True, use_cache=False).hidden_states
    rows = torch.arange(len(batch), device=batch.ids.device)
    return torch.stack([h[rows, positions] for h in states]).float()


def final_norm(model: Any) -> Any:
    """The norm in front of the output embedding."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # an adapter around it
    inner = getattr(model, "base_model", model)
    for name in ("norm", "ln_f", "final_layer_norm"):
        if hasattr(inner, name):
            return getattr(inner, name)
    raise UnlearnkitError(f"{type(model).__name__} has no final norm that is known here; the logit lens can't be used.")


def at_value(problem: Any, model: Any, items: Sequence[QA]) -> tuple[Batch, Tensor, Tensor]:
    """(batch, positions that predict the first token of the value, that token)."""
    longest = context_length(model)
    pairs = [(qa.question, qa.answer) for qa in items]
    encoded = encode(problem.tokenizer, problem.template, pairs, longest)
    before = [(qa.question, qa.answer[: qa.answer.index(qa.value)].rstrip() or " ") for qa in items]
    batch = collate(encoded, range(len(items)), pad_id(problem.tokenizer)).to(problem.device)
    positions, labels = [], []
    for whole, (question, start), qa in zip(encoded, before, items, strict=True):
        at = whole.start
        if start.strip():
            (prefix,) = encode(problem.tokenizer, problem.template, [(question, start)], longest)
            same = 0  # tokens shared by the answer and its start (the end token differs)
            for a, b in zip(whole.ids[whole.start :], prefix.ids[prefix.start :], strict=False):
                if a != b:
                    break
                same += 1
            at += same
        if at >= len(whole.ids):
            raise UnlearnkitError(f"the value '{qa.value}' can't be found in the answer '{qa.answer}'.")
        positions.append(at - 1)
        labels.append(whole.ids[at])
    return batch, torch.tensor(positions, device=problem.device), torch.tensor(labels, device=problem.device)


@register_attack("logit_lens")
class LogitLens(Attack):
    """Whether the value's first token is among the top k when a layer's state is read by the output embedding."""

    card = AttackCard(
        "Logit lens", "nostalgebraist 2020; for unlearning Patil et al. 2023, arXiv 2309.17410", "hidden states",
        "inner layers still carry the value that the last one hides",
    )  # fmt: skip
    unit = "layer (0: embeddings)"
    whole = True
    budgets = ()  # every layer
    identity = None

    k: int = 5

    @torch.inference_mode()
    def curve(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Curve:
        items = [qa for qa in forgotten(problem) if qa.value in qa.answer]
        batch, positions, labels = at_value(problem, model, items)
        states = hidden_states(model, batch, positions)
        norm, head = final_norm(model), model.get_output_embeddings()
        for layer in budgets or range(len(states)):
            state = states[int(layer)]
            state = state if layer == len(states) - 1 else norm(state.to(head.weight.dtype))
            logp = head(state.to(head.weight.dtype)).float().log_softmax(-1)  # (items, vocabulary)
            label = logp.gather(1, labels[:, None])
            rank = (logp > label).sum(-1)
            yield float(layer), table(items, accuracy=(rank < self.k).float().tolist(), nll=(-label[:, 0]).tolist())


@register_attack("probe")
class Probe(Attack):
    """A linear probe per layer and kind of fact, fitted on retained entities, read on the forgotten ones.

    The state is that of the token before the value, with the true answer given up to there. `control` is the same
    probe fitted on shuffled values.
    """

    card = AttackCard(
        "Linear probe", "Alain and Bengio 2016, arXiv 1610.01644; control: Hewitt and Liang 2019, arXiv 1909.03368",
        "hidden states", "the value can be read off a layer that no longer leads to it",
    )  # fmt: skip
    unit = "layer (0: embeddings)"
    whole = True
    budgets = ()
    identity = None
    higher_is_found = {"accuracy": True, "control": True}

    ridge: float = 1.0  # regularisation, in units of the mean squared feature

    def curve(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Curve:
        asked = forgotten(problem)
        shown = [qa for qa in problem.direct("retain") if qa.value and qa.value in qa.answer]
        known = {(qa.kind, qa.value) for qa in shown}
        asked = [qa for qa in asked if (qa.kind, qa.value) in known and qa.kind and qa.value in qa.answer]
        if len(asked) < 10:
            raise UnlearnkitError(
                f"{len(asked)} forget facts have a value that some retained fact shares; a probe needs 10."
            )
        x_train, x_test = (self._states(problem, model, part) for part in (shown, asked))  # (layers + 1, rows, width)
        draw = np.random.default_rng(seed)
        for layer in budgets or range(len(x_train)):
            hit, control = np.full(len(asked), np.nan), np.full(len(asked), np.nan)
            for kind in sorted({qa.kind for qa in asked}):
                rows = [i for i, qa in enumerate(shown) if qa.kind == kind]
                cols = [i for i, qa in enumerate(asked) if qa.kind == kind]
                values = [shown[i].value for i in rows]
                truth = np.array([asked[i].value for i in cols])
                a, b = x_train[int(layer)][rows], x_test[int(layer)][cols]
                hit[cols] = self._read(a, values, b) == truth
                control[cols] = self._read(a, list(draw.permutation(values)), b) == truth
            yield float(layer), table(asked, accuracy=hit.tolist(), control=control.tolist())

    def _read(self, x: np.ndarray, values: Sequence[str], x_new: np.ndarray) -> np.ndarray:
        """Ridge regression onto one-hot values, the highest score wins: (rows, width) → predicted values."""
        classes, index = np.unique(values, return_inverse=True)
        mean = x.mean(0)
        a, target = x - mean, np.eye(len(classes))[index]
        gram = a.T @ a + self.ridge * (np.mean(a**2) + 1e-12) * len(a) * np.eye(a.shape[1]) / a.shape[1]
        weights = np.linalg.solve(gram, a.T @ (target - target.mean(0)))
        return classes[((x_new - mean) @ weights + target.mean(0)).argmax(1)]

    def _states(self, problem: Any, model: Any, items: Sequence[QA]) -> np.ndarray:
        parts = []
        for begin in range(0, len(items), 128):
            batch, positions, _ = at_value(problem, model, items[begin : begin + 128])
            parts.append(hidden_states(model, batch, positions).cpu().numpy().astype(float))
        return np.concatenate(parts, axis=1)
