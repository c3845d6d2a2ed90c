"""Notebook 03's exercises: typical mistakes are named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from solved import solved

import unlearnkit as uk

SOLVED = solved("03")


def whole_scale(weight: Any, bits: int) -> Any:
    scale = weight.abs().max() / (2 ** (bits - 1) - 1)
    return (weight / scale).round() * scale


def unguarded(weight: Any, bits: int) -> Any:
    scale = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (weight / scale).round() * scale


WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("03.1", lambda after, oracle, original, floor: after / original, "0.5 of the 0.9"),
    ("03.1", lambda a, o, b, f: max(0.0, (a - o) / (b - o)), "negative"),
    ("03.1", lambda a, o, b, f: (a - o) / (b - o) if b != o else math.nan, "nothing to recover"),
    ("03.1", lambda a, o, b, f: math.nan if b - o <= f else (a - o) / (b - o), "on a loss"),
    ("03.2", whole_scale, "scale of its own"),
    ("03.2", lambda weight, bits: unguarded(weight, bits + 1), "steps from 0"),
    ("03.2", unguarded, "mind the division"),
    ("03.2", lambda weight, bits: 0.0, "a matrix"),
    ("03.3", lambda n, c, k: 1 - (1 - c / n) ** k, "with replacement"),
    ("03.3", lambda n, c, k: c / n, "hold a hit with probability"),
    ("03.4", lambda a, b: (SOLVED["03.4"](a, b) + 1) / 2, "ordered alike"),
    ("03.4", lambda a, b: -SOLVED["03.4"](a, b), "not"),
    ("03.5", lambda low, high, margin: "supported" if low <= 0 <= high else "contradicted", "and much else"),
    (
        "03.5",
        lambda low, high, m: "supported" if high <= m else "contradicted" if low > m else "undecided",
        "other way",
    ),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_a_mistake_is_named(number: str, answer: Callable[..., Any], hint: str, capsys: Any) -> None:
    assert not uk.check(number, answer)
    said = capsys.readouterr().out
    assert hint in said and "it stops with" not in said
