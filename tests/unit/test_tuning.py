"""Defaults are the best trials of the tuning table: same budget for every method, none on the world that is shown."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unlearnkit import tuning
from unlearnkit.methods import METHODS
from unlearnkit.metrics.measure import Measured
from unlearnkit.paths import data_dir
from unlearnkit.unlearning import configure_method

TABLE = pd.read_csv(data_dir() / "tuned" / "text.csv")
TUNED = [name for name, cls in METHODS["text"].items() if not hasattr(cls, "apply")]


@pytest.mark.parametrize("name", TUNED)
def test_the_defaults_are_the_best_trial(name: str) -> None:
    method, loop = configure_method("text", name, {})
    used = {**loop.model_dump(), **method.model_dump()}
    wanted = tuning.best(TABLE)[name]
    assert {key: used[key] for key in wanted} == wanted
    assert set(wanted) == {"lr", "steps", *type(method).search}


def test_every_method_had_the_same_number_of_trials_and_none_was_dropped() -> None:
    assert set(TABLE["method"]) == set(TUNED)
    trials = TABLE.groupby("method")["trial"].agg(sorted)
    assert all(numbers == list(range(tuning.TRIALS)) for numbers in trials)
    assert tuning.SEED != 0  # world 0 is the one whose results are shown


def test_the_table_was_made_by_the_objective_of_the_code() -> None:
    done = TABLE.dropna(subset=list(tuning.FORGETTING))
    lost = np.mean([np.maximum(0, 1 - done[metric]) for metric in tuning.UTILITY], axis=0)
    wanted = sum(weight * done[metric] for metric, weight in tuning.FORGETTING.items()) + tuning.LOST * lost
    np.testing.assert_allclose(done["loss"], wanted, atol=5e-4)  # the file has four decimals
    for settings in map(json.loads, TABLE["settings"]):
        assert tuning.LEARNING_RATE[0] <= settings["lr"] <= tuning.LEARNING_RATE[1]
        assert settings["steps"] in tuning.STEPS


def measured(forget: Any, right: Any, known: float) -> Measured:
    """Twelve questions a split: mean NLL of the forget answers, of their paraphrases, and of all other answers."""
    splits = []
    for split in ("forget", "retain", "neighbours", "general"):
        mine = split == "forget"
        rows = {
            "mean_nll": forget if mine else np.full(12, known),
            "paraphrase_nll": right if mine else np.full(12, known),
            "perturbed_nll_mean": np.full(12, 2.0),
            "option_p_sum": np.full(12, 0.5),
            "answer": [""] * 12,
        }
        index = pd.MultiIndex.from_product([[split], range(12)])
        splits.append(pd.DataFrame(rows, index=index))
    return Measured(pd.concat(splits))


def test_objective_by_hand() -> None:
    spread = np.linspace(0, 0.1, 12)
    original = measured(np.zeros(12), -spread, 0.1)
    oracles = [measured(np.full(12, nll), 3 + spread, 0.1) for nll in (2.0, 2.0)]
    at_oracle = tuning.objective(oracles[0], original, oracles)
    assert at_oracle["loss"] == pytest.approx(0.0) and at_oracle["retain_probability"] == pytest.approx(1.0)
    untouched = tuning.objective(original, original, oracles)
    assert untouched["loss"] == pytest.approx(sum(tuning.FORGETTING.values()))  # both gaps are 1, nothing is lost
    # NLL 7 is a gap of |7 − 2| / |0 − 2| = 2.5; everything else answered half as likely
    too_far = tuning.objective(measured(np.full(12, 7.0), 3 + spread, 0.1 + np.log(2)), original, oracles)
    p, half = np.exp(-0.1), np.exp(-0.1) / 2
    general = (half / (half + 0.5)) / (p / (p + 0.5))
    lost = np.mean([0.5, 0.5, 1 - general])
    assert too_far["loss"] == pytest.approx(tuning.FORGETTING["forget_answer_nll"] * 2.5 + tuning.LOST * lost)
    ruined = tuning.objective(measured(np.full(12, 99.0), 3 + spread, 0.1), original, oracles)
    assert ruined["forget_answer_nll"] == 3.0  # a gap is capped, so that ruin does not drown the rest
