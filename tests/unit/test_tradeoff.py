"""Fronts, attainment, points and tables at equal utility: hand-computed values, and moocore's on known sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnkit import tradeoff
from unlearnkit.errors import UnlearnkitError
from unlearnkit.paths import data_dir
from unlearnkit.runs.record import read_runs

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "llama32_1b_tofu_forget10_152_models.csv"
STAIRS = np.array([[0.0, 1.0], [0.5, 0.75], [0.75, 0.25], [0.25, 0.5], [1.0, 0.0]])  # the fourth is dominated
clouds = st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1.2)), min_size=1, max_size=25).map(np.array)


def frame(array: Any, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame(array, columns=tradeoff.AXES).assign(**columns)


def test_front_and_hypervolume_by_hand() -> None:
    assert tradeoff.nondominated(STAIRS).tolist() == [True, True, True, False, True]
    assert tradeoff.front(STAIRS).tolist() == STAIRS[[0, 1, 2, 4]].tolist()
    assert tradeoff.hypervolume(STAIRS) == pytest.approx(0.5 * 0.75 + 0.25 * 0.25)  # two steps above (0, 0)
    assert tradeoff.hypervolume(STAIRS, (0.5, 0.0)) == pytest.approx(0.25 * 0.25)
    assert tradeoff.hypervolume([[-0.5, 1.0]]) == 0.0  # worse than the original adds nothing
    assert tradeoff.nondominated([[1.0, 1.0], [1.0, 1.0]]).tolist() == [True, False]


def test_distances_to_a_front_by_hand() -> None:
    goal = [[0.5, 1.0], [1.0, 0.5]]
    mine = [[0.5, 0.75], [0.75, 0.5]]
    # each goal point is missed by a quarter on one axis; more than asked for on the other counts nothing
    assert tradeoff.igd_plus(mine, goal) == pytest.approx(0.25)
    assert tradeoff.epsilon(mine, goal) == pytest.approx(0.25)
    assert tradeoff.igd_plus([[2.0, 2.0]], goal) == 0.0 and tradeoff.epsilon([[2.0, 2.0]], goal) == pytest.approx(-1.0)
    assert tradeoff.igd_plus([[0.2, 0.6]], goal) == pytest.approx((np.hypot(0.3, 0.4) + 0.8) / 2)


@given(clouds, clouds)
def test_the_numbers_are_those_of_their_definitions(points: np.ndarray, goal: np.ndarray) -> None:
    """Against the definitions written out, for any cloud."""
    gaps = np.maximum(goal[:, None] - points[None], 0)  # (goal, points, 2): what each point lacks
    assert tradeoff.igd_plus(points, goal) == pytest.approx(np.sqrt((gaps**2).sum(2)).min(1).mean(), abs=1e-12)
    lacking = (goal[:, None] - points[None]).max(2).min(1).max()
    assert tradeoff.epsilon(points, goal) == pytest.approx(lacking, abs=1e-12)
    area, right = 0.0, 0.0
    for x, y in sorted(
        points.tolist(), key=lambda p: (-p[1], -p[0])
    ):  # from the top: each adds what lies further right
        if x > right and y > 0:
            area, right = area + (x - right) * y, x
    assert tradeoff.hypervolume(points) == pytest.approx(area, abs=1e-12)
    beaten = [any((q >= p).all() and (q > p).any() for q in points) for p in points]
    kept = {tuple(p) for p, b in zip(points.tolist(), beaten, strict=True) if not b}
    assert {tuple(p) for p in tradeoff.front(points).tolist()} == kept


def test_known_sets_of_moocore() -> None:
    """Sets that moocore publishes with their indicators; they are minimised, so both signs are turned."""
    dat = -np.array([[3.5, 5.5], [3.6, 4.1], [4.1, 3.2], [5.5, 1.5]])
    ref = -np.array([[1, 6], [2, 5], [3, 4], [4, 3], [5, 2], [6, 1]])
    assert tradeoff.igd_plus(dat, ref) == pytest.approx(0.9855036468106652)
    assert tradeoff.epsilon(dat, ref) == pytest.approx(2.5)
    assert tradeoff.hypervolume([[-5, -5], [-4, -6], [-2, -7], [-7, -4]], (-10, -10)) == pytest.approx(38.0)
    sets = moocore.get_dataset("input1.dat")
    for share, percentile in ((0.5, 50), (1.0, 100), (0.1, 10)):
        wanted = moocore.eaf(sets[:, :2], sets[:, 2], percentiles=[percentile])[:, :2]
        shuffled = np.random.default_rng(0).permutation(len(sets))  # the order of the points must not matter
        found = tradeoff.attainment(-sets[shuffled, :2], sets[shuffled, 2], share)
        np.testing.assert_allclose(-found, wanted[np.argsort(-wanted[:, 0])])


def test_knee_by_hand() -> None:
    front = np.array([[0.0, 10.0], [0.2, 9.0], [0.5, 8.0], [0.9, 2.0], [1.0, 0.0]])
    # scaled: (0,1) (.2,.9) (.5,.8) (.9,.2) (1,0); beyond the chord x + y = 1 by .1, .3, .1
    assert tradeoff.knee(front) == 2
    assert tradeoff.knee(front[[3, 2, 0, 4]]) == 1  # a row of the points given, whatever their order
    assert tradeoff.knee(front[:2]) is None
    assert tradeoff.knee([[0, 1.0], [0.4, 0.4], [1, 0]]) is None  # bends inwards


def test_attainment_by_hand() -> None:
    points = [[0.0, 3.0], [2.0, 1.0], [1.0, 2.0], [3.0, 0.0], [0.0, 4.0]]
    runs = ["a", "a", "b", "b", "c"]
    assert tradeoff.attainment(points, runs, 0.5).tolist() == [[0.0, 3.0], [1.0, 1.0], [2.0, 0.0]]  # two of three
    assert tradeoff.attainment(points, runs, 2 / 3).tolist() == [[0.0, 3.0], [1.0, 1.0], [2.0, 0.0]]
    assert tradeoff.attainment(points, runs, 1.0).tolist() == [[0.0, 2.0]]
    assert tradeoff.attainment(points, runs, 1 / 3).tolist() == tradeoff.front(points).tolist()
    assert tradeoff.attained(points, runs, (0.0, 2.0)) == 1.0 and tradeoff.attained(points, runs, (1.0, 1.0)) == 2 / 3
    assert tradeoff.attained(points, runs, (1.0, 1.5)) == 1 / 3 and tradeoff.attained(points, runs, (3.0, 3.0)) == 0.0


@given(clouds, st.integers(1, 5))
def test_a_point_of_a_surface_is_attained_by_that_share(points: np.ndarray, count: int) -> None:
    runs = np.arange(len(points)) % count
    for share in (0.5, 1.0):
        surface = tradeoff.attainment(points, runs, share)
        assert all(tradeoff.attained(points, runs, p) >= share for p in surface)
        assert len(tradeoff.front(surface)) == len(surface)
        assert all(tradeoff.attained(points, runs, p) < share for p in surface + 1e-9)


def test_bad_points_are_refused() -> None:
    with pytest.raises(UnlearnkitError, match="shape \\(3,\\).*give \\(n, 2\\)"):
        tradeoff.front([1.0, 2.0, 3.0])
    with pytest.raises(UnlearnkitError, match="1 of 2 points are not measurable"):
        tradeoff.hypervolume([[1.0, np.nan], [0.0, 0.0]])
    with pytest.raises(UnlearnkitError, match="no column 'utility'"):
        tradeoff.front(pd.DataFrame({"forgetting": [1.0]}))
    with pytest.raises(UnlearnkitError, match="share = 0 is not possible"):
        tradeoff.attainment([[1.0, 1.0]], [0], 0)
    with pytest.raises(UnlearnkitError, match="2 points need as many runs"):
        tradeoff.attainment([[1.0, 1.0], [2.0, 2.0]], [0])


def test_indicators_a_row_a_group_and_what_is_missing() -> None:
    points = pd.concat([frame(STAIRS, method="a", seed=0), frame([[0.5, 0.5], [np.nan, 1.0]], method="b", seed=0)])
    table = tradeoff.indicators(points.reset_index(drop=True))
    assert table.loc["a", ["points", "missing", "front"]].tolist() == [5, 0, 4]
    assert table.loc["b", ["points", "missing", "front"]].tolist() == [1, 1, 1]
    assert table.loc["b", "hypervolume"] == pytest.approx(0.25) and table.loc["a", "igd_plus"] == 0.0
    assert table.loc["a", ["knee_forgetting", "knee_utility"]].tolist() == [0.5, 0.75]
    assert tradeoff.indicators(points.reset_index(drop=True), ["method", "seed"]).index.tolist() == [("a", 0), ("b", 0)]


def test_target_is_the_oracles_with_their_noise() -> None:
    points = frame([[1.0, 0.96], [0.9, 1.0], [0.3, 0.99]], method=["oracle", "oracle", "npo"])
    target = tradeoff.target(points)
    assert (target.forgetting, target.utility) == (1.0, pytest.approx(0.98))
    assert target.corner == pytest.approx((0.9, 0.96))
    runs = [0, 1, 1, 2]
    near = [[0.95, 0.97], [0.85, 1.0], [0.95, 0.9], [0.91, 0.96]]
    assert tradeoff.attained(near, runs, target) == pytest.approx(2 / 3)
    with pytest.raises(UnlearnkitError, match="needs two retrained models, and 1"):
        tradeoff.target(points.iloc[1:])


def evaluated(gap: float, utility: float, why: str = "") -> pd.DataFrame:
    """What `evaluate` returns, two rows of it."""
    forget = {"original": 0.9, "oracle": 0.1, "gap": gap, "gap_low": gap - 0.1, "gap_high": gap + 0.1, "why": why}
    kept = {"original": 0.8, "unlearned": utility, "low": utility - 0.08, "high": utility + 0.08, "why": ""}
    return pd.DataFrame({"forget_accuracy": forget, "model_utility": {**kept, "relative": utility / 0.8}}).T


def test_a_point_from_a_table_of_evaluate() -> None:
    point = tradeoff.point(evaluated(0.25, 0.6), "forget_accuracy", "model_utility")
    assert point["forgetting"] == 0.75 and point["utility"] == pytest.approx(0.75)
    assert [point[f"forgetting_{end}"] for end in ("low", "high")] == pytest.approx([0.65, 0.85])
    assert [point[f"utility_{end}"] for end in ("low", "high")] == pytest.approx([0.65, 0.85])
    lost = tradeoff.point(evaluated(np.nan, 0.6, "gap not measurable: why"), "forget_accuracy", "model_utility")
    assert np.isnan(lost["forgetting"]) and lost["why"] == "forget_accuracy: gap not measurable: why"
    with pytest.raises(UnlearnkitError, match="metric 'forget_x' is not in the table; it has forget_accuracy"):
        tradeoff.point(evaluated(0.2, 0.6), "forget_x", "model_utility")


def write_run(folder: Path, values: dict[str, Any], scores: list[pd.DataFrame], state: str = "complete") -> None:
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps({"state": state, "started": folder.name}))
    (folder / "config.json").write_text(json.dumps({"notebook": folder.parent.name, "values": values}))
    if scores:
        pd.concat(scores).to_csv(folder / "scores.csv", index=False)


def test_points_come_from_run_folders_alone(tmp_path: Path) -> None:
    def rows(gap: float, utility: float, **marks: Any) -> pd.DataFrame:
        return evaluated(gap, utility).rename_axis("key").reset_index().assign(**marks)

    write_run(tmp_path / "07_x" / "a", {"seed": 1, "steps": 20, "profile": "quick"}, [rows(0.5, 0.8, method="npo")])
    two = [rows(0.2, 0.4, method="npo", seed=s, balance="mgda", step=s * 10) for s in (2, 3)]
    write_run(tmp_path / "07_x" / "b", {"seed": 2, "profile": "quick", "rate": None}, two)
    write_run(tmp_path / "07_x" / "c", {"seed": 9}, [rows(0.2, 0.4, method="npo")], state="failed")
    write_run(tmp_path / "03_y" / "d", {"seed": 0}, [pd.DataFrame({"experiment": [1], "method": ["npo"]})])
    write_run(tmp_path / "03_y" / "e", {"seed": 0}, [])
    points = tradeoff.points(tmp_path, "forget_accuracy", "model_utility")
    assert points["forgetting"].tolist() == pytest.approx([0.5, 0.8, 0.8])
    assert points["utility"].tolist() == pytest.approx([1.0, 0.5, 0.5])
    assert points["seed"].tolist() == [1, 2, 3] and points["balance"].tolist() == ["sum", "mgda", "mgda"]
    assert points["settings"].tolist() == ['{"steps": 20}', "{}", "{}"] and points["step"].tolist()[1:] == [20, 30]
    assert [Path(run).name for run in points["run"]] == ["a", "b", "b"]
    again = tradeoff.points(read_runs(tmp_path, "07_x"), "forget_accuracy", "model_utility")
    pd.testing.assert_frame_equal(points, again)
    with pytest.raises(UnlearnkitError, match="no complete run in the folder .* both mia_loss and model_utility"):
        tradeoff.points(tmp_path, "mia_loss", "model_utility")


def test_forgetting_is_two_sided() -> None:
    found = tradeoff.relative_forgetting([0.9, 0.1, 0.0, 1.7], 0.9, 0.1)
    assert found.tolist() == pytest.approx([0.0, 1.0, 0.875, -1.0])
    with pytest.raises(UnlearnkitError, match="both at 0.5"):
        tradeoff.relative_forgetting(0.5, 0.5, 0.5)


def test_best_forgetting_at_a_utility() -> None:
    points = frame([[0.2, 0.99], [0.6, 0.95], [0.9, 0.6], [0.9, 0.5], [-0.5, 1.0], [np.nan, 1.0]],
                   method=["a", "a", "a", "b", "c", "c"], seed=0, run=list("uvwxyz"))  # fmt: skip
    table = tradeoff.at_utility(points, 0.9).set_index("method")
    assert table["forgetting"].tolist() == [0.6, 0.0, 0.0]  # b keeps too little, c is worse than doing nothing
    assert table["utility"].tolist() == [0.95, 1.0, 1.0] and table["feasible"].tolist() == [2, 0, 1]
    assert table.loc["a", "run"] == "v" and pd.isna(table.loc["b", "run"]) and table["points"].tolist() == [3, 1, 1]
    with pytest.raises(UnlearnkitError, match="share = 1.2 is not possible"):
        tradeoff.at_utility(points, 1.2)


def test_table_at_equal_utility_on_data_with_a_known_answer() -> None:
    draw = np.random.default_rng(0)
    item = draw.normal(0, 5, 40)  # items differ far more than methods: only pairs can tell
    rows = [
        pd.DataFrame({"method": m, "item": range(40), "value": item + shift + draw.normal(0, noise, 40)})
        for m, shift, noise in (("best", 0.0, 0.0), ("same", 0.0, 0.1), ("worse", -0.5, 0.1))
    ]
    values = pd.concat(rows)
    table = tradeoff.compare(values, "value", "item")
    assert table.attrs["against"] in ("best", "same") and table.index[-1] == "worse"
    table = tradeoff.compare(values, "value", "item", against="best")
    worse, same = table.loc["worse"], table.loc["same"]
    assert worse["difference"] == pytest.approx(-0.5, abs=0.06) and worse["difference_high"] < -0.4
    assert worse["p_holm"] < 1e-6 and worse["pairs"] == 40
    assert same["difference_low"] < 0 < same["difference_high"] and same["p_holm"] > 0.05
    assert worse["high"] - worse["low"] > 5 * (worse["difference_high"] - worse["difference_low"])  # unpaired hides it
    assert np.isnan(table.loc["best", "difference"])
    down = tradeoff.compare(values, "value", "item", maximise=False)
    assert down.index[0] == "worse" and down.attrs["against"] == "worse"


def test_what_few_pairs_can_not_say_is_said() -> None:
    values = pd.DataFrame(
        {"method": ["a"] * 5 + ["b"] * 5, "seed": [*range(5)] * 2, "forgetting": [0.9] * 5 + [0.1] * 5}
    )
    row = tradeoff.compare(values).loc["b"]
    assert row["difference"] == pytest.approx(-0.8) and np.isnan(row["p"])
    assert row["why"] == "test not measurable: 5 pairs differ, it needs 6"
    one = tradeoff.compare(values[values["seed"] == 0])
    assert one["low"].isna().all() and "interval not measurable: one pair" in one.loc["a", "why"]
    with pytest.raises(UnlearnkitError, match="several values for one seed"):
        tradeoff.compare(pd.concat([values, values]))
    with pytest.raises(UnlearnkitError, match="no column 'item'"):
        tradeoff.compare(values, pair="item")
    with pytest.raises(UnlearnkitError, match="method 'c' has no value; those that have are a, b"):
        tradeoff.compare(values, against="c")


def test_holm_by_hand() -> None:
    p = pd.Series({"a": 0.01, "b": 0.04, "c": 0.03, "d": np.nan})
    assert tradeoff.holm(p).drop("d").to_dict() == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert np.isnan(tradeoff.holm(p)["d"]) and tradeoff.holm(pd.Series([0.6, 0.7])).tolist() == [1.0, 1.0]


def test_a_trajectory_ends_where_the_run_ends(small_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import unlearnkit as uk

    monkeypatch.setattr("unlearnkit.metrics.table.SMALLEST", 2)  # there are three forgotten records
    settings = {"steps": 5, "batch_size": 4, "lr": 3e-3, "progress": False, "trace_every": 0}
    keys = ["forget_answer_nll", "retain_probability"]
    rows, unlearned = tradeoff.trajectory(small_problem, "npo", keys, every=2, limit=10, seed=3, **settings)
    path = tradeoff.of_scores(rows, *keys)
    assert path["step"].tolist() == [2, 4, 5] and set(path["seed"]) == {3}
    assert set(path["method"]) == {"npo"} and set(path["balance"]) == {"sum"}
    plain = uk.unlearn(small_problem, "npo", seed=3, **settings)
    for p, q in zip(plain.model.parameters(), unlearned.model.parameters(), strict=True):
        assert (p == q).all()
    table = uk.evaluate(small_problem, plain, keys, limit=10, resamples=0)
    assert path["forgetting"].iloc[-1] == pytest.approx(1 - table.loc["forget_answer_nll", "gap"])
    assert path["utility"].iloc[-1] == pytest.approx(table.loc["retain_probability", "relative"])
    assert path["forgetting"].nunique() == 3


def test_an_oracle_is_not_compared_with_itself(small_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import unlearnkit as uk

    monkeypatch.setattr("unlearnkit.metrics.table.SMALLEST", 2)  # there are three forgotten records
    original, oracle = uk.references(small_problem, 10)[0], uk.references(small_problem, 10)[1][0]
    keys = ["forget_ks_statistic", "retain_probability"]
    rows = tradeoff.oracle_scores(small_problem, (original, [oracle, original]), keys)
    assert rows[["seed", "key"]].to_numpy().tolist() == [[0, keys[1]], [1, keys[0]], [1, keys[1]]]
    assert set(rows["method"]) == {"oracle"} and rows["unlearned"].iloc[2] == rows["original"].iloc[2]


PUBLISHED = sorted(path.stem for path in (data_dir() / "published").glob("*.csv"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_figure_has_its_source(name: str) -> None:
    table = tradeoff.published(name)
    assert len(table) and all(isinstance(x, str) and len(x) > 3 for c in ("source", "version") for x in table[c])
    figures = list(table.select_dtypes("number"))
    assert figures and table[figures[0]].notna().all()
    marks = [c for c in table if c not in (*figures, "source", "version")]
    assert not table.duplicated(marks).any()  # no figure typed in twice


def test_published_figures_as_they_were_printed() -> None:
    tofu = tradeoff.published("tofu").set_index(["model", "forget_set", "method", "tuned"])
    row = tofu.loc[("Llama-3.2-1B-Instruct", "forget10", "NPO", "no")]
    assert row[["forget_quality", "model_utility"]].tolist() == [0.02, 0.46]
    canvas = tradeoff.published("unlearncanvas")
    assert canvas[["ua", "ira", "cra"]].min(axis=None) > 30 and len(canvas) == 10
    attack = tradeoff.published("unlearndiffatk")
    assert (attack["success_after"] > attack["success_before"]).all()  # the attack's rate includes the one before
    with pytest.raises(UnlearnkitError, match="published table 'toffu' is unknown.*Did you mean 'tofu'"):
        tradeoff.published("toffu")


def real_models() -> pd.DataFrame:
    """152 real models: forgetting by UDS (1 as in the retrained one), utility relative to the original."""
    models = pd.read_csv(REFERENCE)
    known = models[~models["is_reference"]]
    setting = known["model"].str.replace(r"_lr\d+e\d+", "", regex=True)  # all but the learning rate
    return pd.DataFrame({
        "method": known["method"], "seed": setting, "settings": known["model"], "forgetting": known["uds"],
        "utility": known["utility"] / models.set_index("method").loc["full", "utility"],
    }).reset_index(drop=True)  # fmt: skip


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the reference data (152 models) is not beside this checkout")
def test_front_attainment_and_table_of_real_models() -> None:
    points = real_models()
    assert len(points) == 150
    table = tradeoff.indicators(points)
    assert len(table) == 8 and table["hypervolume"].between(0, 1.05).all() and (table["missing"] == 0).all()
    whole = tradeoff.hypervolume(points)
    assert table["hypervolume"].max() < whole <= table["hypervolume"].sum()
    best = tradeoff.front(points)
    for p in best:
        assert not ((points[tradeoff.AXES] >= p).all(axis=1) & (points[tradeoff.AXES] > p).any(axis=1)).any()
    for method, part in points.groupby("method"):
        areas = [tradeoff.hypervolume(tradeoff.attainment(part, part["seed"], s)) for s in (1e-9, 0.5, 1.0)]
        assert areas[0] == pytest.approx(table.loc[method, "hypervolume"]) and areas[0] >= areas[1] >= areas[2]
    equal = tradeoff.at_utility(points, 0.95)
    found = tradeoff.compare(equal.assign(pair=equal.groupby("method").cumcount()), pair="pair")
    by_hand = points[points["utility"] >= 0.95].groupby(["method", "seed"])["forgetting"].max().groupby("method")
    groups = points.groupby("method")["seed"].nunique()
    for method in found.index:
        reached = by_hand.get_group(method) if method in by_hand.groups else pd.Series(dtype=float)
        assert found.loc[method, "mean"] == pytest.approx(reached.clip(lower=0).sum() / groups[method])
    assert found["mean"].is_monotonic_decreasing and found["why"].notna().all()


def test_bisection_finds_the_crossing_of_a_monotone_curve() -> None:
    calls = []

    def utility(a: float) -> float:
        calls.append(a)
        return 1 - a**2

    a, looks = tradeoff.bisect(utility, 0.75, looks=12)
    assert a <= 0.5 and a == pytest.approx(0.5, abs=2**-11) and len(calls) == 13
    assert looks["a"].is_monotonic_increasing and looks["utility"].iloc[0] == 1.0
    assert tradeoff.bisect(utility, 1.0, looks=4)[0] == 0.0 and tradeoff.bisect(lambda a: 1.1, 0.9)[0] == 1.0
    with pytest.raises(UnlearnkitError, match="share = 1.5 is not possible"):
        tradeoff.bisect(utility, 1.5)
