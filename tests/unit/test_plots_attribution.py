"""Figures of attribution: they show the numbers they were given, oracle and control in their own colours."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from unlearnkit.plots import COLORS, landscapes, verdicts
from unlearnkit.plots import attribution as figures


@pytest.fixture(autouse=True)
def _close() -> Any:
    yield
    plt.close("all")


def lines(ax: Any) -> dict[str, Any]:
    return {str(line.get_label()): line for line in ax.lines}


def test_series_colours_are_kept_and_methods_get_others() -> None:
    colors = figures.model_colors(["original", "npo", "oracle", "oracle 2", "random", "dpo"])
    assert colors["original"] == COLORS["original"] and colors["oracle"] == colors["oracle 2"] == COLORS["oracle"]
    assert colors["random"] == figures.CONTROL and len({str(c) for c in colors.values()}) == 5


def test_tokens_show_every_value_in_its_place() -> None:
    values = {"original": [9.04, -1.5], "npo": [0.0, 2.26], "oracle": [0.31, 0.0]}
    fig = figures.plot_tokens(values, [" Nadia", " "])
    ax, bar = fig.axes
    shown = {t.get_position(): t.get_text() for t in ax.texts}
    assert shown[(0, 0)] == "9.0" and shown[(1, 0)] == "-1.5" and shown[(1, 1)] == "2.3" and len(shown) == 6
    assert [t.get_text() for t in ax.get_xticklabels()] == ["Nadia", "␣"] and "nats" in bar.get_ylabel()
    assert ax.images[0].get_clim() == (-9.04, 9.04)  # nothing is white
    assert [t.get_color() for t in ax.get_yticklabels()][::2] == [COLORS["original"], COLORS["oracle"]]


def layer_table(unlearned: float) -> pd.DataFrame:
    levels = {"original": 0.0, "unlearned": unlearned, "oracle": 3.0, "oracle 2": 5.0, "random": 0.1}
    rows = [(w, i, p, "drop", v + p) for w, v in levels.items() for p in (0, 1) for i in ("a", "b")]
    rows += [(w, "a", -1, "uds", 0.5) for w in levels]
    return pd.DataFrame(rows, columns=["who", "item", "place", "measure", "value"])


def test_layers_have_methods_oracles_and_control() -> None:
    fig = figures.plot_layers({"npo": layer_table(2.0), "rmu": layer_table(1.0)}, {"drop": "nats"})
    (ax,) = fig.axes
    drawn = lines(ax)
    assert list(drawn["npo"].get_ydata()) == [2, 3] and list(drawn["rmu"].get_ydata()) == [1, 2]
    assert list(drawn["oracle"].get_ydata()) == [4, 5]  # the mean of both
    assert list(drawn["random"].get_xdata()) == [1, 2] and {"original", "oracle", "random", "npo", "rmu"} == set(drawn)


def test_bars_have_intervals_and_the_level_of_chance() -> None:
    table = pd.DataFrame({"value": [0.5], "low": [0.3], "high": [0.7]}, index=["gradient"])
    fig = figures.plot_bars({"original": table, "npo": table / 2}, 0.1, "recall", ["gradient", "words"])
    (ax,) = fig.axes
    heights = [bar.get_height() for bar in ax.patches]
    assert heights[0] == 0.5 and heights[2] == 0.25 and np.isnan(heights[1])  # a score without a value has no bar
    assert list(lines(ax)["chance"].get_ydata()) == [0.1, 0.1]
    assert ax.collections[0].get_segments()[0][:, 1].tolist() == [0.3, 0.7]


def test_lines_draw_each_reference_once() -> None:
    rows = [
        (w, "forget", t, v + t) for w, v in (("unlearned", 1.0), ("oracle", 2.0), ("random", 0.0)) for t in (0.0, 1.0)
    ]
    table = pd.DataFrame(rows, columns=["who", "item", "place", "value"])
    (ax,) = landscapes.plot_lines({"npo": table, "rmu": table.assign(value=table["value"] + 3)}, ["forget"]).axes
    named = [line.get_label() for line in ax.lines if not str(line.get_label()).startswith("_")]
    assert sorted(named) == ["npo", "oracle", "random", "rmu"]
    assert list(lines(ax)["rmu"].get_ydata()) == [4, 5]


def test_paths_end_where_the_runs_end() -> None:
    path = pd.DataFrame({"forget": [0.0, 1.0, 2.0], "retain": [0.0, 0.1, 0.3]})
    marks = {"original": (0.0, 0.0), "oracle": (2.5, 0.0)}
    (ax,) = landscapes.plot_paths({"salun": path, "random": path * 2}, marks, ("forget", "retain")).axes
    ends = {k: (v.get_xdata()[0], v.get_ydata()[0]) for k, v in lines(ax).items() if not k.startswith("_")}
    assert ends == {"salun": (2.0, 0.3), "random": (4.0, 0.6), **marks}


def test_surface_marks_the_models() -> None:
    grid = np.add.outer([0.0, 1.0, 2.0], [0.0, 1.0])
    places = {"original": (0, 0), "npo": (1, 0), "oracle": (0, 1)}
    fig = landscapes.plot_surface({"forget": grid}, [0, 1], [0, 1, 2], places)
    marks = lines(fig.axes[0])
    assert {k: (v.get_xdata()[0], v.get_ydata()[0]) for k, v in marks.items()} == places
    assert marks["oracle"].get_color() == COLORS["oracle"] and "nats" in fig.axes[1].get_ylabel()


def test_maps_share_one_scale() -> None:
    maps = {who: {"striped": np.full((4, 4), k + 1.0), "cat": np.eye(4)} for k, who in enumerate(("original", "esd"))}
    fig = figures.plot_maps({who: np.zeros((4, 4, 3), np.uint8) for who in maps}, maps)
    images = [ax.images[0] for ax in fig.axes[:6]]
    assert {image.get_clim() for image in (*images[1:3], *images[4:6])} == {(0.0, 2.0)}
    assert [fig.axes[k].get_ylabel() for k in (0, 3)] == ["original", "esd"]


def test_roc_and_tracing_show_what_they_are_given() -> None:
    curve = pd.DataFrame({"fpr": [0.0, 0.5, 1.0], "tpr": [0.0, 0.9, 1.0]})
    (ax,) = verdicts.plot_roc({"a against b": {"oracle": curve, "random": curve}}, {"random": "length"}).axes
    drawn = lines(ax)
    assert list(drawn["length"].get_ydata()) == [0, 0.9, 1] and drawn["oracle"].get_color() == COLORS["oracle"]
    grid = pd.DataFrame([[0.9, np.nan], [0.0, 1.0]], index=["subject", "last token"], columns=[0, 1])
    ax = figures.plot_traces({"npo": grid, "oracle": grid / 2}).axes[0]
    assert {t.get_position(): t.get_text() for t in ax.texts}[(1, 0)] == "–"
    assert [t.get_text() for t in ax.texts] == ["0.9", "–", "0.0", "1.0"] and ax.images[0].get_clim() == (0, 1)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "2"]


def test_confusion_and_verdicts_show_counts_and_places() -> None:
    counts = pd.DataFrame([[9, 1], [0, 7]], index=["removed", "suppressed"], columns=["removed", "suppressed"])
    ax = verdicts.plot_confusion({"text": counts}).axes[0]
    shown = {t.get_position(): (t.get_text(), t.get_fontweight()) for t in ax.texts}
    assert shown[(0, 0)] == ("9", "bold") and shown[(1, 0)] == ("1", "normal") and shown[(0, 1)] == ("0", "normal")

    def verdict(output: float, inside: float, label: str) -> Any:
        limits = {"said": 0.5, "gone": 0.25, "unchanged": 0.6, "forgotten": 0.4, "beyond": -0.5}
        return SimpleNamespace(output=output, inside=inside, label=label, thresholds=limits)

    found = {
        "original": verdict(1, 1, "present"),
        "a": verdict(0.1, 0.9, "suppressed"),
        "b": verdict(0.1, 0.9, "suppressed"),
        "c": verdict(0.1, np.nan, "undecided"),
    }
    (ax,) = verdicts.plot_verdicts({"text": found}).axes
    dots = [(line.get_xdata()[0], line.get_ydata()[0], line.get_color()) for line in ax.lines]
    assert dots == [(1, 1, COLORS["original"]), (0.1, 0.9, COLORS["unlearned"])]  # what has no level has no place
    assert "a, b" in [t.get_text() for t in ax.texts]
