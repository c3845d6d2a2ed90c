"""Defaults of the image methods are the best trials of their table: same budget each, none on the request shown."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from unlearnkit import tuning_image
from unlearnkit.methods import METHODS
from unlearnkit.metrics.measure import Measured
from unlearnkit.models.builtin_image import DEFAULT_FORGET
from unlearnkit.paths import data_dir
from unlearnkit.tuning import LEARNING_RATE, LOST, best
from unlearnkit.unlearning import configure_method

TABLE = pd.read_csv(data_dir() / "tuned" / "image.csv")


@pytest.mark.parametrize("name", tuning_image.TUNED)
def test_the_defaults_are_the_best_trial(name: str) -> None:
    method, loop = configure_method("image", name, {})
    used = {**loop.model_dump(), **method.model_dump()}
    wanted = best(TABLE)[name]
    assert {key: used[key] for key in wanted} == wanted
    own = set() if hasattr(METHODS["image"][name], "apply") else {"lr", "steps"}
    assert set(wanted) == {*own, *METHODS["image"][name].search}


def test_every_method_had_the_same_number_of_trials_on_other_requests() -> None:
    assert set(TABLE["method"]) == set(tuning_image.TUNED)
    trials = TABLE.groupby("method")["trial"].agg(sorted)
    assert all(numbers == list(range(tuning_image.TRIALS)) for numbers in trials)
    assert DEFAULT_FORGET["canvas"] not in tuning_image.REQUESTS
    for name, settings in zip(TABLE["method"], map(json.loads, TABLE["settings"]), strict=True):
        low, high = METHODS["image"][name].search.get("lr", LEARNING_RATE)  # an adapter that starts at 0 has its own
        assert low <= settings.get("lr", low) <= high
        assert settings.get("steps", tuning_image.STEPS[0]) in tuning_image.STEPS


def test_controls_share_their_settings_and_ascent_has_no_retain_term() -> None:
    loops = [METHODS["image"][name].loop for name in tuning_image.CONTROLS]
    assert loops[0] == loops[1]
    assert METHODS["image"]["grad_ascent"]().alpha == 0


def measured(shown: int, right: int, alignment: float) -> Measured:
    """Twelve pictures a split: how many show the erased style, how many retained ones are right, how surely."""
    hit = (np.arange(12) < right).astype(float)
    parts = {
        "forget": {"shown": np.arange(12) < shown, "cross_domain": np.ones(12), "in_domain": np.nan},
        "retain": {"shown": 0.0, "cross_domain": np.ones(12), "in_domain": hit},
    }
    tables = []
    for split, columns in parts.items():
        index = pd.MultiIndex.from_product([[split], range(12)])
        columns = {name: np.asarray(values, float) for name, values in columns.items()}
        tables.append(pd.DataFrame({**columns, "alignment": alignment, "weight": 0.5}, index=index))
    return Measured(pd.concat(tables))


def test_objective_by_hand() -> None:
    original = measured(12, 12, 0.8)
    untouched = tuning_image.objective(original, original)
    assert untouched["loss"] == pytest.approx(1.0) and untouched["ua"] == 0
    perfect = tuning_image.objective(measured(0, 12, 0.9), original)
    assert perfect["loss"] == pytest.approx(0.0)  # being surer than the original is no merit
    # a quarter still shows it; IRA 9/12, CRA untouched, alignment halved
    half = tuning_image.objective(measured(3, 9, 0.4), original)
    assert half["ua"] == pytest.approx(0.75)
    assert half["loss"] == pytest.approx(0.25 + LOST * (0.25 + 0 + 0.5) / 3)
