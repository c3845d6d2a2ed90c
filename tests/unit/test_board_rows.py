"""What stands in the rows of a benchmark and what a board makes of them: costs, shares of the way, last steps."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

import unlearnkit as uk
from unlearnkit import benchmark
from unlearnkit.benchmark.board import signed
from unlearnkit.benchmark.measure import _attacked, benchmark_rows
from unlearnkit.unlearning import Unlearned

F, U = benchmark.AXES["text"]


def test_the_seconds_of_a_method_include_its_preparation(small_problem: Any) -> None:
    def seconds(**cost: float) -> float:
        one = Unlearned(small_problem.model, "mine", {}, 0, pd.DataFrame(), {"steps": 1.0, **cost})
        rows = benchmark_rows(
            small_problem, {"mine": one}, attacks=(), metrics=["forget_answer_nll"], limit=2, oracles=False
        )
        return float(rows.set_index("key").loc["seconds", "value"])

    assert seconds(seconds=2.0, prepare_seconds=3.0) == 5
    assert seconds(seconds=2.0) == 2


def test_floor_and_gap_of_an_attack_are_shares_of_the_way() -> None:
    card = {"attack": "relearn", "measure": "nll", "why": "", "after": 0.5, "before": 0.0, "original": 2.0,
            "oracle": 0.0, "recovered": 0.25, "floor": 0.5, "budget": 20, "n": 40}  # fmt: skip
    found = _attacked(card)
    assert (found["floor"], found["gap"], found["key"]) == (0.25, 0.25, "relearn_nll")
    assert _attacked({**card, "original": -2.0})["floor"] == 0.25  # a distance has no sign


def line(key: str, **more: Any) -> dict[str, Any]:
    about = {"branch": "text", "world": "w", "forget": "f", "method": "a", "settings": "{}", "seed": 0, "why": ""}
    return {**about, "key": key, "original": 1.0, "oracle": 0.0, "gap": 0.2, "n": 40, **more}


def test_what_only_one_attack_measured_is_not_the_worse_of_two() -> None:
    both = [
        line(F, value=0.2),
        line(U, value=1.0, relative=1.0),
        line("relearn_accuracy", value=0.2),
        line("quantize_accuracy", value=0.1, gap=0.1),
    ]
    whole = uk.leaderboard(pd.DataFrame(both)).loc["a"]
    assert whole[["recovered_relearn", "recovered_quantize", "recovered"]].tolist() == pytest.approx([0.2, 0.1, 0.2])
    half = uk.leaderboard(pd.DataFrame(both[:3])).loc["a"]
    assert half["recovered_relearn"] == pytest.approx(0.2)
    assert math.isnan(half["recovered_quantize"]) and math.isnan(half["recovered"])


def test_a_row_without_a_gap_is_nowhere_on_the_way() -> None:
    rows = pd.DataFrame(
        {"value": [0.5, 0.5, -0.5], "original": 1.0, "oracle": 0.0, "gap": [0.5, math.nan, 0.5]}, index=[3, 4, 5]
    )
    found = signed(rows)
    assert found[[3, 5]].tolist() == [0.5, -0.5] and math.isnan(found[4])


def test_of_the_models_on_the_way_of_a_run_the_last_step_counts() -> None:
    scores = pd.DataFrame(
        [
            {"key": key, "method": method, "split": "forget", "step": step, "unlearned": step / 100, "seed": 0}
            for method in ("npo", "undial")
            for step in (20, 10)
            for key in ("forget_answer_nll", "forget_accuracy")
        ]
    )
    record: Any = SimpleNamespace(
        notebook="02_x", folder=Path("aaaa"), scores=scores, config={"values": {"world": "w", "forget": "f", "seed": 0}}
    )
    rows = benchmark.rows_of_runs([record])
    assert len(rows) == 4 and not rows.duplicated(["method", "key"]).any()
    assert rows["value"].tolist() == [0.2] * 4
