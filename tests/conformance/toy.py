"""A model whose logits are a known function of the position and of the token there, and its losses in plain Python.

Nothing here calls the package: sequences, softmax and losses are written out over lists of floats, so that a loss, its
mask or its one-token shift can only agree with these by being right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor, nn

VOCABULARY, POSITIONS = 4, 7
END = 3  # closes every answer, and is the padding as well
Table = list[list[list[float]]]  # position, token → hidden state, as wide as the vocabulary
Sequences = list[tuple[list[int], int]]  # token ids, position of the first answer token

FORGET: Sequences = [([0, 1, 2, 3], 2), ([1, 0, 2, 2, 1, 3], 3)]  # answers of two and of three tokens
RETAIN: Sequences = [([2, 0, 1, 3], 2), ([1, 1, 0, 3], 2)]
REFUSAL: Sequences = [([0, 1, 0, 0, 3], 2), ([1, 0, 2, 1, 3], 3)]  # the questions of FORGET, other answers
VIEWS = {"forget": FORGET, "retain": RETAIN, "refusal": REFUSAL, "preferred": REFUSAL}


class Toy(nn.Module):
    """logits at position t = W · table[t, id at t], in float64; hidden_states[1] is the table's row itself."""

    config = SimpleNamespace(max_position_embeddings=POSITIONS, num_hidden_layers=2)

    def __init__(self, table: Tensor, head: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table.double())  # (positions, vocabulary, width)
        self.head = nn.Linear(VOCABULARY, VOCABULARY, bias=False, dtype=torch.float64)
        self.head.weight = nn.Parameter(head.double())

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: Tensor, use_cache: bool = False, output_hidden_states: bool = False) -> object:
        hidden = self.table[torch.arange(input_ids.shape[1]), input_ids]  # (batch, tokens, width)
        return SimpleNamespace(logits=self.head(hidden), hidden_states=(torch.zeros_like(hidden), hidden, hidden))


def original() -> Toy:
    """θ₀: a table of no pattern, the output embedding the identity."""
    k = torch.arange(POSITIONS * VOCABULARY * VOCABULARY, dtype=torch.float64)
    return Toy(torch.sin(1.7 * k + 0.3).view(POSITIONS, VOCABULARY, VOCABULARY), torch.eye(VOCABULARY))


def move(model: Toy) -> None:
    """θ₀ → θ in place, the output embedding included (so that a reference that shares it would be wrong)."""
    with torch.no_grad():
        model.table += 0.4 * torch.cos(2.1 * torch.arange(model.table.numel()).double()).view_as(model.table)
        model.head.weight += 0.1 * torch.sin(torch.arange(16).double()).view(4, 4)


class Plain:
    """One parameter setting as lists of floats."""

    def __init__(self, table: Table, head: list[list[float]]) -> None:
        self.table, self.head = table, head

    @classmethod
    def of(cls, model: Toy) -> Plain:
        return cls(model.table.detach().tolist(), model.head.weight.detach().tolist())

    def logits(self, position: int, token: int) -> list[float]:
        state = self.table[position][token]
        return [sum(w * h for w, h in zip(row, state, strict=True)) for row in self.head]

    def answers(self, sequences: Sequences) -> list[list[tuple[list[float], int]]]:
        """Per sequence, per answer token: the logits that predict it (one position before it), and its label."""
        return [[(self.logits(t - 1, ids[t - 1]), ids[t]) for t in range(start, len(ids))] for ids, start in sequences]

    def tokens(self, sequences: Sequences) -> list[tuple[list[float], int]]:
        return [token for answer in self.answers(sequences) for token in answer]

    def hidden(self, sequences: Sequences) -> list[list[float]]:
        """The states at the answer tokens themselves."""
        return [self.table[t][ids[t]] for ids, start in sequences for t in range(start, len(ids))]


def log_softmax(z: Sequence[float]) -> list[float]:
    top = max(z)
    total = math.log(sum(math.exp(v - top) for v in z)) + top
    return [v - total for v in z]


def softmax(z: Sequence[float]) -> list[float]:
    return [math.exp(v) for v in log_softmax(z)]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def ce(z: Sequence[float], label: int) -> float:
    return -log_softmax(z)[label]


def soft_ce(target: Sequence[float], z: Sequence[float]) -> float:
    return -sum(t * lp for t, lp in zip(target, log_softmax(z), strict=True))


def token_mean(now: Plain, sequences: Sequences) -> float:
    """ℓ: mean cross-entropy over all answer tokens of a batch."""
    return mean([ce(z, y) for z, y in now.tokens(sequences)])


def summed(now: Plain, sequences: Sequences) -> list[float]:
    """L: summed NLL of each answer."""
    return [sum(ce(z, y) for z, y in answer) for answer in now.answers(sequences)]


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


def gradient(loss: Callable[[Plain], float], at: Plain, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Central finite differences of a plain loss: with respect to the table and to the output embedding."""

    def difference(row: list[float], k: int) -> float:
        kept = row[k]
        row[k] = kept + eps
        above = loss(at)
        row[k] = kept - eps
        below = loss(at)
        row[k] = kept
        return (above - below) / (2 * eps)

    table = [[[difference(row, k) for k in range(VOCABULARY)] for row in rows] for rows in at.table]
    head = [[difference(row, k) for k in range(VOCABULARY)] for row in at.head]
    return torch.tensor(table, dtype=torch.float64), torch.tensor(head, dtype=torch.float64)
