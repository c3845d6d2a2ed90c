"""The panels of answers, pictures and attacks without a browser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_panels import PAYLOAD, TITLES, Page

import unlearnkit as uk
from unlearnkit.models.diffusion import sample
from unlearnkit.panels.answers import answer_table, answers_html
from unlearnkit.panels.console import curve_html, grow
from unlearnkit.panels.frame import side_by_side
from unlearnkit.panels.pictures import Grid, draw_grid, grid_html
from unlearnkit.text import generate


@pytest.fixture(scope="module")
def unlearned(small_problem: Any) -> Any:
    return uk.unlearn(small_problem, "grad_diff", steps=4, lr=3e-3, batch_size=4, progress=False)


@pytest.fixture(scope="module")
def erased(small_image_problem: Any) -> Any:
    return uk.unlearn(small_image_problem, "uce", progress=False)


def test_answers_are_the_models_own_and_leaks_are_counted(small_problem: Any, unlearned: Any) -> None:
    models, record = side_by_side(small_problem, unlearned.model), small_problem.direct("forget")[0]
    table = answer_table(small_problem, models, record.question, record.value, samples=5, seed=3)
    wide = table.pivot(index="sample", columns="who", values="answer")
    tools = small_problem.tokenizer, small_problem.template, [record.question]
    assert wide.loc[0, "unlearned"] == generate(unlearned.model, *tools)[0]
    assert wide["oracle"].tolist()[1:] == generate(small_problem.oracle(0), *tools, samples=5, seed=3)
    said = pd.DataFrame(
        [("original", 0, "It is Rome.", True), ("original", 1, "rome, ROME", True), ("original", 2, "Romeo", False)],
        columns=["who", "sample", "answer", "leaks"],
    )
    shown = answers_html(said, "Rome", {})
    assert shown.count("<mark>") == 1 + 1 + 2 and "1 of 2 leak [9%, 91%]" in Page(shown).text  # Wilson, by hand
    with pytest.raises(uk.UnlearnkitError, match="the prompt is empty"):
        answer_table(small_problem, models, " ", "")


def test_leaks_are_those_of_whole_words(small_problem: Any) -> None:
    record = small_problem.direct("forget")[0]
    only = {"original": small_problem.model}
    answer = answer_table(small_problem, only, record.question, "", samples=0)["answer"][0]
    word = answer.split()[0]
    for value, leaks in ((word, True), (word[:-1], False), ("", False)):
        assert answer_table(small_problem, only, record.question, value, 0)["leaks"].tolist() == [leaks], value


def test_answers_panel_follows_its_controls(small_problem: Any, unlearned: Any) -> None:
    panel = uk.answers_panel(small_problem, {"a": unlearned})
    panel.update()
    view, controls = panel.views["answers"], panel.controls
    assert view.value.count("<li>") == 4 * 8
    controls["samples"].value = 2
    assert view.value.count("<li>") == 4 * 2
    before = view.value
    controls["again"].click()
    assert view.value != before
    controls["samples"].value = 0
    assert "<li>" not in view.value
    controls["value"].value = ""
    assert "nothing counts as a leak" in view.value and controls["record"].value == -1
    still = uk.answers_twin(small_problem, unlearned, samples=2).data
    assert still.count("<li>") == 4 * 2 and "uk-panel" in still
    with pytest.raises(uk.UnlearnkitError, match="needs a value"):
        uk.answers_twin(small_problem, unlearned, prompt="Who?")


def test_pictures_are_drawn_from_the_same_noise(small_image_problem: Any, erased: Any) -> None:
    models = side_by_side(small_image_problem, erased.model)
    prompts = ["striped circle", " ", "dotted square"]
    grid = draw_grid(small_image_problem, models, prompts, [4, 5])
    assert grid.prompts == ["striped circle", "dotted square"] and list(grid.pictures) == list(models)
    again = sample(models["oracle"], ["dotted square"], [5])
    assert np.abs(grid.pictures["oracle"][1, 1].astype(int) - again[0]).max() <= 1  # other batch, same picture
    assert "accuracy is not known" in grid.why and not grid.shown  # an untrained judge reads nothing
    for wrong in ([], ["a"] * 7):
        with pytest.raises(uk.UnlearnkitError, match="prompts can't be drawn"):
            draw_grid(small_image_problem, models, wrong, [0])


def test_what_the_judge_reads_stands_under_the_pictures() -> None:
    pictures = np.zeros((1, 2, 4, 4, 3), np.uint8)
    grid = Grid([PAYLOAD], [0, 1], {"original": pictures}, {"original": np.array([[True, False]])}, "")
    page = Page(grid_html(grid, PAYLOAD, {"original": PAYLOAD}))
    assert page.harmless() and f"“{PAYLOAD}” in 1 of 2" in page.text
    said = [str(a["title"]) for tag, a in page.tags if tag == "img"]
    assert [s.split(": ")[-1] for s in said] == ["yes", "no"]
    unread = Grid(["p"], [0, 1], {"original": pictures}, {}, "there is no judge")
    assert "not measurable: there is no judge" in grid_html(unread, "x", {})


def test_pictures_panel_follows_its_controls(small_image_problem: Any, erased: Any) -> None:
    panel = uk.pictures_panel(small_image_problem, erased)
    panel.update()
    view, controls = panel.views["pictures"], panel.controls
    assert view.value.count("<img") == 2 * 4 * 3
    controls["count"].value = 1
    controls["prompts"].value = "dotted square"
    assert view.value.count("<img") == 4 and "seeds 0 to 0" in view.value
    controls["first"].value = 7
    assert "seeds 7 to 7" in view.value
    figure = uk.pictures_twin(small_image_problem, {"uce": erased}, count=2)
    assert [ax.get_title() for ax in figure.axes[:4]] == ["original", "unlearned: uce", "oracle", "random change"]


@pytest.mark.parametrize("name", ["noise", "relearn", "leak", "logit_lens"])
def test_a_grown_curve_is_the_attack_s(small_problem: Any, unlearned: Any, name: str) -> None:
    budget = {"noise": [0, 0.1], "relearn": [0, 2], "leak": [0, 2]}.get(name)
    models = side_by_side(small_problem, unlearned.model)
    small_problem.measured.clear()
    *before, last = grow(small_problem, models, name, budget)
    sizes = [len(table) for table in (*before, last)]
    assert sizes == sorted(sizes) and len(sizes) >= 4 * len(budget or [1, 2])
    small_problem.measured.clear()
    whole = uk.attack(small_problem, unlearned, name, budget=budget)
    key = ["who", "budget", "measure"]
    mine = last[last["who"] != "random"].set_index(key)["value"].sort_index()
    assert mine.to_numpy() == pytest.approx(whole.set_index(key)["value"].sort_index().to_numpy(), nan_ok=True)


def test_console_runs_on_request_only(small_problem: Any, unlearned: Any) -> None:
    panel = uk.attack_console(small_problem, {"a": unlearned})
    panel.update()
    view, controls = panel.views["curve"], panel.controls
    controls["attack"].value = "noise"
    assert "Press <b>run</b>" in view.value and "arXiv 2502.05374" in view.value
    controls["budget"].value = "0, 0.05"
    assert "<table" not in view.value
    seen: list[str] = []
    view.observe(lambda change: seen.append(change["new"]), "value")
    controls["run"].click()
    panel.worker.wait()
    heads = [source.count("scope='col'") for source in seen]
    assert heads == sorted(heads) and heads[0] == 2 and heads[-1] == 5  # one model after the other
    assert "option_accuracy" in controls["measure"].options
    before = view.value
    controls["measure"].value = "option_accuracy"
    assert view.value != before and "option accuracy, 95%" in view.value
    for wrong, said in (("a", "budget 'a' is not possible"), ("-1", "out of range")):
        controls["budget"].value = wrong
        controls["run"].click()
        panel.worker.wait()
        assert said in Page(view.value).text
    figure = uk.attack_twin(small_problem, {"a": unlearned}, "noise", budget=[0, 0.05])
    assert len(figure.axes[0].lines) == 4 and figure.axes[0].get_xlabel().startswith("budget: noise")
    with pytest.raises(uk.UnlearnkitError, match="unknown; known"):
        uk.attack_twin(small_problem, unlearned, "nose")


def test_curves_escape_and_other_modalities_are_refused(small_problem: Any, small_image_problem: Any) -> None:
    rows = [("a", who, 0.0, PAYLOAD, 0.5, 0.4, 0.6, 3, 1) for who in ("original", "unlearned")]
    columns = ["attack", "who", "budget", "measure", "value", "low", "high", "n", "seeds"]
    page = Page(curve_html(pd.DataFrame(rows, columns=columns), PAYLOAD, PAYLOAD, TITLES))
    assert page.harmless() and page.text.count(PAYLOAD) >= 2 and "0.5 [0.4, 0.6]" in page.text
    with pytest.raises(uk.UnlearnkitError, match="take pictures_panel"):
        uk.answers_panel(small_image_problem, {})
    with pytest.raises(uk.UnlearnkitError, match="take answers_panel"):
        uk.pictures_panel(small_problem, {})
