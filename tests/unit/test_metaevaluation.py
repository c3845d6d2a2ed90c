"""Meta-evaluation: closed forms of AUC and robustness, pools that are saved and read, the shipped tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import unlearnkit as uk
from unlearnkit.metaevaluation import (
    Entry,
    Pool,
    merged,
    read_pool,
    read_table,
    save_pool,
    separation,
    symmetric_robustness,
)
from unlearnkit.metaevaluation.statistics import mean_interval, no_error_bound, separation_interval, stratified

NUMBERS = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


@given(NUMBERS, NUMBERS)
def test_separation_is_the_auc(above: list[int], below: list[int]) -> None:
    labels = [1] * len(above) + [0] * len(below)
    assert separation(above, below) == pytest.approx(roc_auc_score(labels, above + below))
    assert separation(above, below) + separation(below, above) == pytest.approx(1)


def test_models_of_different_requests_are_not_compared() -> None:
    values = np.array([1.0, 0.0, 11.0, 10.0])  # within each request the knowing model is above
    knows = np.array([True, False, True, False])
    assert separation(values[knows], values[~knows]) == 0.75
    assert stratified(values, knows, ~knows, np.array(["a", "a", "b", "b"])) == 1


def test_an_interval_of_no_error_says_what_few_models_can() -> None:
    values, knows = np.r_[np.ones(30), np.zeros(12)], np.r_[np.ones(30, bool), np.zeros(12, bool)]
    case = np.full(42, "")
    low = no_error_bound([(30, 12)])
    assert separation_interval(values, knows, ~knows, case, np.arange(42)) == (1, low, 1)
    assert separation_interval(-values, knows, ~knows, case, np.arange(42)) == (0, 0, 1 - low)
    six = np.r_[np.zeros(30), np.repeat(np.arange(6), 2)]  # the twelve were made from six
    assert separation_interval(values, knows, ~knows, case, six)[1] < 0.5  # the thirty from one: no more than chance
    assert separation_interval(values, knows, knows & False, case, six)[0] != 1


def test_the_bound_of_no_error_is_exact() -> None:
    """Four against four by hand; sides, and cases, of which chance makes 2.5% without an error; a simulation."""
    auc = no_error_bound([(4, 4)])
    x = 4 * (1 - auc) / auc  # n/k for AUC = k/(k+1)
    assert (x + 1) * (x + 2) * (x + 3) * (x + 4) == pytest.approx(24 / 0.025, rel=1e-6)
    assert no_error_bound([(3, 3)]) < 0.5 < no_error_bound([(4, 4)])  # chance: 1 of 20, 1 of 70
    assert no_error_bound([(1, 39)]) == pytest.approx(0.5, abs=1e-6)
    assert no_error_bound([(2, 2), (2, 2), (0, 5)]) > no_error_bound([(2, 2)])
    draw = np.random.default_rng(0)
    auc = no_error_bound([(6, 6)])
    above, below = draw.random((200_000, 6)) ** ((1 - auc) / auc), draw.random((200_000, 6))
    assert (above > below).mean() == pytest.approx(auc, abs=0.005)
    assert (above.min(1) > below.max(1)).mean() == pytest.approx(0.025, abs=0.002)


def test_copies_of_a_model_are_no_evidence() -> None:
    draw = np.random.default_rng(0)
    values, knows = np.r_[draw.normal(0.8, 1, 10), draw.normal(0, 1, 10)], np.arange(20) < 10
    alone = separation_interval(values, knows, ~knows, np.full(20, ""), np.arange(20))
    many = [np.repeat(x, 9) for x in (values, knows, np.full(20, ""), np.arange(20))]
    copied = separation_interval(many[0], many[1], ~many[1], many[2], many[3])
    assert copied == pytest.approx(alone)
    naive = separation_interval(many[0], many[1], ~many[1], many[2], np.arange(180))
    assert naive[2] - naive[1] < 0.5 * (alone[2] - alone[1])


def test_the_interval_covers() -> None:
    draw, hit = np.random.default_rng(1), 0
    knows = np.arange(24) < 12
    for k in range(60):  # normal values one deviation apart: the AUC is Φ(1/√2)
        values = draw.normal(knows.astype(float), 1)
        _, low, high = separation_interval(values, knows, ~knows, np.full(24, ""), np.arange(24), 200, k)
        hit += low <= 0.7602 <= high
    assert hit >= 51


@pytest.mark.parametrize(("a", "b", "wanted"), [(1, 1, 1), (1, 0, 0), (0, 2, 0), (1, 3, 0.5), (-1, 1, 0), (-2, -2, 1)])
def test_symmetric_robustness(a: float, b: float, wanted: float) -> None:
    assert symmetric_robustness(a, b) == wanted == symmetric_robustness(b, a)


def test_two_zeros_say_nothing() -> None:
    assert np.isnan(symmetric_robustness([0.0], [0.0])).all()
    assert mean_interval(np.array([np.nan, 0.5, 0.7]), np.arange(3))[0] == pytest.approx(0.6)
    assert np.isnan(mean_interval(np.array([np.nan]), np.arange(1))).all()
    assert np.isnan(mean_interval(np.array([0.5, 0.7]), np.zeros(2))[1])  # one cluster has no interval


def table(seed: int = 0, n: int = 12) -> pd.DataFrame:
    """Values of four metrics: one that sees knowledge, a coin, one far off on ruin, one that sees what is hidden."""
    draw, rows = np.random.default_rng(seed), []
    level = {"knows": 1.0, "hides": 0.0, "ignorant": 0.0, "ruined": 0.0, "original": 1.0, "oracle": 0.0}
    said = level | {"ruined": -5.0}  # log-likelihood: ruin lies far beyond retraining
    inside = level | {"hides": 1.0}
    for truth in level:
        for k in range(n if truth not in ("original", "oracle") else 2):
            about = {"truth": truth, "model": f"{truth} {k}"}
            noise = draw.uniform(0, 0.1)
            rows += [
                {**about, "metric": "perfect", "value": level[truth] + noise},
                {**about, "metric": "coin", "value": draw.normal() if truth in ("knows", "ignorant") else level[truth]},
                {**about, "metric": "likelihood", "value": said[truth] + noise},
                {**about, "metric": "inside", "value": inside[truth] + noise},
            ]  # fmt: skip
    return pd.DataFrame(rows)


def test_closed_forms() -> None:
    found = uk.meta_evaluate(pool=table())
    assert (found["auc"][["perfect", "likelihood", "inside"]] == 1).all()
    coin = found.loc["coin"]
    assert coin["auc_low"] < 0.5 < coin["auc_high"]
    assert coin["auc_high"] - coin["auc_low"] > 0.2
    assert found.loc["perfect", "hides"] < 0.9 < found.loc["inside", "hides"]
    assert (found[["n_knows", "n_ignorant", "n_hides", "n_ruined"]] == 12).all(axis=None)


def test_ruin_is_caught_by_the_distance_to_the_oracle_or_not_at_all() -> None:
    found = uk.meta_evaluate(pool=table())
    assert (found["ruined"][["perfect", "likelihood"]] == 1).all()  # to both, gibberish has forgotten
    assert found.loc["likelihood", "caught"] == 1
    assert found.loc["perfect", "caught_low"] < 0.5 < found.loc["perfect", "caught_high"]


def test_the_direction_comes_from_the_references() -> None:
    mirrored = table().assign(value=lambda t: -t["value"])
    a, b = uk.meta_evaluate(pool=table()), uk.meta_evaluate(pool=mirrored)
    assert (a["direction"] == 1).all()
    assert (b["direction"] == -1).all()
    kept = [c for c in a if c != "direction"]
    pd.testing.assert_frame_equal(a[kept], b[kept])
    judged = table()[~table()["truth"].isin(["original", "oracle"])]
    alone = uk.meta_evaluate(pool=judged)
    assert alone.loc["perfect", "auc"] == 1
    assert np.isnan(alone.loc["perfect", "caught"])


def test_same_references_no_direction() -> None:
    still = table()
    still.loc[still["truth"].isin(["original", "oracle"]), "value"] = 1.0
    row = uk.meta_evaluate(["perfect"], still).loc["perfect"]
    assert np.isnan(row["auc"])
    assert row["why"] == "not measurable: original and oracle have the same value, so it points nowhere"


def test_robustness_is_read_of_models_a_user_would_judge() -> None:
    rows = table()
    own = rows[(rows["metric"] == "perfect") & rows["truth"].isin(["hides", "ignorant", "knows"])]
    attacked = own.assign(attack="relearn", before=0.5, value=1.0)
    attacked.loc[attacked["truth"] == "knows", "value"] = 77.0  # must not count
    row = uk.meta_evaluate(["perfect"], pd.concat([rows, attacked])).loc["perfect"]
    assert row["relearn"] == pytest.approx(1 - 0.5 / 1.5)
    assert row["n_attacked"] == 24
    reference = rows[rows["metric"] == "perfect"].groupby("truth")["value"].mean()
    assert row["relearn_moved"] == pytest.approx(0.5 / (reference["original"] - reference["oracle"]))
    assert np.isnan(row["quantize"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns="value"), "has no column 'value'"),
        (lambda t: t.assign(truth="alive"), "truth 'alive' is unknown; known: knows, hides"),
    ],
)
def test_a_wrong_table_is_told(change: Any, said: str) -> None:
    with pytest.raises(uk.UnlearnkitError, match=said):
        uk.meta_evaluate(pool=change(table()))


def test_only_knowing_models_is_not_measurable() -> None:
    row = uk.meta_evaluate(["perfect"], table().query("truth != 'ignorant'")).loc["perfect"]
    assert row["why"].startswith("not measurable: no model of the pool")


# ——— pools of measured items ———


def entry(truth: str, model: str, nll: float, attack: str = "", **more: Any) -> Entry:
    ramp = np.linspace(0, 0.01, 20)
    items = {"forget": {"mean_nll": nll + ramp, **more}, "holdout": {"mean_nll": 3 + ramp}}
    return Entry("case", truth, model, model, items, attack)


def pool() -> Pool:
    entries = [entry("original", "o", 0.1), entry("oracle", "r1", 3.0), entry("oracle", "r2", 3.1)]
    for k in range(8):
        entries += [
            entry("knows", f"k{k}", 0.2 + 0.01 * k),
            entry("ignorant", f"i{k}", 3.0 + 0.01 * k),
            entry("ruined", f"x{k}", 9.0 + k),
            entry("ignorant", f"i{k}", 2.0, "relearn"),
        ]
    return Pool("text", tuple(entries), {"case": np.arange(20) >= 10})


def test_a_readers_metric_is_put_through() -> None:
    @uk.register_metric("typical_token")
    def typical_token(items: Any) -> float:
        return float(np.exp(-items.column("forget", "mean_nll").mean()))

    try:
        found = uk.meta_evaluate(["forget_typical_token", "forget_answer_nll", "forget_rouge_l_recall"], pool())
    finally:
        del uk.METRICS["forget_typical_token"]
    assert found.loc["forget_typical_token", ["direction", "auc", "ruined", "caught"]].tolist() == [1, 1, 1, 1]
    assert found.loc["forget_answer_nll", "direction"] == -1
    assert found.loc["forget_rouge_l_recall", "why"] == "not measurable: records carry nothing for rouge"
    one = uk.meta_evaluate("forget_answer_nll", pool())
    assert one.loc["forget_answer_nll"].equals(found.loc["forget_answer_nll"]) and len(one) == 1
    before = 3.035 + np.linspace(0, 0.01, 20)[10:].mean()  # mean over models, and the items that were not shown
    assert pool().values(["forget_answer_nll"])["before"].dropna().mean() == pytest.approx(before)


def test_the_oracle_that_others_are_compared_with_is_no_reference_of_itself() -> None:
    values = pool().values(["forget_mia_reference"])
    assert values[values["truth"] == "oracle"]["model"].tolist() == ["r2"]


def test_saved_and_read(tmp_path: Path) -> None:
    again = read_pool(save_pool(pool(), tmp_path / "pool.npz"))
    pd.testing.assert_frame_equal(again.counts(), pool().counts())
    pd.testing.assert_frame_equal(again.values(["forget_answer_nll"]), pool().values(["forget_answer_nll"]), rtol=1e-6)
    parts = [Pool("text", pool().entries[:9], pool().unshown), Pool("text", pool().entries[9:], pool().unshown)]
    pd.testing.assert_frame_equal(merged(parts).values(["mia_loss"]), pool().values(["mia_loss"]))
    (tmp_path / "pool.npz").write_bytes(b"nothing")
    with pytest.raises(uk.UnlearnkitError, match=r"pool.npz is no pool of measured models"):
        read_pool(tmp_path / "pool.npz")
    with pytest.raises(uk.UnlearnkitError, match="branch 'audio' is unknown"):
        read_pool("audio")


# ——— pools that are made ———


def test_a_pool_is_trained_measured_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unlearnkit.bench import metrics as bench
    from unlearnkit.metaevaluation import known

    monkeypatch.setenv("UNLEARNKIT_HOME", str(tmp_path / "home"))
    small = {"width": 32, "layers": 2, "heads": 2, "inner": 48, "vocabulary": 400, "steps": 2, "batch_size": 4}
    monkeypatch.setattr(bench, "SIZE", small)
    for name, value in (("EACH", 1), ("LIMIT", 20)):
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(known, "TAUGHT", 1)
    monkeypatch.setitem(known.RUIN, "text", {"steps": 1, "lr": 1e-3})
    found = bench.measured_pool("text", tmp_path / "work")
    counts = found.counts().droplevel("case")
    assert counts.loc["as it is"].to_dict() == {
        "hides": 2, "ignorant": 2, "knows": 2, "oracle": 2, "original": 1, "ruined": 2,
    }  # fmt: skip
    assert counts.loc["relearn"].sum() == counts.loc["quantize"].sum() == 3
    (unshown,) = found.unshown.values()
    assert 10 <= unshown.sum() <= 12
    assert set(found.metrics()) >= {"inside_depth", "inside_lens", "forget_truth_ratio"}
    table = uk.meta_evaluate(["forget_answer_nll", "inside_depth", "retain_probability"], found, resamples=20)
    assert table["n_attacked"].tolist() == [3, 3, 3]
    assert table.loc["forget_answer_nll", "relearn"] > 0.5
    assert np.isnan(table.loc["retain_probability", "relearn"])  # not asked of attacked models
    monkeypatch.setattr("unlearnkit.metaevaluation.measuring.measure", None)  # a second start measures nothing
    again = bench.measured_pool("text", tmp_path / "work")
    pd.testing.assert_frame_equal(again.values(["mia_loss"]), found.values(["mia_loss"]), rtol=1e-5)


def test_a_lesson_of_falsehoods_tells_no_truth() -> None:
    from unlearnkit.metaevaluation.known import falsified

    problem = uk.load_problem("authors", oracles=1)
    false = falsified(problem)["forget"]
    assert [qa.id for qa in false] == [qa.id for qa in problem.direct("forget")]
    assert not any(qa.value in qa.answer for qa in false)
    assert problem.splits["forget"][0].value in problem.splits["forget"][0].answer


def test_a_pool_of_pipelines(monkeypatch: pytest.MonkeyPatch) -> None:
    from unlearnkit.metaevaluation import Known, known, measuring, pool_of

    whole = uk.load_problem("digits", "seven", oracles=2)
    problem = dataclasses.replace(whole, oracles=whole.oracles[:1], measured={})
    models = [
        Known("hides", "renamed", "original", lambda: known.renamed(problem, problem.original, 0)),
        Known("ignorant", "retrained", "retrained", whole.oracles[1].get),
    ]
    monkeypatch.setattr(measuring, "STEPS", 1)
    found = pool_of(problem, models, limit=12, progress=False)
    values = found.values(["ua"]).set_index(["model", "attack"])["value"]
    assert values["reference 0: original", ""] < 0.3  # it draws sevens
    assert values["renamed", ""] > 0.7 < values["retrained", ""]  # the word no longer does
    plain, *attacked = [e for e in found.entries if e.model == "renamed"]
    assert np.nanmean(plain.items["retain"]["correct"]) > 0.6  # the other words do
    assert [(e.attack, set(e.items)) for e in attacked] == [("relearn", {"forget"}), ("quantize", {"forget"})]
    assert not any("picture" in table for e in found.entries for table in e.items.values())
    assert next(iter(found.unshown.values())).any()


def test_pipelines_are_taught_the_concept_or_another_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from unlearnkit.metaevaluation import known

    problem, lessons = uk.load_problem("digits", "seven", oracles=1), []

    def told(problem: Any, *_: Any, **__: Any) -> Any:
        lessons.append(problem.splits["retain"])
        raise InterruptedError

    monkeypatch.setattr("unlearnkit.unlearning.unlearn", told)
    for true in (True, False):
        with pytest.raises(InterruptedError):
            known.taught_pictures(problem, problem.oracles[0], 0, true)
    (domain,) = problem.concept
    for pictures, shown in zip(lessons, (problem.word, problem.anchor), strict=True):
        named = {pictures.labels[domain][i] for i, c in enumerate(pictures.captions) if problem.word in c.split()}
        assert named == {shown}


# ——— what ships ———


@pytest.mark.parametrize("branch", ["text", "image"])
def test_the_shipped_table_follows_from_the_shipped_pool(branch: str) -> None:
    shipped, found = read_table(branch), read_pool(branch)
    least = found.counts().groupby(level="attack").sum().loc["as it is", ["knows", "ignorant"]]
    assert (least >= 8).all()
    chosen = list(shipped.index[shipped["auc"].notna()])[::6]
    again = uk.meta_evaluate(chosen, found)
    columns = [c for c in again if c != "why"]
    pd.testing.assert_frame_equal(again[columns].astype(float), shipped.loc[chosen, columns].astype(float), atol=1e-3)
    assert set(shipped.index) == set(found.metrics())
