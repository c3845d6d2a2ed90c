"""Floors are the farthest that retrained models lie apart, and intervals hold their value, whichever way is up."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unlearnkit import tradeoff
from unlearnkit.evaluation import score
from unlearnkit.metrics.measure import Measured

N = 20


def measured(level: float) -> Measured:
    """Twenty questions whose NLL lies around a level, every model's by the same pattern."""
    index = pd.MultiIndex.from_product([["forget"], range(N)], names=["split", "id"])
    return Measured(pd.DataFrame({"mean_nll": level + np.linspace(-0.05, 0.05, N)}, index=index))


def row(mine: float, original: float, *oracles: float) -> Any:
    problem = SimpleNamespace(modality="text", measured={})
    reference = measured(original), [measured(level) for level in oracles]
    return score(problem, [measured(mine)], reference, ["forget_answer_nll"], 50).loc["forget_answer_nll"]


def test_a_second_oracle_farther_off_than_the_original_leaves_no_gap() -> None:
    for second in (3.0 + 4.0, 3.0 - 4.0):  # original and oracle are 2 apart at every question, the oracles 4
        found = row(2.0, 1.0, 3.0, second)
        assert found["why"] == "gap not measurable: original and oracle do not differ beyond noise"
        assert found[["gap", "gap_low", "gap_high", "floor"]].isna().all()
    assert row(2.0, 1.0, 3.0, 4.0)["gap"] == pytest.approx(0.5)


def test_the_floor_is_of_the_oracle_farthest_from_the_first() -> None:
    for others in ((3.1, 3.4), (3.4, 3.1), (2.6, 3.1)):
        found = row(2.0, 1.0, 3.0, *others)
        assert found["floor"] == pytest.approx(0.4 / 2.0) and found["why"] == ""


def test_the_noise_of_a_target_is_its_farthest_oracle() -> None:
    points = pd.DataFrame({"method": "oracle", "forgetting": [1.0, 0.95, 0.8], "utility": [0.9, 1.0, 1.2]})
    target = tradeoff.target(points)
    center = 3.1 / 3
    assert (target.forgetting, target.utility) == (1.0, pytest.approx(center))
    assert (target.forgetting_noise, target.utility_noise) == pytest.approx((0.2, 1.2 - center))
    assert target.corner == pytest.approx((0.8, 2 * center - 1.2))


@pytest.mark.parametrize(("beyond", "less"), product((False, True), repeat=2))
@pytest.mark.parametrize(("original", "oracle"), [(0.9, 0.1), (0.1, 0.9)])
def test_a_point_lies_in_its_intervals(beyond: bool, less: bool, original: float, oracle: float) -> None:
    forget = {"original": original, "oracle": oracle, "unlearned": 0.5, "low": 0.4, "high": 0.7,
              "gap": 0.5, "gap_low": 0.375, "gap_high": 0.75, "why": ""}  # fmt: skip
    kept = {"original": 2.0, "unlearned": 1.6, "low": 1.0, "high": 4.0, "relative": 0.8, "why": ""}
    point = tradeoff.point(pd.DataFrame({"f": forget, "u": kept}).T, "f", "u", beyond=beyond, less=less)
    for axis in ("forgetting", "utility"):
        assert point[f"{axis}_low"] < point[axis] < point[f"{axis}_high"]
    ends = (point["utility_low"], point["utility"], point["utility_high"])
    assert ends == pytest.approx((0.5, 1.25, 2.0) if less else (0.5, 0.8, 2.0))
    near = (0.25, 0.5, 0.625) if not beyond or original > oracle else (0.375, 0.5, 0.75)
    assert (point["forgetting_low"], point["forgetting"], point["forgetting_high"]) == pytest.approx(near)
