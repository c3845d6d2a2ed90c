"""The one forward pass behind every teacher-forced number, with logits only at answer tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnkit.text.batches import IGNORE, Batch, stack


def widen(x: Tensor) -> Tensor:
    """At least float32: no loss is computed in half precision."""
    return x if x.dtype == torch.float64 else x.float()


@dataclass
class AnswerTokens:
    """Everything a loss or metric needs about the answer tokens of one batch."""

    logits: Tensor  # (answer tokens, vocabulary)
    labels: Tensor  # (answer tokens,)
    sequence: Tensor  # (answer tokens,) index of the sequence in the batch
    features: Tensor  # (answer tokens, width): what the output embedding was given
    rows: Tensor  # (sequences,)
    hidden: Tensor | None = None  # (answer tokens, width) of the layer asked for, at the answer tokens themselves

    @cached_property
    def token_nll(self) -> Tensor:
        """−log p of each answer token: (answer tokens,)."""
        return F.cross_entropy(widen(self.logits), self.labels, reduction="none")

    def per_sequence(self, values: Tensor) -> Tensor:
        """Sum of a per-token quantity within each sequence: (answer tokens,) → (sequences,)."""
        return values.new_zeros(len(self.rows)).index_add(0, self.sequence, values)

    @cached_property
    def lengths(self) -> Tensor:
        """|y|: answer tokens of each sequence, (sequences,)."""
        return self.per_sequence(torch.ones_like(self.sequence, dtype=torch.float32))

    @cached_property
    def nll(self) -> Tensor:
        """L: summed NLL of each answer, (sequences,)."""
        return self.per_sequence(self.token_nll)

    @property
    def loss(self) -> Tensor:
        """ℓ: token-mean cross-entropy over the batch, a scalar."""
        return self.token_nll.mean()


@contextmanager
def answers_only(head: nn.Module, keep: Tensor, seen: list[Tensor]) -> Iterator[None]:
    """While open, the output embedding is given only the hidden states that predict an answer token."""

    def select(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        features = args[0][keep]  # (batch, tokens, width) → (answer tokens, width)
        seen.append(features)
        return (features, *args[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def answer_tokens(model: nn.Module, *batches: Batch, layer: int | None = None) -> list[AnswerTokens]:
    """One forward pass for all `batches` together (on a CPU: one each), with logits only at answer tokens.

    Args:
        layer: also return the hidden states after this many decoder layers (0 = the embeddings).
    """
    if len(batches) > 1 and batches[0].ids.device.type == "cpu" and not hasattr(model, "module"):
        # Arithmetic decides on a CPU, and a common width would add padding to it; a GPU prefers one launch for all.
        return [answer_tokens(model, b, layer=layer)[0] for b in batches]
    batch = stack(batches) if len(batches) > 1 else batches[0]
    answer = batch.labels != IGNORE  # (batch, tokens)
    keep = F.pad(answer[:, 1:], (0, 1))  # position t predicts token t + 1
    labels = batch.labels[answer]
    inner: Any = getattr(model, "module", model)
    features: list[Tensor] = []
    with answers_only(inner.get_output_embeddings(), keep, features):
        out = model(input_ids=batch.ids, use_cache=False, output_hidden_states=layer is not None)
    logits = out.logits.reshape(-1, out.logits.shape[-1])
    sequence = answer.nonzero()[:, 0]
    hidden = out.hidden_states[layer][answer] if layer is not None else None

    parts, first = [], 0
    for b in batches:
        mine = (sequence >= first) & (sequence < first + len(b)) if len(batches) > 1 else slice(None)
        parts.append(
            AnswerTokens(
                logits[mine],
                labels[mine],
                sequence[mine] - first,
                features[0][mine],
                b.rows,
                None if hidden is None else hidden[mine],
            )
        )
        first += len(b)
    return parts
