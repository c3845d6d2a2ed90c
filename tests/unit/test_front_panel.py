"""The front panel without a browser: choices by hand, controls, the still twin, escaping, what is refused."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from test_panels import PAYLOAD, Page

import unlearnkit as uk
from unlearnkit import tradeoff
from unlearnkit.panels.front import says
from unlearnkit.panels.front.source import LAST, choose, narrowed, source_of
from unlearnkit.plots import COLORS
from unlearnkit.plots.front import PLACE, contour_of, places, plot_choice, window

KEYS = ["forget_answer_nll", "retain_probability"]
KNOWN = [  # method, balance, seed, step, forgetting, utility
    ("oracle", "sum", 0, np.nan, 1.0, 1.02),
    ("oracle", "sum", 1, np.nan, 0.9, 1.0),
    ("npo", "sum", 0, 2, 0.3, 0.99),
    ("npo", "sum", 0, 4, 0.6, 0.95),
    ("npo", "sum", 1, 2, 0.4, 0.97),
    ("npo", "sum", 1, 4, 0.95, 0.70),
    ("npo", "mgda", 0, 4, 1.2, 0.8),
    (PAYLOAD, "sum", 0, 4, 0.5, 0.6),
]


def scores() -> pd.DataFrame:
    """Rows of `evaluate` whose points are those of `KNOWN`; the original is at 1 and 0.9, the oracle at 3 and 0.9."""
    rows = []
    for method, balance, seed, step, f, u in KNOWN:
        own = {"method": method, "balance": balance, "seed": seed, "step": step, "settings": '{"lr": 0.1}', "why": ""}
        gap = abs(1 - f)
        rows.append({**own, "key": KEYS[0], "original": 1.0, "oracle": 3.0, "unlearned": 1 + 2 * f, "low": 0.9 + 2 * f,
                     "high": 1.1 + 2 * f, "gap": gap, "gap_low": gap - 0.01, "gap_high": gap + 0.02,
                     "relative": 1 + 2 * f})  # fmt: skip
        rows.append({**own, "key": KEYS[1], "original": 0.9, "oracle": 0.9, "unlearned": 0.9 * u, "low": 0.81 * u,
                     "high": 0.99 * u, "relative": u, "why": "no gap"})  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder that holds these scores, and samples of one model."""
    run = tmp_path / "runs" / "07_tradeoff" / "one"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"notebook": "07_tradeoff", "values": {"seed": 0, "share": 0.9}}))
    (run / "status.json").write_text('{"state": "complete"}')
    scores().to_csv(run / "scores.csv", index=False)
    marks = {"method": "npo", "balance": "sum", "seed": 0, "step": 4, "settings": '{"lr": 0.1}'}
    said = {"split": "forget", "asked": "Who?", "wanted": "Ann", "said": PAYLOAD, "right": False, "picture": np.nan}
    pd.DataFrame([{**marks, **said}]).to_csv(run / "trace-samples.csv", index=False)
    return tmp_path / "runs"


def test_choices_by_hand() -> None:
    points = source_of(scores()).points(*KEYS)
    assert points["forgetting"].tolist() == pytest.approx([1, 0.9, 0.3, 0.6, 0.4, 0.95, 0.8, 0.5])  # 1.2 overshoots
    mine = narrowed(points, list(points["name"])[2:], [0, 1])
    at = lambda index: tuple(mine.loc[index, tradeoff.AXES].round(3))  # noqa: E731
    goal = tradeoff.target(points)
    chosen = choose(mine, goal, 0.9, 0.5, "chebyshev", (0.0, 0.0))
    assert at(chosen.best) == (0.6, 0.95)
    assert at(chosen.preferred) == (0.8, 0.8)  # lacks 0.2 and 0.21 of (1, 1.01); half of that is the least
    assert chosen.level == pytest.approx(-0.105)
    assert chosen.hypervolume == pytest.approx(0.95 * 0.7 + 0.8 * 0.1 + 0.6 * 0.15 + 0.4 * 0.02 + 0.3 * 0.02)
    assert at(choose(mine, goal, 0.65, 0.9, "sum", (0, 0)).best) == (0.95, 0.7)
    assert at(choose(mine, goal, 0.65, 0.9, "sum", (0, 0)).preferred) == (0.95, 0.7)
    assert at(choose(mine, goal, 0.65, 0.0, "sum", (0, 0)).preferred) == (0.3, 0.99)
    assert choose(mine, goal, 1.1, 0.5, "sum", (0, 0)).best is None
    assert len(narrowed(points, ["npo"], [0, 1], LAST)) == 2 and len(narrowed(points, ["npo"], [1], 2)) == 1


def test_a_weighted_sum_never_takes_an_inner_point_of_a_front_that_bends_inwards() -> None:
    points = pd.DataFrame([[0.0, 1.0], [0.45, 0.45], [1.0, 0.0]], columns=tradeoff.AXES)
    weights = np.linspace(0, 1, 21)
    taken = {rule: {tradeoff.preferred(points, w, rule) for w in weights} for rule in tradeoff.RULES}
    assert taken == {"sum": {0, 2}, "chebyshev": {0, 1, 2}}
    with pytest.raises(uk.UnlearnkitError, match="weight = 2 is not possible"):
        tradeoff.preference([[0, 1]], 2)
    with pytest.raises(uk.UnlearnkitError, match="scalarisation 'summ' is unknown.*Did you mean 'sum'"):
        tradeoff.preference([[0, 1]], 0.5, "summ")


@pytest.mark.parametrize("rule", list(tradeoff.RULES))
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_contour_is_liked_as_much_as_its_point(rule: str, weight: float) -> None:
    level = float(tradeoff.preference([[0.6, 0.9]], weight, rule)[0])
    line = contour_of(weight, level, rule, (1.0, 1.0), ((-0.2, 1.0), (0.4, 1.0)))
    assert tradeoff.preference(line, weight, rule) == pytest.approx(level)


def test_directions_of_the_axes() -> None:
    mine = source_of(scores()).points(*KEYS, beyond=True, less=True).iloc[6]
    assert mine["forgetting"] == pytest.approx(1.2) and mine["utility"] == pytest.approx(1 / 0.8)
    assert (mine["forgetting_low"], mine["forgetting_high"]) == pytest.approx((1.15, 1.25))
    assert (mine["utility_low"], mine["utility_high"]) == pytest.approx((1 / (1.1 * 0.8), 1 / (0.9 * 0.8)))
    plain = source_of(scores()).points(*KEYS).iloc[6]
    assert (plain["forgetting_low"], plain["forgetting_high"]) == pytest.approx((0.78, 0.81))


def test_buttons_lie_where_the_points_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(matplotlib.rcParams, "figure.autolayout", True)  # as plots.style() sets it in every notebook
    points = source_of(scores()).points(*KEYS)
    mine, goal = points[points["method"] != "oracle"], tradeoff.target(points)
    figure = uk.front_twin(scores(), forgetting=KEYS[0], utility=KEYS[1])
    figure.draw_without_rendering()
    ax = figure.axes[0]
    wanted = ax.transData.transform(mine[tradeoff.AXES].to_numpy(float)) / figure.bbox.size
    wanted[:, 1] = 1 - wanted[:, 1]
    assert places(mine, window(mine, goal)) == pytest.approx(wanted, abs=1e-6)
    assert ax.get_position().bounds == pytest.approx(PLACE)


def test_the_twin_says_what_was_chosen_and_draws_the_oracle(folder: Path) -> None:
    figure = uk.front_twin(folder, forgetting=KEYS[0], utility=KEYS[1], share=0.9)
    said = " ".join(figure.texts[0].get_text().split())
    assert "3 of 6 models keep 90%" in said and "npo, seed 0, step 4, lr 0.1 (forgetting 0.600, utility 0.950)" in said
    assert "Hypervolume above (0, 0): 0.849." in said and "forgetting 1 ± 0.10, utility 1.01 ± 0.01" in said
    (region,) = figure.axes[0].patches[:1]
    assert to_hex(region.get_facecolor()) == to_hex(COLORS["oracle"])
    assert (region.get_x(), region.get_y()) == pytest.approx((0.9, 1.0)) and region.get_height() == pytest.approx(0.02)
    for first, words in ((2, "only forgetting = 1 is known"), (1, "its noise region needs another")):
        bare = uk.front_twin(source_of(folder).points(*KEYS).iloc[first:])  # points of no oracle, of one
        assert words in bare.texts[0].get_text().replace("\n", " ")
        stars = [
            line for line in bare.axes[0].lines if line.get_label() == ("as retrained" if first == 2 else "oracle")
        ]
        assert len(stars) == 1 and set(stars[0].get_xdata()) == {1}
        assert to_hex(stars[0].get_color()) == to_hex(COLORS["oracle"])


def test_the_panel_follows_its_controls(folder: Path, tmp_path: Path) -> None:
    panel = uk.front_panel(folder, forgetting=KEYS[0], utility=KEYS[1], folder=tmp_path / "a" / "b")
    controls, text = panel.controls, lambda name: Page(panel.views[name].value).text
    assert all(Page(view.value).harmless() for view in panel.views.values())
    assert panel.selected["utility"] == 0.95 and str(folder / "07_tradeoff" / "one") in text("details")
    assert "0.600 [0.580, 0.610]" in text("details") and PAYLOAD in text("samples")
    assert controls["methods"].value == ("npo", "npo · mgda", PAYLOAD)
    before = panel.views["front"].value
    controls["share"].value = 65
    assert "5 of 6 models keep 65%" in text("choice") and panel.views["front"].value != before
    last = panel.shown.index[panel.shown["name"] == "npo · mgda"][0]
    panel._points.value = last  # what a click in the figure does
    assert controls["run"].value == last and "mgda" in text("details") and "No samples were kept" in text("samples")
    assert "is not at hand (models given: none)" in text("attribution")
    controls["reference_forgetting"].value = 0.5
    assert "Hypervolume above (0.5, 0): " in text("choice")
    sent: list[Any] = []
    for name in ("methods", "seeds", "step"):
        controls[name].observe(sent.append, ["index", "options", "_options_labels"])
    controls["beyond"].value = True
    assert panel.shown["forgetting"].max() == pytest.approx(1.2)
    assert not sent  # lists that stay the same are left as the reader has them
    controls["seeds"].value = (1,)
    assert len(panel.shown) == 2 and len(panel._points.options) == 2
    controls["seeds"].value = ()
    assert "no point is left" in text("front") and "<p" not in panel.views["choice"].value
    controls["seeds"].value = (0, 1)
    controls["export"].click()
    table = pd.read_csv(tmp_path / "a" / "b" / "front.csv")
    assert len(table) == 6 and "forgetting_low" in table and "way" not in table
    assert table.loc[table["marked"].fillna("").str.contains("best"), "name"].tolist() == ["npo · mgda"]
    assert {p.name for p in (tmp_path / "a" / "b").iterdir()} == {"front.csv", "front.png", "front.svg"}
    controls["folder"].value = " "
    controls["export"].click()
    assert "no folder was named" in text("exported")


def test_models_are_mixed_and_attributed(small_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlearnkit.metrics.table.SMALLEST", 2)  # there are three forgotten records
    settings = {"steps": 4, "batch_size": 4, "lr": 3e-2, "progress": False, "trace_every": 0}
    kept: list[pd.DataFrame] = []

    def keep(step: int, measured: Any) -> None:
        kept.append(tradeoff.samples(small_problem, measured).assign(method="npo", balance="sum", seed=3, step=step))

    rows, npo = tradeoff.trajectory(small_problem, "npo", KEYS, every=2, limit=10, seed=3, on_look=keep, **settings)
    samples = pd.concat(kept)
    assert set(samples["step"]) == {2, 4} and samples.groupby("step").size().eq(3 + 3).all()
    panel = uk.front_panel(rows, forgetting=KEYS[0], utility=KEYS[1], samples=samples, problem=small_problem,
                           unlearned={"npo": npo}, limit=10)  # fmt: skip
    controls, text = panel.controls, lambda name: Page(panel.views[name].value).text
    ends = {row["step"]: row for row in panel.shown.to_dict("records")}
    for a, wanted in ((0.0, (0.0, 1.0)), (0.5, None), (1.0, (ends[4]["forgetting"], ends[4]["utility"]))):
        controls["a"].value = a
        if wanted:
            assert panel.mixed[panel._mixing()][a] == pytest.approx(wanted)
    assert "1.00 of npo: forgetting" in text("mixture") and sorted(panel.mixed[panel._mixing()]) == [0.0, 0.5, 1.0]
    (way,) = [line for line in panel.figure().axes[0].lines if line.get_label() == "mixtures"]
    assert len(way.get_xdata()) == 4  # from the original on

    controls["run"].value = panel.shown.index[panel.shown["step"] == 4][0]
    said = samples[(samples["step"] == 4)]["said"].tolist()
    assert all(word.split()[0] in text("samples") for word in said if word.strip())
    controls["view"].value = "weights"
    assert "Press attribute" in text("attribution")
    controls["attribute"].click()
    table = uk.attribute(small_problem, npo, "weights")
    first = table[(table["who"] == "unlearned")].iloc[0]
    assert says.html.number(first["value"]) in text("attribution") and "unlearned" in text("attribution")
    controls["run"].value = panel.shown.index[panel.shown["step"] == 2][0]
    assert "is not at hand (models given: npo)" in text("attribution")  # the model of a look on the way is gone


def test_pictures_among_the_samples_are_drawn_anew() -> None:
    data = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(data, "PNG")
    row = {"split": "forget", "asked": "a", "wanted": "a", "said": "b", "right": True}
    good = base64.b64encode(data.getvalue()).decode()
    page = Page(says.samples_html(pd.DataFrame([row | {"picture": good}, row | {"picture": f"x' {PAYLOAD}"}])))
    assert page.harmless() and sum(tag == "img" for tag, _ in page.tags) == 1 and "unreadable picture" in page.text


def test_samples_of_a_pipeline_are_its_pictures(small_image_problem: Any) -> None:
    measured = uk.measure(small_image_problem, small_image_problem.model, 4, progress=False)
    rows = tradeoff.samples(small_image_problem, measured, forget=2, retain=1)
    assert rows["split"].tolist() == ["forget", "forget", "retain"] and set(rows["said"]) == {""}  # no judge reads it
    drawn = Image.open(io.BytesIO(base64.b64decode(rows["picture"][0])))
    wanted = measured.split("forget").iloc[0]
    assert (np.asarray(drawn) == wanted["picture"]).all() and rows["asked"][0] == wanted["prompt"]


def test_what_is_no_source_is_refused(tmp_path: Path, small_problem: Any) -> None:
    for source, said in (
        (pd.DataFrame({"a": [1]}), "the frame has a"),
        (tmp_path, "has scores of methods; run a notebook or a sweep first"),
        (3, "a folder of runs, from records, or from a frame"),
    ):
        with pytest.raises(uk.UnlearnkitError, match=said):
            uk.front_panel(source)
    with pytest.raises(uk.UnlearnkitError, match="is not a problem"):
        uk.front_panel(scores(), unlearned={"npo": small_problem.model})


def test_a_reference_beyond_the_picture_is_said_at_its_edge() -> None:
    points = pd.DataFrame({"forgetting": [0.5, 0.9], "utility": [0.97, 0.92], "name": ["a", "b"], "way": [0, 1]})
    figure = plot_choice(points, None, share=0.9, reference=(0.0, 0.0))
    ax = figure.axes[0]
    (text,) = (text for text in ax.texts if "reference" in text.get_text())
    assert text.get_text() == "reference (0, 0)" and ax.get_ylim()[0] < text.xy[1] < 0.9
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=50, bbox_inches="tight")
    assert Image.open(drawn).height < 50 * 1.1 * figure.get_figheight()  # nothing is drawn far below
