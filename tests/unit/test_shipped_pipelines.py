"""What the shipped pipelines and the default settings do on canvas when "striped" is to be forgotten."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import unlearnkit as uk

LIMIT = 36  # pictures a split
TRIPLE = ["ua", "ira", "cra"]
GOOD = pd.Series({"ua": 0.95, "ira": 0.90, "cra": 0.90})


@pytest.fixture(scope="module")
def problem() -> Any:
    return uk.load_problem("canvas", "striped", device="cpu")


def scores(problem: Any, method: str, **settings: Any) -> pd.DataFrame:
    free = hasattr(uk.METHODS["image"][method], "apply")
    unlearned = uk.unlearn(problem, method, progress=False, **({} if free else {"trace_every": 0}), **settings)
    return uk.evaluate(problem, uk.measure(problem, unlearned.model, LIMIT, progress=False), limit=LIMIT, resamples=50)


def test_the_original_knows_and_the_oracles_do_not(problem: Any) -> None:
    original, oracles = uk.references(problem, LIMIT)
    table = uk.evaluate(problem, original, limit=LIMIT, resamples=50)
    assert table.loc["ua", "original"] <= 0.05 and (table.loc[["ira", "cra"], "original"] >= 0.95).all()
    assert (table.loc[TRIPLE, "oracle"] >= 0.95).all() and len(oracles) >= 2
    assert table.loc["judge_accuracy", "original"] >= 0.97 and table.loc["ua", "gap"] == 1
    # an oracle draws the right object in a style it knows; the original can be told from it, by distribution too
    assert all(not m.split("forget")["read_style"].eq("striped").any() for m in oracles)
    assert table.loc["oracle_mmd_p", "unlearned"] <= 0.01


def test_the_pipeline_of_digits_draws_what_it_is_asked_for_and_its_oracles_no_seven() -> None:
    digits = uk.load_problem("digits", "seven", device="cpu")
    table = uk.evaluate(digits, uk.references(digits, LIMIT)[0], limit=LIMIT, resamples=50)
    assert table.loc["ua", "original"] <= 0.05 and table.loc["ira", "original"] >= 0.95
    assert table.loc["ua", "oracle"] >= 0.95 and table.loc["ira", "oracle"] >= 0.95


def test_concept_ablation_forgets_and_keeps_the_rest(problem: Any) -> None:
    assert (scores(problem, "concept_ablation").loc[TRIPLE, "unlearned"] >= GOOD).all()


def test_uce_forgets_most_without_a_step_of_training(problem: Any) -> None:
    table = scores(problem, "uce")
    assert table.loc["ua", "unlearned"] >= 0.75 and (table.loc[["ira", "cra"], "unlearned"] >= 0.95).all()


def test_ascent_without_a_retain_term_destroys(problem: Any) -> None:
    table = scores(problem, "grad_ascent", steps=50)
    assert table.loc["ua", "unlearned"] >= 0.95 and table.loc["prompt_accuracy", "unlearned"] < 0.5


@pytest.mark.slow
def test_at_least_four_methods_forget_and_keep_the_rest(problem: Any) -> None:
    found = {
        m: scores(problem, m).loc[TRIPLE, "unlearned"]
        for m in ("concept_ablation", "salun", "esd", "selective_amnesia")
    }
    assert all((triple >= GOOD).all() for triple in found.values()), found
