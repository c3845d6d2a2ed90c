"""Notebook 01's exercises: typical mistakes are named."""

from __future__ import annotations

from collections.abc import Callable
from math import comb
from typing import Any

import pytest
from scipy.stats import ks_2samp
from solved import solved

import unlearnkit as uk
from unlearnkit.errors import UnlearnkitError
from unlearnkit.worlds import authors, split

SOLVED = solved("01")


WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("01.1", lambda forget, records: {r.id for r in records if r.sources}, "follows from nothing that is forgotten"),
    ("01.1", lambda forget, records: {r.id for r in records if r in forget}, "part of the request"),
    ("01.1", lambda forget, records: set(), "one of its sources is forgotten"),
    (
        "01.1",
        lambda forget, records: {r.id for r in records if r.sources and {*r.sources} <= {f.id for f in forget}},
        "a2.mentor_city is missing",
    ),
    ("01.1", lambda forget, records: list(records), "return the ids"),
    ("01.2", lambda alpha: next(n for n in range(1, 99) if 1 / comb(2 * n, n) < alpha), "C(2n, n)"),
    ("01.2", lambda alpha: next(n for n in range(1, 99) if 2 / comb(2 * n, n) < alpha) - 1, "it takes 4 questions"),
    ("01.2", lambda alpha: 4.0, "a whole number"),
    ("01.3", lambda o, u, r, f: "under" if u > r else "over", "gap, 0.02 of 0.9"),
    ("01.3", lambda o, u, r, f: "at the oracle" if abs(u - r) <= f else "under" if u > r else "over", "higher"),
    ("01.4", lambda said, known, again, oracle, floor: "removed" if said <= 0.1 else "present", "'suppressed'"),
    (
        "01.4",
        lambda said, known, again, oracle, floor: (
            "present"
            if said > oracle[0]
            else "suppressed"
            if known > oracle[1] + floor or again > oracle[2] + floor
            else "removed"
        ),
        "said 8%",
    ),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_a_mistake_is_named(number: str, answer: Callable[..., Any], hint: str, capsys: Any) -> None:
    assert not uk.check(number, answer)
    assert hint in capsys.readouterr().out


def test_an_answer_that_stops_and_an_unknown_exercise(capsys: Any) -> None:
    assert not uk.check("01.2", lambda alpha: 1 / 0)
    assert "it stops with ZeroDivisionError" in capsys.readouterr().out
    with pytest.raises(UnlearnkitError, match="exercise '01.9' is unknown; known: .*01.1, 01.2"):
        uk.check("01.9", lambda: None)


def test_the_scope_of_a_request_is_that_of_the_world() -> None:
    world = authors()
    parts = split(world, "forget10")
    beyond = {qa.id for name in ("forget_derived", "forget_translated") for qa in parts[name]}
    assert SOLVED["01.1"](parts["forget"], world.items) == beyond and len(beyond) > 40


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.01, 1e-4])
def test_fewer_questions_can_not_reach_the_level_and_so_many_can(alpha: float) -> None:
    n = SOLVED["01.2"](alpha)
    assert ks_2samp(range(n), range(n, 2 * n)).pvalue < alpha <= ks_2samp(range(n - 1), range(n - 1, 2 * n - 2)).pvalue
