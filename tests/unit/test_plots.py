"""Figures: what they show is what they were given, gaps in the data included."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from unlearnkit import plots

COLUMNS = ["original", "unlearned", "low", "high", "oracle", "gap", "gap_low", "gap_high", "floor", "relative", "why"]


def scores(value: float = 0.3, gap: float = 0.25) -> pd.DataFrame:
    rows = {
        "forget_accuracy": [1.0, value, value - 0.1, value + 0.1, 0.1, gap, gap / 2, gap * 2, 0.05, value, ""],
        "retain_accuracy": [1.0, *[np.nan] * 9, "not measurable: no"],
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)


@pytest.fixture(autouse=True)
def _close() -> Any:
    yield
    plt.close("all")


def texts(axes: Any) -> str:
    return " ".join(text.get_text() for text in axes.texts)


def test_methods_have_colours_of_their_own() -> None:
    colors = plots.method_colors(list("abcdefg"))
    assert len({tuple(c) for c in colors.values()} | {tuple(c) for c in plots.COLORS.values() if c != "0.85"}) == 10
    assert len({tuple(c) for c in plots.method_colors([str(i) for i in range(17)]).values()}) == 17


def test_ecdf_marks_the_statistic_of_the_ks_test() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=23), draw.normal(size=17) + 1
    axes = plots.plot_ecdf({"a": a, "b": b, "c": b + 9}, {"a": "r", "b": "g", "c": "b"}, mark=("a", "b"))
    assert f"D = {ks_2samp(a, b).statistic:.2f}" in texts(axes)
    for line, values in zip(axes.lines, (a, b, b + 9), strict=True):
        x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        at = np.quantile(values, 0.4)
        assert y[x <= at].max() == pytest.approx((values <= at).mean()) and y.min() == 0 and y.max() == 1


def test_against_shows_value_interval_levels_and_what_is_missing() -> None:
    fig = plots.plot_against(
        {"one": scores(0.3), "two": scores(0.7)}, {"forget_accuracy": "share", "retain_accuracy": "share"}
    )
    first, second = fig.axes
    dots = [line for line in first.lines if line.get_marker() == "o"]
    assert [float(dot.get_xdata()[0]) for dot in dots] == [0.3, 0.7]
    assert [float(dot.get_ydata()[0]) for dot in dots] == [0, 1]
    ends = [list(line.get_xdata()) for line in first.lines if line.get_color() == "0.45"]
    assert ends == [[0.3 - 0.1, 0.3 + 0.1], [0.7 - 0.1, 0.7 + 0.1]]
    assert {float(line.get_xdata()[0]) for line in first.lines if len(set(line.get_xdata())) == 1} >= {1.0, 0.1}
    (band,) = first.patches
    assert band.get_x() == pytest.approx(0.1 - 0.05 * 0.9) and band.get_width() == pytest.approx(2 * 0.05 * 0.9)
    assert texts(second) == "not measurable not measurable" and not second.patches


def test_gaps_beyond_the_edge_are_drawn_there_and_named() -> None:
    fig = plots.plot_gaps({"one": scores(gap=0.25), "two": scores(gap=7.4)}, ["forget_accuracy", "retain_accuracy"])
    marks = {line.get_marker(): float(line.get_xdata()[0]) for line in fig.axes[0].lines if line.get_marker() in "o>"}
    assert marks == {"o": 0.25, ">": plots.GAP_CLIP} and "7.4" in texts(fig.axes[0])
    assert texts(fig.axes[1]) == "not measurable not measurable"


def test_attack_curves_stand_between_original_and_oracles() -> None:
    curve = pd.DataFrame(
        [
            {"who": who, "budget": k, "measure": measure, "value": v + k / 10, "low": v, "high": v + 0.2}
            for who, v in (("original", 0.8), ("oracle", 0.0), ("oracle 2", 0.05), ("unlearned", 0.3))
            for k in (0, 1)
            for measure in ("accuracy", "nll")
        ]
    )
    (axes,) = plots.plot_attack({"npo": curve, "dpo": curve}, "accuracy", "steps", "share").axes
    lines = {str(line.get_label()): list(line.get_ydata()) for line in axes.lines}
    assert lines["npo"] == lines["dpo"] == [0.3, 0.4] and lines["oracle 2"] == [0.05, pytest.approx(0.15)]
    assert set(lines) == {"original", "oracle", "oracle 2", "npo", "dpo"}


def test_a_card_shows_what_each_attack_found_and_says_what_is_not_measurable() -> None:
    row = {"measure": "accuracy", "original": 0.9, "oracle": 0.1, "floor": 0.05, "before": 0.2, "low": 0.5, "high": 0.8}
    card = pd.DataFrame(
        [
            {"attack": "first_one", "why": "not measurable: no oracle"},
            {"attack": "second", "after": 0.7, "found": True, **row},
            {"attack": "third", "after": 0.15, "found": False, **row},
            {"attack": "fourth", "after": 0.15, "why": "not measurable: …", **row, "original": 0.12},
        ]
    )
    (ax,) = plots.plot_card({"npo": card}, "accuracy", "share").axes
    points = {line.get_xdata()[0]: line for line in ax.lines if "after it" in str(line.get_label())}
    assert list(points) == [0.7, 0.15] and [p.get_ydata()[0] for p in points.values()] == [1, 2]
    assert points[0.15].get_markerfacecolor() == "white" != points[0.7].get_markerfacecolor()
    assert [t.get_text() for t in ax.get_yticklabels()] == ["first one", "second", "third", "fourth"]
    assert [(t.get_text(), t.get_position()[1]) for t in ax.texts] == [("not measurable", 0), ("not measurable", 3)]
    assert ax.get_title() == "npo"
    legend = {t.get_text() for t in ax.get_legend().get_texts()}
    assert legend == {"original", "oracle", "before the attack", "after it: found", "after it: nothing"}


def test_answers_are_escaped_and_the_truth_is_marked() -> None:
    page = plots.answer_table({"<b>me</b>": ["It is <script>Izmir</script>."]}, ["Where & when?"], ["Izmir"]).data
    assert "<script>" not in page and "&lt;b&gt;me" in page and "Where &amp; when?" in page
    assert "<mark>Izmir</mark>" in page
