"""Metrics point the right way: members score higher, and who names the right value has not named a wrong one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from unlearnkit.metrics import measure as measuring
from unlearnkit.metrics.measure import measure, measured_items
from unlearnkit.metrics.table import METRICS, Items

BETTER = {"mia_loss": ("mean_nll", -1), "mia_zlib": ("zlib", -1), "mia_gradient_norm": ("grad_norm", -1),
          "mia_min_k": ("min_k", 1), "mia_min_k_plus": ("min_k_plus", 1)}  # fmt: skip


def test_every_plain_membership_attack_on_text_is_listed() -> None:
    attacks = {key for key, row in METRICS.items() if key.startswith("mia_") and row.modality == "text"}
    assert attacks == set(BETTER)


@pytest.mark.parametrize("key", BETTER)
def test_members_that_are_known_better_are_told_without_an_error(key: str) -> None:
    column, sign = BETTER[key]
    low, high = np.linspace(1.0, 2.0, 12), np.linspace(3.0, 4.0, 15)
    members, others = (high, low) if sign > 0 else (low, high)

    def auc(forget: np.ndarray, holdout: np.ndarray) -> float:
        table = {s: {"mean_nll": np.ones(len(v)), column: v} for s, v in (("forget", forget), ("holdout", holdout))}
        return METRICS[key].compute(Items(table, []))

    assert (auc(members, others), auc(others, members), auc(members, members)) == (1, 0, 0.5)


def test_the_reference_attack_sees_what_a_model_knows_better_than_an_oracle() -> None:
    oracle = {"forget": {"mean_nll": np.linspace(1.0, 3.0, 12)}, "holdout": {"mean_nll": np.linspace(0.5, 4.0, 15)}}
    knowing = {**oracle, "forget": {"mean_nll": np.zeros(12)}}
    ruined = {**oracle, "forget": {"mean_nll": np.full(12, 9.0)}}

    def auc(model: Any) -> float:
        return METRICS["forget_mia_reference"].compute(Items(model, [oracle]))

    assert (auc(knowing), auc(oracle), auc(ruined)) == (1, 0.5, 0)


def test_an_answer_with_the_right_value_is_no_wrong_one(small_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = measured_items(small_problem, 4)
    of = {qa.question: qa for _, qa in chosen}
    other = {
        q: next(v for v in sorted(small_problem.values[qa.kind]) if v != qa.value)
        for q, qa in of.items()
        if small_problem.values.get(qa.kind)
    }
    assert len(other) > 4

    def wrong(said: str) -> Any:
        def answers(model: Any, tokenizer: Any, template: Any, questions: Sequence[str], *args: Any, **kw: Any) -> Any:
            return [said.format(right=of[q].value, wrong=other.get(q, "")) for q in questions]

        monkeypatch.setattr(measuring, "generate", answers)
        found = measure(small_problem, small_problem.model, 4, metrics=["forget_accuracy"]).items["wrong_value"]
        return found[[qa.question in other for _, qa in chosen]]

    assert (wrong("{right}, not {wrong}") == 0).all()
    assert (wrong("{wrong}, not {right}") == 0).all()
    assert (wrong("{wrong}") == 1).all()
    assert (wrong("{right}") == 0).all() and (wrong("nobody knows") == 0).all()
