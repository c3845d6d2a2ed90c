"""Notebook 07's exercises: typical mistakes are named; solutions agree with the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solved import solved

import unlearnkit as uk
from unlearnkit import tradeoff

SOLVED = solved("07")


def summed(f: Any, r: Any) -> Any:
    return f + r


def ascent(utility: Callable[[float], float], share: float, looks: int) -> float:
    """The first a that lost too much."""
    low, high = 0.0, 1.0
    for _ in range(looks):
        middle = (low + high) / 2
        low, high = (middle, high) if utility(middle) >= share else (low, middle)
    return high


WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("07.1", lambda f, r: f + r - (f @ r) / (f @ f) * f, "here retain comes first"),
    ("07.1", lambda f, r: r + f - (f @ r) / (r @ r) * r, "without conflict"),
    ("07.1", lambda f, r: f - min(0.0, float(f @ r)) / float(r @ r) * r, "the retain gradient itself is missing"),
    ("07.1", summed, "it is [1.0, 2.0]"),
    ("07.1", lambda f, r: 1.0, "a tensor of the shape"),
    (
        "07.2",
        lambda f, r: float(abs((f @ f) * (r @ r) - (f @ r) ** 2) / (f - r).square().sum()) ** 0.5,
        "between 0 and 1",
    ),
    ("07.2", lambda f, r: float((f + r).norm()) / 2, "has the norm 0.000"),
    ("07.3", lambda points: sum(max(f, 0) * max(u, 0) for f, u in points), "each part of the plane counts once"),
    ("07.3", lambda points: 1.0, "the area is 0.4000"),
    ("07.4", lambda runs, g: sum(p >= g for r in runs for p in r) / 6, "of the runs, not"),
    (
        "07.4",
        lambda runs, g: sum(f >= g[0] and u >= g[1] for r in runs for f, u in r) / sum(map(len, runs)),
        "runs are counted, not points",
    ),
    (
        "07.4",
        lambda runs, g: sum(any(f >= g[0] for f, _ in r) and any(u >= g[1] for _, u in r) for r in runs) / len(runs),
        "one and the same point",
    ),
    ("07.5", ascent, "return the last a that kept the share"),
    ("07.5", lambda u, s, n: 0.0 if u(1.0) >= s else SOLVED["07.5"](u, s, n), "a = 1"),
    ("07.5", lambda u, s, n: 0.123, "it is 0.50000"),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_a_mistake_is_named(number: str, answer: Callable[..., Any], hint: str, capsys: Any) -> None:
    assert not uk.check(number, answer)
    assert hint in capsys.readouterr().out


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-0.5, 1.2)), min_size=1, max_size=20))
def test_the_area_of_the_solution_is_the_hypervolume(points: list[tuple[float, float]]) -> None:
    assert SOLVED["07.3"](points) == pytest.approx(tradeoff.hypervolume(points), abs=1e-12)
