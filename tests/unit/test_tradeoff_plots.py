"""Figures of the trade-off: what they draw is what was given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from unlearnkit import tradeoff
from unlearnkit.plots import tradeoff as figures


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def frame(array: Any, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame(array, columns=tradeoff.AXES).assign(**columns)


def test_stairs_by_hand() -> None:
    corners = figures.stairs(np.array([[0.5, 0.75], [0.0, 1.0], [0.75, 0.25]]), (-0.1, 0.2))
    wanted = [(-0.1, 1.0), (0.0, 1.0), (0.0, 0.75), (0.5, 0.75), (0.5, 0.25), (0.75, 0.25), (0.75, 0.2)]
    assert corners.tolist() == [list(c) for c in wanted]


def test_a_front_shows_every_measurable_point_the_knee_and_the_target() -> None:
    points = frame([[0.0, 1.0], [0.5, 0.75], [0.75, 0.25], [0.25, 0.5], [np.nan, 0.5]], method="a")
    fig = figures.plot_front(points, tradeoff.Target(1.0, 0.98, 0.1, 0.02), 0.9)
    (ax,) = fig.axes
    drawn = [line.get_xydata().tolist() for line in ax.lines]
    assert [[0.0, 1.0], [0.5, 0.75], [0.25, 0.5]] in drawn and [[0.5, 0.75]] in drawn  # what is seen; the knee
    (edge,) = [line for line in drawn if len(line) == 1 and line[0][0] == 0.75]
    assert edge[0][1] == pytest.approx(ax.get_ylim()[0] + 0.01)  # a model of utility 0.25, drawn at the edge
    (region,) = ax.patches
    assert region.get_xy() == pytest.approx((0.9, 0.96)) and region.get_width() == pytest.approx(0.2)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["original", "oracle", "a"]


def test_attainment_has_a_panel_a_method_with_median_and_worst_case() -> None:
    points = pd.concat([frame([[0.2, 0.9], [0.6, 0.7]], method=m, seed=s) for m in "ab" for s in (0, 1)])
    points.loc[points["seed"] == 1, "forgetting"] -= 0.1
    fig = figures.plot_attainment(points.reset_index(drop=True))
    assert [ax.get_title() for ax in fig.axes if ax.get_visible()] == ["a (2 runs)", "b (2 runs)"]
    median, worst = (fig.axes[0].lines[k].get_xydata()[:, 0].max() for k in (1, 2))
    assert median == pytest.approx(0.6) and worst == pytest.approx(0.5)


def test_directions_point_down_the_gradients() -> None:
    fig = figures.plot_directions([1.0, -1.0], [0.0, 2.0], {"sum": [1.0, 1.0], "other": [2.0, 0.0]})
    ends = [tuple(t.xy) for t in fig.axes[1].texts if t.get_text() == ""]
    assert ends == [(-1.0, 1.0), (-0.0, -2.0), (-2.0, -0.0)]
    cone = fig.axes[0].patches[0].get_xy()[1:-1]
    assert (cone @ np.array([1.0, -1.0]) <= 1e-6).all() and (cone @ np.array([0.0, 2.0]) <= 1e-6).all()


def test_layers_equal_and_published() -> None:
    trace = pd.DataFrame({"step": [0, 1, 2], "cosine_layer0": [0.1, np.nan, -0.2], "cosine_mid": [0.3, np.nan, 0.4]})
    image = figures.plot_layers({"npo": trace}).axes[0].images[0].get_array()
    assert np.asarray(image).tolist() == [[0.1, -0.2], [0.3, 0.4]]
    values = pd.DataFrame({"method": [*"aabb"], "seed": [0, 1, 0, 1], "forgetting": [0.8, 0.9, 0.4, 0.3]})
    fig = figures.plot_equal(tradeoff.compare(values))
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ["a", "b"]
    real = tradeoff.published("tofu").query("tuned == 'no'").assign(q=lambda t: np.log10(t["forget_quality"]))
    fig = figures.plot_published(real, "q", "model_utility", "model", ("x", "y"))
    assert [ax.get_title() for ax in fig.axes] == ["Llama-2-7b-chat", "Llama-3.2-1B-Instruct"]
    assert {"original", "oracle", "NPO", "RMU"} <= {t.get_text() for t in fig.axes[0].texts}
    a, b = np.array([1.0, 0.0]), np.array([-1.0, 0.0])
    fig = figures.plot_descents(
        {"sum": np.array([[0.0, 1.0], [0.0, 0.0]])}, lambda x: (((x - a) ** 2).sum(-1), ((x - b) ** 2).sum(-1)),
        np.linspace(a, b, 5), {"marks": np.array([[0.0, 0.0]])},
    )  # fmt: skip
    assert [t.get_text() for t in fig.axes[1].get_legend().get_texts()] == ["Pareto front", "sum", "marks"]
