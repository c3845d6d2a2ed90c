"""The leaderboard: numbers by hand, no place for ruin, rankings that depend on what is asked, the same code for all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import unlearnkit as uk
from unlearnkit import benchmark
from unlearnkit.benchmark.boards import as_table, boards_of_runs
from unlearnkit.benchmark.digests import case_digests, rows_digest
from unlearnkit.benchmark.rows import CASE
from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods import METHODS

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "llama32_1b_tofu_forget10_152_models.csv"
F, U = benchmark.AXES["text"]


def number(
    method: str, seed: int, key: str, value: float, original: float, oracle: float, **more: Any
) -> dict[str, Any]:
    row = {"branch": "text", "world": "w", "forget": "f", "method": method, "seed": seed, "key": key, "value": value}
    row |= {
        "original": original,
        "oracle": oracle,
        "gap": abs(value - oracle) / abs(original - oracle),
        "n": 40,
        "why": "",
    }
    return {**row, "relative": value / original if original else math.nan, **more}


def rows_of(
    method: str, gaps: list[float], share: float = 1.0, back: float = 0.2, seconds: float = 5.0
) -> list[dict[str, Any]]:
    """A method whose forget metric goes from 1 (original) to 0.1 (oracle); a seed a gap."""
    out = []
    for seed, gap in enumerate(gaps):
        out.append(number(method, seed, F, 0.1 + 0.9 * gap, 1.0, 0.1, floor=0.05))
        out.append(number(method, seed, U, 0.6 * share, 0.6, 0.59, gap=math.nan))
        out.append(number(method, seed, "relearn_accuracy", 0.2 + 0.6 * back, 0.8, 0.2, before=0.0))
        out.append(number(method, seed, "quantize_accuracy", 0.1, 0.9, 0.1, before=0.1))
        out.append(
            {
                **number(method, seed, "seconds", seconds, 1, 0),
                "original": math.nan,
                "oracle": math.nan,
                "gap": math.nan,
            }
        )
    return out


def table(*parts: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([row for part in parts for row in part])


def test_means_and_intervals_by_hand() -> None:
    board = uk.leaderboard(table(rows_of("a", [0.1, 0.2, 0.3], 0.95), rows_of("oracle", [0.02, 0.04], seconds=100.0)))
    row = board.loc["a"]
    half = 4.302652729911275 * 0.1 / math.sqrt(3)  # Student's t, two degrees of freedom
    assert (row["gap"], row["gap_low"], row["gap_high"]) == pytest.approx((0.2, 0.2 - half, 0.2 + half))
    assert row[["utility", "utility_low", "utility_high"]].tolist() == pytest.approx([0.95, 0.95, 0.95])
    assert (row["recovered_relearn"], row["recovered_quantize"], row["recovered"]) == pytest.approx((0.2, 0.0, 0.2))
    assert (row["cost_ratio"], row["seeds"], row["items"], row["floor"]) == pytest.approx((0.05, 3, 40, 0.05))
    assert row[F] == pytest.approx(0.28) and row[f"{F}_gap"] == pytest.approx(0.2)
    one = uk.leaderboard(table(rows_of("a", [0.1]))).loc["a"]
    assert math.isnan(one["gap_low"]) and math.isnan(one["gap_high"]) and one["seeds"] == 1


def test_settings_of_one_seed_are_entrants_and_not_seeds() -> None:
    weak = [{**row, "settings": '{"steps": 40, "scale": 0.1}'} for row in rows_of("a", [0.6], back=0.9)]
    strong = [{**row, "settings": '{"steps": 40, "scale": 1.0}'} for row in rows_of("a", [0.2], share=0.5)]
    seeds = [{**row, "settings": f'{{"draw": {row["seed"]}}}'} for row in rows_of("b", [0.1, 0.3])]
    board = uk.leaderboard(table(weak, strong, seeds, rows_of("oracle", [0.02])))
    assert set(board.index) == {"a (scale 0.1)", "a (scale 1.0)", "b", "oracle"}
    one = board.loc["a (scale 0.1)"]
    assert (one["gap"], one["recovered"], one["seeds"]) == pytest.approx((0.6, 0.9, 1)) and math.isnan(one["gap_low"])
    assert board.loc["a (scale 1.0)", "usable"] is False and bool(one["usable"])  # no mean of a ruined and a weak one
    assert board.loc["b", "seeds"] == 2 and board.loc["b", "gap"] == pytest.approx(0.2)


def test_seeds_on_both_sides_of_the_oracle_do_not_cancel() -> None:
    rows = table(
        [number("a", s, F, v, 1.0, 0.5) for s, v in enumerate((0.25, 0.75))],
        [number("a", s, U, 1, 1, 0) for s in (0, 1)],
    )
    assert uk.leaderboard(rows).loc["a", "gap"] == pytest.approx(0.5)  # the mean value is the oracle's


def test_the_measure_that_shows_most_says_what_came_back() -> None:
    rows = rows_of("guard", [0.3, 0.3], back=0.0)  # no right answer is spoken after the attack, but they are likely
    rows += [number("guard", s, "relearn_nll", v, 0.1, 2.1, before=2.5) for s, v in enumerate((0.6, 0.9))]
    rows += [number("guard", s, "relearn_option_accuracy", 0.3, 1.0, 0.4, before=0.3) for s in (0, 1)]
    board = uk.leaderboard(table(rows))
    assert board.loc["guard", "recovered_relearn"] == board.loc["guard", "recovered"] == pytest.approx((0.75 + 0.6) / 2)


def test_ruin_does_not_lead_and_is_shown_as_such() -> None:
    board = uk.leaderboard(
        table(rows_of("ruin", [0.06, 0.06], 0.2), rows_of("fair", [0.4, 0.4], 0.95), rows_of("oracle", [0.02]))
    )
    assert board.loc["fair", "rank"] == 1 and board.loc["ruin", "rank"] == 2 and not board.loc["ruin", "usable"]
    assert board.loc["ruin", "rank_gap"] == 1 and list(board.index) == ["fair", "ruin", "oracle"]
    shown = benchmark.compact(board)["place"]
    assert shown["ruin"] == "fails the bar" and shown["oracle"] == "target" and shown["fair"].startswith("1")
    lower = uk.leaderboard(table(rows_of("ruin", [0.06], 0.2), rows_of("fair", [0.4], 0.95)), bar=0.1)
    assert lower.loc["ruin", "rank"] == 1


def test_below_the_noise_floor_nobody_is_better() -> None:
    board = uk.leaderboard(table(rows_of("a", [0.01, 0.02]), rows_of("b", [0.04, 0.05]), rows_of("c", [0.5, 0.6])))
    assert board["rank"].to_dict() == {"a": 1, "b": 1, "c": 3}
    assert (board.loc["c", "rank_low"], board.loc["c", "rank_high"]) == (1, 3)  # two seeds settle little


def test_the_places_that_intervals_leave_open() -> None:
    board = uk.leaderboard(
        table(rows_of("a", [0.1, 0.11, 0.12]), rows_of("b", [0.1, 0.13, 0.16]), rows_of("c", [0.8, 0.81, 0.82]))
    )
    assert board[["rank_low", "rank_high"]].loc[["a", "b"]].to_numpy().tolist() == [[1, 2], [1, 2]]
    assert tuple(board.loc["c", ["rank", "rank_low", "rank_high"]]) == (3, 3, 3)


def test_what_is_not_measurable_has_no_place_and_says_why() -> None:
    refused = {"branch": "text", "world": "w", "forget": "f", "method": "in_context", "seed": 0, "key": "refused",
               "value": math.nan, "why": "not measurable: it follows no instruction"}  # fmt: skip
    half = rows_of("half", [0.1, 0.2])
    half[0] |= {"gap": math.nan, "value": math.nan, "why": "not measurable: diverged"}  # one seed of two
    board = uk.leaderboard(table(rows_of("a", [0.3]), [refused], half))
    assert board["rank"].notna().to_dict() == {"a": True, "in_context": False, "half": False}
    assert "follows no instruction" in board.loc["in_context", "why"] and "diverged" in board.loc["half", "why"]
    assert benchmark.compact(board).loc["in_context", "place"] == "not measurable"
    ranks = uk.rankings(board)
    assert (
        ranks.loc[["in_context", "half"], ["forgetting", "mean rank", "pareto layer", "equal utility"]]
        .isna()
        .all(axis=None)
    )


@pytest.mark.parametrize(
    ("by", "first"),
    [
        ("gap", "a"),
        ("utility", "b"),
        ("recovered", "c"),
        ("seconds", "c"),
        (F, "a"),
        ("rank", "a"),
        ("rank_utility", "b"),
    ],
)
def test_any_column_sorts(by: str, first: str) -> None:
    rows = table(rows_of("a", [0.1], 0.92, 0.5, 7), rows_of("b", [0.5], 1.0, 0.9, 9), rows_of("c", [0.7], 0.91, 0.1, 1))
    assert uk.leaderboard(rows, by=by).index[0] == first
    assert uk.leaderboard(rows, by=by, ascending=True).index[0] == uk.leaderboard(rows)[by].idxmin()


def test_what_can_not_be_compared_is_refused() -> None:
    rows = table(rows_of("a", [0.1]))
    with pytest.raises(UnlearnkitError, match=r"several values of world \(w, other\).*rows\['world'\] == 'w'"):
        uk.leaderboard(pd.concat([rows, rows.assign(world="other")]))
    with pytest.raises(UnlearnkitError, match="'gapp' is unknown.*Did you mean 'gap'"):
        uk.leaderboard(rows, by="gapp")
    with pytest.raises(UnlearnkitError, match="key 'forget_ks' is unknown"):
        uk.leaderboard(rows, forgetting="forget_ks")
    with pytest.raises(UnlearnkitError, match="bar = 2 is not possible"):
        uk.leaderboard(rows, bar=2)
    with pytest.raises(UnlearnkitError, match="no rows"):
        uk.leaderboard(rows.iloc[:0])
    with pytest.raises(UnlearnkitError, match="no column 'key'"):
        uk.leaderboard(rows.drop(columns="key"))
    with pytest.raises(UnlearnkitError, match="aggregate 'mean' is unknown"):
        uk.rankings(uk.leaderboard(rows), ["mean"])
    with pytest.raises(UnlearnkitError, match="no column 'gap'"):
        uk.rankings(rows.drop(columns="gap"))


def test_rankings_by_hand_and_how_they_flip() -> None:
    board = uk.leaderboard(table(
        rows_of("far", [0.1], 0.70, 0.9), rows_of("mild", [0.6], 0.99, 0.3), rows_of("mid", [0.3], 0.95, 0.5),
        rows_of("worse", [0.7], 0.94, 0.6), rows_of("oracle", [0.02]),
    ))  # fmt: skip
    ranks = uk.rankings(board)
    assert "oracle" not in ranks.index
    assert ranks["forgetting"].to_dict() == {"far": 1, "mid": 2, "mild": 3, "worse": 4}
    assert ranks["utility"].to_dict() == {"mild": 1, "mid": 2, "worse": 3, "far": 4}
    assert ranks["robustness"].to_dict() == {"mild": 1, "mid": 2, "worse": 3, "far": 4}
    assert ranks["mean rank"].to_dict() == {"mild": 1, "mid": 2, "far": 3, "worse": 4}  # 5/3, 2, 3, 10/3
    assert ranks["worst rank"].to_dict() == {"mid": 1, "mild": 2, "far": 3, "worse": 3}
    assert ranks["pareto layer"].to_dict() == {"far": 1, "mid": 1, "mild": 1, "worse": 4}  # only worse is dominated
    assert ranks["equal utility"].to_dict() == {"mid": 1, "mild": 2, "worse": 3, "far": 4}
    own = uk.rankings(board, {"gap and time": lambda b: b["gap"] + b["seconds"]})
    assert list(own.columns) == ["gap and time"] and own.index[0] == "far"
    pairs = {(f["a"], f["b"]) for f in benchmark.flips(ranks)}
    assert ("far", "mid") in pairs and ("mid", "worse") not in pairs
    tau = benchmark.agreement(ranks)
    assert tau.loc["utility", "robustness"] == 1 and tau.loc["forgetting", "utility"] < 0


def test_digests_see_a_changed_number_and_survive_csv_and_order(tmp_path: Path) -> None:
    rows = table(rows_of("a", [0.1, 0.2]), rows_of("b", [0.123456]))
    rows.to_csv(tmp_path / "rows.csv", index=False)
    again = benchmark.read_rows(tmp_path / "rows.csv")
    assert rows_digest(again) == rows_digest(rows) == rows_digest(rows.iloc[::-1])
    changed = rows.copy()
    changed.loc[0, "value"] += 1e-6
    assert rows_digest(changed) != rows_digest(rows)
    assert (case_digests(changed) != case_digests(rows)).sum() == 5  # the rows of that model alone
    with pytest.raises(UnlearnkitError, match="can't be read as rows of a benchmark"):
        benchmark.read_rows(tmp_path / "none.csv")


def run_folder(root: Path, notebook: str, digest: str, scores: pd.DataFrame, **values: Any) -> None:
    folder = root / notebook / digest
    folder.mkdir(parents=True)
    values = {"profile": "quick", "seed": 0, "world": "authors", "forget": "forget10", **values}
    config = {
        "notebook": notebook,
        "profile": values["profile"],
        "seed": values["seed"],
        "values": values,
        "versions": {},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "status.json").write_text(
        json.dumps({"state": "complete", "started": f"2026-01-01 {digest}", "seconds": 1.0})
    )
    scores.to_csv(folder / "scores.csv", index=False)


def scores_of(method: str, gap: float, share: float = 1.0, **marks: Any) -> pd.DataFrame:
    """What a notebook keeps of `evaluate`."""
    one = table(rows_of(method, [gap], share))
    one = (
        one[one["key"].isin([F, U])].rename(columns={"value": "unlearned"}).drop(columns=["branch", "world", "forget"])
    )
    return one.assign(split="forget", seeds=1, **marks)


def test_boards_come_from_run_folders_and_pool_seeds_only(tmp_path: Path) -> None:
    for seed, gap in enumerate((0.2, 0.3)):
        scores = pd.concat([scores_of("npo", gap, seed=seed), scores_of("rmu", 0.5, seed=seed)])
        run_folder(tmp_path, "02_llm_unlearning", f"run{seed}", scores, seed=seed, methods="npo,rmu")
    run_folder(tmp_path, "02_llm_unlearning", "other", scores_of("npo", 0.9, seed=0), steps=5)
    walk = pd.concat([scores_of("npo", g, seed=0, step=s, balance="sum") for s, g in ((10, 0.8), (20, 0.4))])
    run_folder(
        tmp_path, "07_tradeoff", "front", pd.concat([walk, scores_of("npo", 0.1, seed=0, step=20, balance="mgda")])
    )
    boards = boards_of_runs(benchmark.rows_of_runs(tmp_path))
    assert [b.runs for b in boards] == [("run0", "run1"), ("other",), ("front",)]
    assert boards[0].table.loc["npo", "gap"] == pytest.approx(0.25) and boards[0].table.loc["npo", "seeds"] == 2
    assert boards[1].table.loc["npo", "gap"] == pytest.approx(0.9)  # other parameters are another board
    assert boards[2].table.loc["npo", "gap"] == pytest.approx(0.4)  # the last step, and no balance but the sum
    whole = as_table(boards)
    assert len(whole) == 4 and set(whole["runs"]) == {"run0 run1", "other", "front"}


def test_a_method_of_ones_own_is_measured_and_stands_in_the_table(small_problem: Any) -> None:
    @uk.register_method("shy_ascent")
    class ShyAscent(METHODS["text"]["grad_diff"]):  # type: ignore[misc]
        """Ascent, at a tenth."""

        gamma: float = 0.1

    try:
        made = [uk.unlearn(small_problem, "shy_ascent", steps=3, lr=1e-2, seed=s, progress=False) for s in (0, 1)]
        keys = ["retain_answer_nll", "retain_probability", "forget_answer_nll"]
        rows = uk.benchmark_rows(small_problem, {"shy_ascent": made}, metrics=keys, limit=12)
        assert set(rows["key"]) >= {*keys, "relearn_nll", "quantize_nll", "relearn_accuracy", "seconds", "steps"}
        assert rows.groupby("seed").size().nunique() == 1 and set(rows["seed"]) == {0, 1}
        at = rows[rows["seed"] == 1].set_index("key")
        assert "too few" in at.loc["forget_answer_nll", "why"]  # three questions are no measurement
        alone = uk.evaluate(small_problem, made[1], keys, limit=12)
        for key, column in (("retain_answer_nll", "value"), ("retain_probability", "value")):
            assert at.loc[key, column] == pytest.approx(alone.loc[key, "unlearned"], rel=1e-5)
            assert at.loc[key, "relative"] == pytest.approx(alone.loc[key, "relative"], rel=1e-5)
        curve = uk.attack(small_problem, made[1], "relearn")
        curve = curve[curve["measure"] == "nll"].pivot(index="budget", columns="who", values="value")
        row = at.loc["relearn_nll"]
        mine, first = curve.loc[row["budget"]], curve.loc[0]
        found = row[["value", "before", "original", "oracle"]].astype(float).tolist()
        assert found == pytest.approx(
            [mine["unlearned"], first["unlearned"], mine["original"], mine["oracle"]], rel=1e-5
        )
        board = uk.leaderboard(rows, forgetting="relearn_nll", utility="retain_probability", bar=0.0)
        assert board.loc["shy_ascent", "seeds"] == 2 and board.loc["shy_ascent", "utility"] > 0
        assert (
            board.loc["shy_ascent", "gap_low"] <= board.loc["shy_ascent", "gap"] <= board.loc["shy_ascent", "gap_high"]
        )
        assert uk.method_card("text", "shy_ascent", board=board).reached["seeds"] == 2
    finally:
        del METHODS["text"]["shy_ascent"]
    refused = uk.benchmark_rows(
        small_problem, {"in_context": UnlearnkitError("it follows no instruction")}, oracles=False
    )
    assert refused["why"].tolist() == ["not measurable: it follows no instruction"]
    with pytest.raises(UnlearnkitError, match="nothing to measure"):
        uk.benchmark_rows(small_problem, {})


def test_the_bench_goes_on_where_it_was_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unlearnkit.bench import leaderboard as bench

    asked: list[tuple[str, int]] = []

    def unlearn(problem: Any, name: str, *, seed: int, **_: Any) -> Any:
        asked.append((name, seed))
        if name == "in_context":
            raise UnlearnkitError("it follows no instruction")
        return SimpleNamespace(cost={})

    def measured(problem: Any, given: dict[str, Any], **_: Any) -> pd.DataFrame:
        ((name, one),) = given.items()
        if isinstance(one, UnlearnkitError):
            return benchmark.benchmark_rows(
                SimpleNamespace(modality="text", name="w", request="f"), given, oracles=False
            )
        rows = table(rows_of(name, [0.2] * (len(one) if isinstance(one, list) else 1)))
        return rows[rows["key"] != "seconds"] if name == "oracle" else rows

    few = {name: METHODS["text"][name] for name in ("npo", "in_context", "oracle")}
    monkeypatch.setitem(bench.METHODS, "text", few)
    oracle = SimpleNamespace(get=lambda: None)
    monkeypatch.setattr(bench, "load_problem", lambda *_, **__: SimpleNamespace(modality="text", oracles=[oracle] * 3))
    monkeypatch.setattr(bench, "unlearn", unlearn)
    monkeypatch.setattr(bench, "benchmark_rows", measured)
    monkeypatch.setattr(bench, "_oracle_build", lambda branch: lambda folder, force: None)
    out = tmp_path / "board.csv"
    bench.main("text", 2, out, minutes=0)
    assert not out.exists() and asked == []  # nothing new is begun after no minutes
    bench.main("text", 1, out)
    assert asked == [("npo", 0), ("in_context", 0)]
    bench.main("text", 2, out)
    assert asked[2:] == [("npo", 1), ("in_context", 1)]
    bench.main("text", 2, out)
    assert len(asked) == 4  # what is there is not measured again
    rows = benchmark.read_rows(out)
    assert (rows["digest"] == case_digests(rows)).all() and not rows.duplicated([*CASE, "key"]).any()
    assert set(rows["method"]) == set(few) and rows[rows["method"] == "oracle"]["key"].tolist().count("seconds") == 1
    assert uk.leaderboard(rows).loc["in_context", "why"] == "not measurable: it follows no instruction"
    bench.main("text", 3, out, methods=["npo"])
    assert asked[4:] == [("npo", 2)]
    with pytest.raises(UnlearnkitError, match="branch 'audio' is unknown"):
        bench.main("audio")
    (tmp_path / "file").touch()
    with pytest.raises(UnlearnkitError, match="file"):
        bench.main("text", 3, tmp_path / "file" / "board.csv", methods=["npo"])
    assert len(asked) == 5  # it was told before any work
    monkeypatch.undo()
    with pytest.raises(UnlearnkitError, match="method 'nppo' is unknown"):
        bench.main("text", out=out, methods=["nppo"])


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the reference data (152 models) is not beside this checkout")
def test_published_models_by_the_same_code() -> None:
    models = pd.read_csv(REFERENCE)
    rows = benchmark.rows_of_models(models)
    board = uk.leaderboard(rows, forgetting="uds", utility="utility")
    assert board["seeds"].sum() == 150 and len(board) == 8
    npo = models[models["method"] == "npo"]
    full, retain = (models[models["method"] == name].iloc[0] for name in ("full", "retain"))
    assert board.loc["npo", "gap"] == pytest.approx(
        (npo["uds"] - retain["uds"]).abs().mean() / abs(full["uds"] - retain["uds"])
    )
    assert board.loc["npo", "utility"] == pytest.approx((npo["utility"] / full["utility"]).mean())
    ranks = uk.rankings(board)
    assert ranks["robustness"].isna().all() and ranks["mean rank"].notna().all()  # what all lack counts for nobody
    assert ranks["forgetting"].idxmin() == "graddiff" and ranks["equal utility"].idxmin() == "npo"  # the order flips
    with pytest.raises(UnlearnkitError, match="0 rows with method 'base'"):
        benchmark.rows_of_models(models, original="base")


@pytest.mark.parametrize("branch", ["text", "image"])
def test_the_shipped_tables_are_whole_and_unchanged(branch: str) -> None:
    rows = benchmark.measured(branch)
    assert (rows["digest"] == case_digests(rows)).all()
    wanted = set(METHODS[branch])
    assert set(rows["method"]) == wanted, wanted ^ set(rows["method"])
    seeds = rows[rows["method"] != "oracle"].groupby("method")["seed"].nunique()
    assert set(seeds) == {3}, f"not as many seeds as the others: {seeds.idxmin()}"
    assert not rows.duplicated([*CASE, "key"]).any() and rows["versions"].str.contains("torch").all()
    board = uk.leaderboard(rows)
    assert board.loc["oracle", "seconds"] > board["seconds"].drop("oracle").max()  # of retraining
    assert board["rank"].notna().sum() > len(board) / 2 and np.isfinite(board["floor"].dropna()).all()
