"""The table: gap, floor, interval and what is not measurable, from items made by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import unlearnkit as uk
from unlearnkit.errors import UnlearnkitError
from unlearnkit.evaluation import score
from unlearnkit.metrics.draws import interval_of
from unlearnkit.metrics.measure import Measured
from unlearnkit.metrics.table import METRICS

N = 20
DRAW = np.random.default_rng(0)
NOISE = {split: DRAW.normal(0, 0.1, N) for split in ("forget", "retain", "holdout")}
PROBLEM = SimpleNamespace(modality="text", measured={})


def measured(forget: float, retain: float = 0.1, seed: int | None = None, **columns: Any) -> Measured:
    """Twenty questions a split around a mean NLL; right and wrong answers, extraction and refusals to go with it."""
    draw = np.random.default_rng(seed)
    parts = []
    for split, level in (("forget", forget), ("retain", retain), ("holdout", 3.0)):
        nll = np.abs(level + NOISE[split] + (0 if seed is None else draw.normal(0, 0.05, N)))
        table = pd.DataFrame(
            {
                "mean_nll": nll,
                "nll": nll * 4,
                "paraphrase_nll": nll + 0.5,
                "perturbed_nll_mean": np.full(N, 3.0),
                "option_nll_min": np.full(N, 2.0),
                "option_p_sum": np.full(N, 0.3),
                "min_k": -nll * 1.5,
                "correct": (nll < 0.5).astype(float),
                "rouge": np.exp(-nll),
                "own_nll": np.full(N, 0.1),
                "original_nll": nll if split == "forget" else np.full(N, np.nan),
                "repetition": np.zeros(N),
                "wrong_value": (nll > 1).astype(float),
                "answer": ["said"] * N,
            },
            index=pd.MultiIndex.from_product([[split], range(N)], names=["split", "id"]),
        )
        for column, values in columns.items():
            if split == "forget":
                table[column] = values
        parts.append(table)
    return Measured(pd.concat(parts))


ORIGINAL, ORACLE, OTHER = measured(0.05), measured(2.5), measured(2.6, seed=1)


def row(name: str, *mine: Measured, original: Any = ORIGINAL, oracles: Any = (ORACLE, OTHER), **options: Any) -> Any:
    return score(PROBLEM, list(mine), (original, list(oracles)), [name], **options).loc[name]


def level(m: Measured) -> float:
    return float(m.items.loc["forget", "mean_nll"].mean())


def test_gap_by_hand() -> None:
    """0 = as the oracle, 1 = as the original; beyond the oracle counts as well."""
    span = level(ORACLE) - level(ORIGINAL)
    for nll in (0.05, 1.0, 2.5, 6.0):
        mine = measured(nll)
        found, here = row("forget_answer_nll", mine), level(mine)
        assert found["gap"] == pytest.approx(abs(here - level(ORACLE)) / span)
        assert found["floor"] == pytest.approx(abs(level(OTHER) - level(ORACLE)) / span)
        shown = [found["original"], found["unlearned"], found["oracle"]]
        assert shown == pytest.approx([level(ORIGINAL), here, level(ORACLE)])
        assert found["relative"] == pytest.approx(here / level(ORIGINAL)) and found["why"] == ""
        assert found["low"] <= here <= found["high"] and found["gap_low"] <= found["gap"] <= found["gap_high"]
    assert row("forget_answer_nll", ORIGINAL)["gap"] == 1.0
    assert row("forget_answer_nll", ORACLE)["gap"] == 0.0
    assert row("forget_answer_nll", OTHER)["gap"] == row("forget_answer_nll", OTHER)["floor"]
    assert row("forget_answer_nll", measured(9.0))["gap"] > 2.0  # over-forgetting is no success


def test_the_interval_is_a_paired_bootstrap_over_items_and_seeds() -> None:
    one = row("forget_answer_nll", measured(1.0), resamples=400)
    assert one.equals(row("forget_answer_nll", measured(1.0), resamples=400))
    nll = measured(1.0).items.loc["forget", "mean_nll"].to_numpy()
    half = 1.96 * nll.std() / math.sqrt(N)
    assert one["high"] - one["low"] == pytest.approx(2 * half, rel=0.25)
    two = row("forget_answer_nll", measured(0.6), measured(1.4), resamples=400)
    assert two["seeds"] == 2 and two["unlearned"] == pytest.approx(one["unlearned"], abs=0.05)
    assert two["high"] - two["low"] > 3 * (one["high"] - one["low"])  # the seeds differ more than the items do
    # paired: where every item moves by the same amount, the gap has hardly an interval
    assert one["gap_high"] - one["gap_low"] < 0.05


@pytest.mark.parametrize(
    ("name", "given", "why"),
    [
        ("forget_answer_nll", {"oracles": ()}, "gap not measurable: it needs an oracle"),
        ("forget_answer_nll", {"oracles": (ORACLE,)}, "floor not measurable: it needs another oracle"),
        ("forget_ks_statistic", {"oracles": ()}, "not measurable: there is no oracle"),
        ("forget_ks_statistic", {"oracles": (ORACLE,)}, "gap not measurable: it needs another oracle"),
        ("forget_answer_nll", {"oracles": (ORIGINAL, ORIGINAL)}, "gap not measurable: original and oracle do not"),
        ("forget_answer_nll", {"oracles": (measured(0.06), OTHER)}, "gap not measurable: original and oracle do not"),
        ("retain_answer_nll", {}, "gap not measurable: original and oracle do not differ beyond noise"),
        ("retain_accuracy", {"original": measured(0.05, retain=1.0)}, "not measurable: the original itself reaches 0"),
        ("retain_paraphrase_accuracy", {}, "not measurable: records have no held-out phrasing or no value"),
        ("neighbours_probability", {}, "not measurable: there is no neighbours split"),
        ("forget_fluency", {}, "not measurable: the model answers nothing"),
        ("forget_hallucination", {}, "not measurable: the model answers nothing"),
    ],
)  # fmt: skip
def test_what_is_not_measurable_says_why(name: str, given: dict[str, Any], why: str) -> None:
    mine = measured(1.0)
    if "nothing" in why:
        mine = measured(1.0, own_nll=np.nan, original_nll=np.nan, answer="")
    elif "paraphrase_accuracy" in name:
        given = {"original": measured(0.05, paraphrase_correct=1.0)}
        mine.items["paraphrase_correct"] = np.nan
    found = row(name, mine, **given)
    assert found["why"].startswith(why), found["why"]
    if not why.startswith("floor"):
        assert math.isnan(found["gap"]) and math.isnan(found["floor"])


def test_few_items_are_not_enough() -> None:
    few = [Measured(m.items.groupby(level=0).head(9)) for m in (measured(1.0), ORIGINAL, ORACLE, OTHER)]
    table = score(PROBLEM, few[:1], (few[1], few[2:]), ["forget_answer_nll", "mia_loss"])
    assert set(table["why"]) == {"not measurable: 9 items are too few (at least 10)"}
    assert table[["original", "unlearned", "oracle", "gap"]].isna().all().all()


def test_forget_quality_compares_with_oracle_0_so_the_oracle_column_is_oracle_1() -> None:
    three = (ORIGINAL, [ORACLE, OTHER, measured(2.4, seed=3)])
    table = score(PROBLEM, [OTHER], three, ["forget_quality", "forget_ks_statistic"])
    assert (table["unlearned"] == table["oracle"]).all() and (table["gap"] == 0).all()
    assert table.loc["forget_quality", "original"] < -8 and table.loc["forget_ks_statistic", "original"] == 1.0
    assert table["floor"].notna().all()


def test_the_interval_of_a_distance_between_samples_lies_around_its_value() -> None:
    """Resamples alone would lie above it: repeated items put two samples further apart."""
    found = score(PROBLEM, [measured(2.45, seed=5)], (ORIGINAL, [ORACLE, OTHER]), ["forget_ks_statistic"]).iloc[0]
    assert found["low"] < found["unlearned"] < found["high"]
    assert found["unlearned"] == pytest.approx((found["low"] + found["high"]) / 2, abs=0.1)


def test_none_of_n_is_no_proof_of_never() -> None:
    """Wilson's interval of 0 of 20 is [0, z²/(20 + z²)]; a bootstrap of twenty zeros would be [0, 0]."""
    z = 1.959964
    for value in (0.0, 1.0):
        mine = measured(1.0)
        mine.items["correct"] = value
        found, n = row("forget_accuracy", mine), (mine.items.index.get_level_values(0) == "forget").sum()
        rest = z**2 / (n + z**2)
        wanted = (0, rest) if value == 0 else (1 - rest, 1)
        assert (found["low"], found["high"]) == pytest.approx(wanted, abs=1e-6)
    draws = np.linspace(0.2, 0.4, 201)
    assert interval_of(draws, 0.3, 20) == pytest.approx((0.205, 0.395))
    assert interval_of(np.full(9, 0.5), 0.5, 20) == (0.5, 0.5)  # twenty items of one half: no share


def test_privacy_metrics_by_hand() -> None:
    """NLL on forget far below holdout: everything leaks; as high as holdout: nothing does."""
    assert row("mia_loss", ORIGINAL)["unlearned"] == 1.0 and row("mia_min_k", ORIGINAL)["unlearned"] == 1.0
    blind = measured(3.0)
    assert 0.2 < row("mia_loss", blind)["unlearned"] < 0.8
    leak = row("forget_privacy_leakage", measured(0.05), oracles=(blind, measured(3.0, seed=2)))
    assert leak["unlearned"] < -50
    told_apart = row("forget_privacy_leakage", measured(1.0), oracles=(measured(0.01), measured(0.02)))
    assert told_apart["why"] == "not measurable: the oracle itself tells forget from holdout without an error (AUC 1)"


def test_hallucination_is_a_confident_wrong_value() -> None:
    wrong = {"wrong_value": np.r_[np.ones(10), np.zeros(10)]}
    assert row("forget_hallucination", measured(1.0, own_nll=0.1, **wrong))["unlearned"] == 0.5
    assert row("forget_hallucination", measured(1.0, own_nll=3.0, **wrong))["unlearned"] == 0.0  # wrong, but unsure


def test_model_utility_is_the_harmonic_mean_of_the_parts_that_are_shown() -> None:
    parts = ["retain_probability", "retain_rouge_l_recall", "retain_truth_ratio"]
    table = score(PROBLEM, [measured(1.0)], (ORIGINAL, [ORACLE, OTHER]), ["retain_model_utility", *parts])
    values = table.loc[parts, "unlearned"]
    assert table.loc["retain_model_utility", "unlearned"] == pytest.approx(3 / (1 / values).sum())


def test_metrics_that_are_unknown_or_ones_own() -> None:
    with pytest.raises(UnlearnkitError, match="metric 'forget_accurracy' is unknown.*Did you mean 'forget_accuracy'"):
        uk.evaluate(PROBLEM, ORIGINAL, ["forget_accurracy"])

    @uk.register_metric("median_nll")
    def median_nll(items: uk.Items) -> float:
        return float(np.median(items.column("forget", "mean_nll")))

    try:
        found = row("forget_median_nll", measured(1.0))
        assert found["unlearned"] == pytest.approx(np.median(measured(1.0).items.loc["forget", "mean_nll"]))
        assert found["gap"] > 0
    finally:
        del METRICS["forget_median_nll"]


def test_references_are_resampled_once_and_others_are_not_taken_for_them() -> None:
    """A second model is compared with the same draws of original and oracle; another oracle is drawn anew."""
    asked: list[float] = []

    @uk.register_metric("counted")
    def counted(items: Any) -> float:
        asked.append(float(items.column("forget", "mean_nll").mean()))
        return asked[-1]

    problem = SimpleNamespace(modality="text", measured={})
    try:

        def table(mine: Measured, oracle: Measured) -> Any:
            asked.clear()
            return score(problem, [mine], (ORIGINAL, [oracle, OTHER]), ["forget_counted"], 50).loc["forget_counted"]

        fresh = table(measured(1.0), ORACLE), len(asked)
        again = table(measured(1.0), ORACLE), len(asked)
        assert fresh[0].equals(again[0]) and (fresh[1], again[1]) == (3 * 50 + 4, 50 + 4)
        other = table(measured(1.0), measured(2.0))
        assert len(asked) == 3 * 50 + 4 and other["gap_high"] != fresh[0]["gap_high"]
    finally:
        del METRICS["forget_counted"]


def test_few_resamples_without_a_second_oracle() -> None:
    for resamples in (0, 20, 150):
        found = row("forget_ks_statistic", measured(2.0), oracles=(ORACLE,), resamples=resamples)
        assert found["why"] == "gap not measurable: it needs another oracle" and found["unlearned"] > 0


def test_what_is_no_share_has_no_interval_of_one_and_only_known_items_count() -> None:
    """All records alike: an AUC of 1 or a repetition of 0 is no share of items; 10 of 20 known make Wilson's n 10."""
    mine = measured(0.05)
    found = row("mia_loss", mine)
    assert (found["low"], found["high"]) == (1, 1)
    assert row("forget_repetition", mine)["high"] == 0
    mine.items.loc["forget", "correct"] = [0.0] * 10 + [math.nan] * 10
    assert row("forget_accuracy", mine)["high"] == pytest.approx(1.959964**2 / (10 + 1.959964**2), abs=1e-6)
