"""Token ids in batches: padding, labels, batches of similar length."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unlearnkit.text.template import Encoded

IGNORE = -100  # label of every token that is not part of an answer


@dataclass
class Batch:
    """Right-padded sequences.

    No attention mask is kept: under causal attention no answer token sees the padding to its right, and a mask
    guessed from ``ids != pad`` would be wrong wherever the pad token is also the end-of-sequence token.
    """

    ids: Tensor  # (sequences, tokens)
    labels: Tensor  # (sequences, tokens), IGNORE outside the answer
    rows: Tensor  # (sequences,) which record of its split each sequence is

    def __len__(self) -> int:
        return self.ids.shape[0]

    def to(self, device: torch.device) -> Batch:
        return Batch(*(t.to(device, non_blocking=True) for t in (self.ids, self.labels, self.rows)))

    @property
    def count(self) -> int:
        """Tokens, padding included: what the cost counts."""
        return self.ids.numel()


def collate(encoded: Sequence[Encoded], rows: Sequence[int], pad: int) -> Batch:
    """The records `rows` of `encoded` as one batch, padded to the longest of them."""
    width = max(len(encoded[i].ids) for i in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORE, dtype=torch.long)
    for k, i in enumerate(rows):
        sequence = torch.tensor(encoded[i].ids)
        ids[k, : len(sequence)] = sequence
        labels[k, encoded[i].start : len(sequence)] = sequence[encoded[i].start :]
    return Batch(ids, labels, torch.tensor(list(rows)))


def stack(batches: Sequence[Batch]) -> Batch:
    """Several batches as one, padded to a common width."""
    width = max(b.ids.shape[1] for b in batches)
    return Batch(
        torch.cat([F.pad(b.ids, (0, width - b.ids.shape[1])) for b in batches]),
        torch.cat([F.pad(b.labels, (0, width - b.labels.shape[1]), value=IGNORE) for b in batches]),
        torch.cat([b.rows for b in batches]),
    )


def by_length(encoded: Sequence[Encoded], batch_size: int) -> list[list[int]]:
    """All rows in batches of similar length, longest first (an out-of-memory error then comes at once)."""
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i].ids))
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def shuffled_batches(encoded: Sequence[Encoded], batch_size: int, order: random.Random) -> list[list[int]]:
    """One epoch in random batches, each of similar length (shuffle, sort within 16 batches, shuffle batches).

    The last, smaller batch is filled up from the start of the epoch, so that every batch has one size.
    """
    rows = list(range(len(encoded)))
    order.shuffle(rows)
    if len(rows) > batch_size:
        rows += rows[: -len(rows) % batch_size]
    batches = []
    for begin in range(0, len(rows), 16 * batch_size):
        chunk = sorted(rows[begin : begin + 16 * batch_size], key=lambda i: len(encoded[i].ids))
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    order.shuffle(batches)
    return batches
