"""Notebook 08's exercises: typical mistakes are named; solutions agree with the package."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau
from solved import solved

import unlearnkit as uk
from unlearnkit.metaevaluation import separation

SOLVED = solved("08")


def strict(knows: Any, ignorant: Any) -> float:
    return sum(a > b for a in knows for b in ignorant) / (len(knows) * len(ignorant))


def loose(knows: Any, ignorant: Any) -> float:
    return sum(a >= b for a in knows for b in ignorant) / (len(knows) * len(ignorant))


def flips(first: Any, second: Any, ties: bool = False) -> int:
    pairs = [(i, j) for i in range(len(first)) for j in range(i)]
    moves = [(first[i] - first[j]) * (second[i] - second[j]) for i, j in pairs]
    return sum(m < 0 or (ties and m == 0) for m in moves)


WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("08.1", lambda k, i: separation(i, k), "the wrong way round"),
    ("08.1", strict, "worse than a coin"),
    ("08.1", loose, "would look perfect"),
    ("08.1", lambda k, i: 0.7, "it is 1.000, not 0.7"),
    ("08.2", lambda a, b: abs(a - b) / (abs(a) + abs(b)), "robustness is 1 minus it"),
    ("08.2", lambda a, b: 1 - abs(a - b) / (a + b) if a + b else 1.0, "take absolute values below the line"),
    ("08.2", lambda a, b: 1 - abs(a - b) / (abs(a) + abs(b)) if a or b else 1.0, "two zeros say nothing"),
    ("08.2", lambda a, b: min(a, b) / max(a, b), "it is 0.500, not"),
    ("08.3", lambda a, b: 2 * flips(a, b), "each pair counts once"),
    ("08.3", lambda a, b: sum(x != y for x, y in zip(a, b, strict=True)), "methods whose place changed"),
    ("08.3", lambda a, b: flips(a, b, ties=True), "has no order there"),
    ("08.3", lambda a, b: 7, "it is 0, not 7"),
    ("08.4", lambda v, original, o: min(1.0, max(0.0, (v - original) / (o - original))), "ruin gets full marks"),
    ("08.4", lambda v, original, o: 1 - abs(v - o) / abs(original - o), "cut it off at 0"),
    ("08.4", lambda v, original, o: max(0.0, 1 - abs(v - o)), "was expected"),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_a_mistake_is_named(number: str, answer: Callable[..., Any], hint: str, capsys: Any) -> None:
    assert not uk.check(number, answer)
    assert hint in capsys.readouterr().out


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=9, unique=True))
def test_the_flips_of_the_solution_give_kendalls_tau(places: list[tuple[int, int]]) -> None:
    first, second = zip(*places, strict=True)
    pairs = len(places) * (len(places) - 1) / 2
    apart = [sum(x[i] != x[j] for i in range(len(places)) for j in range(i)) for x in (first, second)]
    if not all(apart):
        return
    same = flips(first, [-x for x in second])
    tau = (same - SOLVED["08.3"](first, second)) / math.sqrt(apart[0] * apart[1])
    assert tau == pytest.approx(kendalltau(first, second).statistic)
    assert same <= pairs
