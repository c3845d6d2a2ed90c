"""Claims and metrics are judged with intervals that no order of the evidence and no lopsided side makes narrower."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unlearnkit as uk
from unlearnkit.claims import COLUMNS, Evidence, Ledger, judge
from unlearnkit.claims.effects import Estimate, pooled, total
from unlearnkit.claims.ledger import Effect, Rows
from unlearnkit.metaevaluation.statistics import no_error_bound

TERM = {"experiment": "e", "measure": "m"}


def scores(*rows: tuple[str, float, float, float, int]) -> pd.DataFrame:
    """Rows of one method: who, value, low, high, n."""
    table = [("e", "npo", who, math.nan, "m", value, low, high, n, 1) for who, value, low, high, n in rows]
    return pd.DataFrame(table, columns=list(COLUMNS))


def test_what_is_subtracted_turns_its_interval_around() -> None:
    effect = Effect(plus=[Rows(**TERM)], minus=[Rows(**TERM, who="original")], margin=0.0, unit="share")
    one = total(effect, scores(("unlearned", 0.8, 0.8, 0.8, 40), ("original", 0.3, 0.29, 0.5, 40)), "npo")
    assert (one.value, one.low, one.high) == pytest.approx((0.5, 0.3, 0.51))
    turned = total(effect, scores(("unlearned", 0.3, 0.29, 0.5, 40), ("original", 0.8, 0.8, 0.8, 40)), "npo")
    assert (turned.value, turned.low, turned.high) == pytest.approx((-0.5, -0.51, -0.3))


def ledger() -> Ledger:
    claim: dict[str, Any] = {"id": "it-holds", "branch": "text", "kind": "efficacy", "statement": "It holds.",
                             "source": "somebody", "notebook": "03_x",
                             "effect": {"plus": [TERM], "margin": 0.2, "unit": "share"}}  # fmt: skip
    return Ledger(fixed="2026-01-01", profiles=["quick"], claims=[claim])


def evidence(run: str, started: str, value: float, **values: Any) -> Evidence:
    table = scores(("unlearned", value, value - 0.1, value + 0.1, 40))
    return Evidence("03_x", {"profile": "quick", "seed": 0, **values}, table, run, started)


@pytest.mark.parametrize("backwards", [False, True])
def test_of_experiments_with_equal_seeds_the_newest_decides(backwards: bool) -> None:
    found = [evidence("old", "2026-01-01", 0.9, steps=20), evidence("new", "2026-01-02", 0.0, steps=40)]
    (verdict,) = judge(ledger(), found[::-1] if backwards else found)
    assert (verdict.runs, verdict.verdict, verdict.seeds) == (("new",), "contradicted", 1)


def test_repeats_ask_the_same_questions_and_no_more_of_them() -> None:
    assert pooled([Estimate(0.5, 0.4, 0.6, n, 1) for n in (40, 40)]).n == 40
    assert pooled([Estimate(0.5, 0.4, 0.6, n, 1) for n in (40, 25)]).n == 25
    repeats = [evidence("a", "2026-01-01", 0.9, seed=0), evidence("b", "2026-01-02", 0.9, seed=1)]
    (verdict,) = judge(ledger(), repeats)
    assert (verdict.n, verdict.seeds, verdict.runs) == (40, 2, ("a", "b"))


SIZES = st.integers(1, 12)


@settings(max_examples=30)
@given(st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=3))
def test_the_bound_of_no_error_does_not_ask_which_side_is_the_larger(sides: list[tuple[int, int]]) -> None:
    assert no_error_bound(sides) == no_error_bound([(n, m) for m, n in sides])


def test_the_bound_of_no_error_of_lopsided_sides_by_hand() -> None:
    """Of the two roles the one that says less: m against n are in order with the probability Γ(x+1)·m!/Γ(x+m+1)."""
    auc = no_error_bound([(3, 8)])
    assert auc == no_error_bound([(8, 3)])

    def in_order(m: int, n: int) -> float:
        x = n * (1 - auc) / auc
        return math.factorial(m) / math.prod(x + k for k in range(1, m + 1))

    assert max(in_order(3, 8), in_order(8, 3)) == pytest.approx(0.025, rel=1e-6)


def test_trained_models_of_one_name_in_two_cases_are_two() -> None:
    rows = [
        {"metric": "x", "case": case, "truth": truth, "value": value, "model": f"{case} {truth}", "cluster": "m1"}
        for case in ("a", "b")
        for truth, value in (("knows", 1.0), ("ignorant", 0.0))
    ]
    attacked = [
        {**row, "attack": "relearn", "before": 1.0, "value": after}
        for row, after in zip([rows[1], rows[3]], (1.0, 3.0), strict=True)
    ]
    found = uk.meta_evaluate(pool=pd.DataFrame(rows + attacked)).loc["x"]
    assert found["relearn"] == pytest.approx(0.75) and found["clusters"] == 2
    assert np.array([found["relearn_low"], found["relearn_high"]]) == pytest.approx([0.5, 1.0])
