"""The metrics as functions of arrays: by hand, and against what real models gave on TOFU."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnkit.metrics import text as metric
from unlearnkit.metrics.table import METRICS, Items

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT.parent / "shared" / "reference"
needs_reference = pytest.mark.skipif(
    not (REFERENCE / "tofu_llama2_7b_expected.csv").is_file(),
    reason="the reference data (per-sample logs of real models) is not beside this checkout",
)


def a(*values: float) -> np.ndarray:
    return np.array(values)


def test_probability_by_hand() -> None:
    assert metric.probability(a(0.0, math.log(4))).tolist() == pytest.approx([1.0, 0.25])
    # ½ against ¼ and ¼
    assert metric.option_probability(a(math.log(2)), a(math.log(4), math.log(4))[None]).tolist() == [0.5]


def test_truth_ratio_by_hand() -> None:
    """P_right = ½; P_wrong = geometric mean of ½ and ⅛ = ¼: r = ½, not the ⅝ of an arithmetic mean."""
    r = metric.truth_ratio(a(math.log(2)), np.array([[math.log(2), math.log(8)]]))
    assert r.tolist() == pytest.approx([0.5])
    assert metric.forget_truth_ratio(a(0.5, 2.0, 1.0)).tolist() == [0.5, 0.5, 1.0]
    assert metric.utility_truth_ratio(a(0.5, 2.0, 0.0)).tolist() == [0.5, 0.0, 1.0]


def test_forget_quality_by_hand() -> None:
    same = np.linspace(0, 1, 30)
    assert metric.forget_quality(same, same) == (0.0, 0.0)
    log_p, distance = metric.forget_quality(np.zeros(5) + np.arange(5), np.arange(5) + 10.0)
    assert distance == 1.0 and log_p == pytest.approx(math.log10(2 / math.comb(10, 5)))  # exact: 2 of 252 orders
    # ¾ of the sample below everything of the other
    assert metric.forget_quality(a(1, 2, 3, 9), a(5, 6, 7, 8))[1] == 0.75


def test_forget_quality_where_p_underflows() -> None:
    """p is 0 in double precision: the logarithm comes from the asymptotic series, 2·exp(−2nD²)."""
    n = 3000
    log_p, distance = metric.forget_quality(np.arange(n) * 1.0, np.arange(n) + 1e6)
    assert distance == 1.0 and log_p == pytest.approx((math.log(2) - n) / math.log(10))
    assert log_p < -308


def test_harmonic_mean_by_hand() -> None:
    assert metric.harmonic_mean([1.0, 0.5]) == pytest.approx(2 / 3)
    assert metric.harmonic_mean([1.0, 0.0, 1.0]) == 0.0  # one ability gone, all of it gone


def test_rouge_l_recall_by_hand() -> None:
    assert metric.rouge_l_recall("the cat sat on the mat", "the cat lay on a mat") == pytest.approx(4 / 6)
    assert metric.rouge_l_recall("She writes novels", "novel writing") == pytest.approx(1 / 3)  # stemmed
    assert metric.rouge_l_recall("a b", "") == 0.0


@pytest.mark.parametrize(
    ("matches", "value"),
    [("11011", 0.4), ("11111", 1.0), ("11110", 0.0), ("00000", 0.0), ("00001", 0.2), ("", 0.0)],
)
def test_extraction_strength_by_hand(matches: str, value: float) -> None:
    """The shortest prefix after which every argmax is right; a wrong last token means no match, which is 0."""
    assert metric.extraction_strength([m == "1" for m in matches]) == pytest.approx(value)


def test_min_k_and_zlib_by_hand() -> None:
    assert metric.min_k(a(-1.0, -5.0, -3.0, -0.5, -2.0), 0.4) == -4.0  # the two lowest of five
    assert metric.min_k(a(-7.0), 0.4) == -7.0  # at least one
    text = "abc" * 40
    assert metric.zlib_score(12.0, text) == 12.0 / len(zlib.compress(text.encode()))
    assert metric.zlib_score(1.0, text) > metric.zlib_score(1.0, "a quick brown fox jumps over lazy dogs" * 3)


scores = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=20)


@given(scores, scores)
def test_auc_counts_pairs(members: list[float], others: list[float]) -> None:
    wins = sum((m > o) + 0.5 * (m == o) for m in members for o in others)
    assert metric.auc(a(*members), a(*others)) == pytest.approx(wins / (len(members) * len(others)))


def test_auc_is_scikit_learns() -> None:
    from sklearn.metrics import roc_auc_score

    draw = np.random.default_rng(0)
    members, others = draw.normal(0.3, 1, 200).round(1), draw.normal(0, 1, 300).round(1)
    theirs = roc_auc_score(np.r_[np.ones(200), np.zeros(300)], np.r_[members, others])
    assert metric.auc(members, others) == pytest.approx(theirs, abs=1e-12)


def test_privacy_leakage_by_hand() -> None:
    assert metric.privacy_leakage(1.0, 0.5) == -100.0  # everything leaks
    assert metric.privacy_leakage(0.5, 0.5) == 0.0
    assert metric.privacy_leakage(0.25, 0.5) == 50.0  # over-unlearned
    assert math.isnan(metric.privacy_leakage(0.5, 1.0))


def test_repetition_by_hand() -> None:
    assert metric.repetition([1, 2, 3, 1, 2, 3, 1], 2) == pytest.approx(1 - 3 / 6)
    assert metric.repetition([7] * 32) == pytest.approx(28 / 29)
    assert metric.repetition(list(range(32))) == 0.0 and metric.repetition([1, 1, 1]) == 0.0


# Per-sample logs of real Llama-2-7B models: https://github.com/locuslab/tofu, MIT.


@pytest.fixture(scope="module")
def samples() -> pd.DataFrame:
    return pd.read_csv(REFERENCE / "tofu_llama2_7b_per_sample.csv.gz", keep_default_na=False, na_values=[""])


@pytest.fixture(scope="module")
def expected() -> pd.DataFrame:
    return pd.read_csv(REFERENCE / "tofu_llama2_7b_expected.csv").set_index("model")


def items_of(samples: pd.DataFrame, model: str, oracle: str | None = None) -> Items:
    """The logs as the columns that our own measurement fills, so that the table's own metrics run on them."""

    def splits(name: str) -> dict[str, dict[str, np.ndarray]]:
        out = {}
        for task, rows in samples[samples["model"] == name].groupby("task"):
            wrong = rows.filter(like="nll_perturbed_")
            out[str(task)] = {
                "mean_nll": rows["nll_answer"].to_numpy(float),
                "paraphrase_nll": rows["nll_paraphrase"].to_numpy(float),
                "perturbed_nll_mean": wrong.mean(axis=1).to_numpy(float),
                "option_p_sum": np.exp(-wrong).sum(axis=1).to_numpy(float),
                "rouge": rows["rougeL_recall"].to_numpy(float),
            }
        return out

    return Items(splits(model), [splits(oracle)] if oracle else [])


MODELS = ("full", "retain90", "retain95", "retain99")
PARTS = [f"{split}_{part}" for split in ("retain", "forget", "real_authors", "world_facts")
         for part in ("probability", "rougeL_recall", "truth_ratio")]  # fmt: skip


@needs_reference
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("part", [*PARTS, "model_utility"])
def test_tables_metrics_reproduce_tofu(samples: pd.DataFrame, expected: pd.DataFrame, model: str, part: str) -> None:
    key = {"model_utility": "retain_model_utility"}.get(part, part.replace("rougeL", "rouge_l"))
    assert METRICS[key].compute(items_of(samples, model)) == pytest.approx(expected.loc[model, part], abs=1e-6)


@needs_reference
@pytest.mark.parametrize("model", MODELS)
def test_functions_reproduce_tofu(samples: pd.DataFrame, expected: pd.DataFrame, model: str) -> None:
    """The same from the pure functions, with the harmonic mean of the nine numbers taken here."""
    nine, row = [], expected.loc[model]
    for split in ("retain", "forget", "real_authors", "world_facts"):
        rows = samples[(samples["model"] == model) & (samples["task"] == split)]
        wrong = rows.filter(like="nll_perturbed_").dropna(axis=1).to_numpy()
        assert wrong.shape[1] == (5 if split in ("retain", "forget") else 3)
        nll = rows["nll_answer"].to_numpy()
        p = metric.probability(nll) if wrong.shape[1] == 5 else metric.option_probability(nll, wrong)
        r = metric.truth_ratio(rows["nll_paraphrase"].to_numpy(), wrong)
        ratio = metric.forget_truth_ratio(r) if split == "forget" else metric.utility_truth_ratio(r)
        found = [p.mean(), rows["rougeL_recall"].mean(), ratio.mean()]
        assert found == pytest.approx([row[f"{split}_{x}"] for x in ("probability", "rougeL_recall", "truth_ratio")])
        nine += found if split != "forget" else []
    assert metric.harmonic_mean(nine) == pytest.approx(row["model_utility"], abs=1e-6)


@needs_reference
def test_forget_quality_of_tofu(samples: pd.DataFrame, expected: pd.DataFrame) -> None:
    known = expected["forget_quality_full_against_this"].dropna()
    assert list(known.index) == ["retain90"]
    for oracle, p in known.items():
        log_p = METRICS["forget_quality"].compute(items_of(samples, "full", str(oracle)))
        assert 10**log_p == pytest.approx(p, rel=1e-6)
        statistic = METRICS["forget_ks_statistic"].compute(items_of(samples, "full", str(oracle)))
        assert 0.3 < statistic < 0.6


@needs_reference
def test_rouge_from_the_texts_of_tofu(samples: pd.DataFrame) -> None:
    texts = samples[["answer", "generated"]].fillna("").astype(str)
    mine = [metric.rouge_l_recall(ref, said) for ref, said in texts.itertuples(index=False)]
    assert np.abs(np.array(mine) - samples["rougeL_recall"].to_numpy()).max() < 1e-3
    means = samples.assign(mine=mine).groupby(["model", "task"])[["mine", "rougeL_recall"]].mean()
    np.testing.assert_allclose(means["mine"], means["rougeL_recall"], atol=1e-6)
