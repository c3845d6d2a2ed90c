"""Figures of notebook 08 and comparisons with published results: what is drawn is what the table says."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from unlearnkit.metaevaluation import METRIC_NAMES, TOFU, beside, findings
from unlearnkit.methods import METHODS
from unlearnkit.metrics.table import METRICS
from unlearnkit.plots import benchmark as figures
from unlearnkit.tradeoff.published import published


def board() -> pd.DataFrame:
    rows = {
        "good": {"gap": 0.1, "utility": 0.95, "recovered": 0.2, "seconds": 10.0, "usable": True, "rank_low": 1},
        "ruin": {"gap": 9.0, "utility": 0.1, "recovered": np.nan, "seconds": 20.0, "usable": False},
        "oracle": {"gap": 0.0, "utility": 1.0, "recovered": 0.0, "seconds": 100.0},
    }
    frame = pd.DataFrame(rows).T.assign(floor=0.05, gap_low=[0.05, 8.0, np.nan], gap_high=[0.2, 10.0, np.nan])
    frame.attrs["bar"] = 0.9
    return frame


def test_a_board_shows_intervals_and_who_fails_the_bar() -> None:
    fig = figures.plot_board(board())
    gap, _, recovered, _ = fig.axes
    marks = [line for line in gap.get_lines() if line.get_marker() in ("o", ">")]
    assert [m.get_marker() for m in marks] == ["o", ">"]  # what is far is drawn at the edge
    assert marks[0].get_markerfacecolor() != "white" == marks[1].get_markerfacecolor()
    assert marks[1].get_xdata()[0] == figures.FAR["gap"]
    assert any(list(line.get_xdata()) == [0.05, 0.2] for line in gap.get_lines())
    assert [text.get_text() for text in recovered.texts] == ["not measurable"]
    assert [label.get_text() for label in gap.get_yticklabels()] == ["good", "ruin"]  # the oracle is a line
    plt.close(fig)


def test_the_area_of_a_radar_hangs_on_the_order_of_its_axes() -> None:
    assert figures.radar_area([1, 1, 1, 1, 1]) == 1
    assert figures.radar_area([1, 1, 0, 0]) == 0.25
    assert figures.radar_area([1, 0, 1, 0]) == 0


def test_methods_that_share_a_place_are_all_seen() -> None:
    fig = figures.plot_places(pd.DataFrame({"a": [1, 1, 3], "b": [3, 2, 1]}, index=["x", "y", "z"]), ["x"])
    heights = [line.get_ydata()[0] for line in fig.axes[0].get_lines()]
    assert len(set(heights)) == 3
    plt.close(fig)


def test_estimates_and_models_are_drawn_where_they_lie() -> None:
    table = pd.DataFrame({"auc": [0.9, np.nan], "auc_low": [0.8, np.nan], "auc_high": [1.0, np.nan]}, index=["m", "n"])
    fig = figures.plot_estimates(table, {"auc": ("AUC", 0.5)}, marked=["m"])
    assert [0.8, 1.0] in [list(line.get_xdata()) for line in fig.axes[0].get_lines()]
    assert fig.axes[0].texts[0].get_text() == "–"
    plt.close(fig)
    values = pd.DataFrame({
        "metric": "m", "attack": "", "truth": ["original", "oracle", "knows", "ruined"], "value": [1.0, 0.0, 0.9, -3.0],
    })  # fmt: skip
    fig = figures.plot_pool(values, {"m": "metric"})
    dots = [
        float(line.get_ydata()[0])
        for line in fig.axes[0].get_lines()
        if line.get_marker() == "o" and len(line.get_ydata())
    ]
    assert dots == [0.9, -3.0]
    plt.close(fig)


def test_two_rankings_agree_contradict_or_are_not_decided() -> None:
    theirs = pd.Series(dict(zip("abcdef", range(6), strict=True)), dtype=float)
    same, reversed_ = dict(theirs * 10), dict(-theirs)
    assert beside("q", theirs, same, "s").verdict == "agree"
    assert beside("q", theirs, same, "s").tau == pytest.approx(1)
    assert beside("q", theirs, reversed_, "s").verdict == "contradict"
    few = beside("q", theirs[:3], same, "s")
    assert few.verdict == "not decided" and np.isnan(few.tau)
    four = beside("q", theirs[:4], same, "s")  # a perfect order of four is not beyond chance: 2 of 24
    assert four.verdict == "not decided" and four.p == pytest.approx(2 / 24)
    assert len(beside("q", theirs, {"a": 1.0, "b": np.nan}, "s").table) == 1


def test_findings_use_names_that_exist() -> None:
    assert set(TOFU) <= set(published("tofu_overall")["method"])
    assert set(TOFU.values()) <= set(METHODS["text"])
    assert set(METRIC_NAMES) == set(published("metric_quality")["metric"])
    assert {v for v in METRIC_NAMES.values() if not v.startswith("inside_")} <= set(METRICS)


def test_overall_scores_are_harmonic_means_by_hand() -> None:
    one = pd.DataFrame({"gap": [0.5, 0.0], "recovered": [0.5, 0.0], "utility": [0.5, 1.2]}, index=["npo", "rmu"])
    (found,) = findings(text=one)
    assert found.table["ours"].to_dict() == {"NPO": pytest.approx(0.5), "RMU": pytest.approx(1.0)}
    assert findings() == []


def test_orders_beside_each_other_mark_who_moves_and_name_every_tie() -> None:
    table = pd.DataFrame({"published": [3.0, 2.0, 1.0, 0.0], "ours": [0.1, 0.5, 0.5, 0.9]}, index=["a", "b", "c", "d"])
    fig = figures.plot_beside({"first": table, "second": table.assign(ours=table["published"])}, columns=1)
    first, second = fig.axes
    assert [list(line.get_ydata()) for line in first.get_lines()] == [[1, 4], [2, 2.5], [3, 2.5], [4, 1]]
    moved = [line.get_color() for line in first.get_lines()]
    assert moved[0] == moved[3] != moved[1] == moved[2] == second.get_lines()[0].get_color()
    assert {text.get_text() for text in first.texts} == {"a", "b", "c", "d", "b, c"}
    plt.close(fig)
