"""What is given to a verb in place of a problem, a model or a number: one sentence, never a library's traceback."""

from __future__ import annotations

import math
from typing import Any

import pytest

import unlearnkit as uk


@pytest.fixture(scope="module")
def text(small_problem: Any) -> tuple[Any, Any]:
    return small_problem, uk.unlearn(small_problem, "grad_diff", steps=1, batch_size=4, progress=False)


@pytest.fixture(scope="module")
def image(small_image_problem: Any) -> tuple[Any, Any]:
    return small_image_problem, uk.unlearn(small_image_problem, "uce")


def test_a_model_of_the_other_modality(text: Any, image: Any) -> None:
    verbs: list[Any] = [uk.evaluate, uk.measure, uk.attack, uk.attribute]
    for verb in verbs:
        for problem, stranger, kind in ((text[0], image[1], "image"), (image[0], text[1], "text")):
            given = stranger.model if verb is uk.measure else stranger
            with pytest.raises(uk.UnlearnkitError, match=f"this is a model for {kind}"):
                verb(problem, given)
    with pytest.raises(uk.UnlearnkitError, match="uce is a method for image models.*its methods are ceu"):
        uk.unlearn(text[0], "uce")


@pytest.mark.parametrize("verb", ["evaluate", "attack", "attribute"])
def test_no_model_and_no_problem(text: Any, verb: str) -> None:
    call = getattr(uk, verb)
    for nothing in (None, "npo", 3):
        with pytest.raises(uk.UnlearnkitError, match="is not a model; give what unlearn returned"):
            call(text[0], nothing)
    with pytest.raises(uk.UnlearnkitError, match="is not a problem; make one with load_problem"):
        call("authors", text[1])
    if verb != "attribute":
        with pytest.raises(uk.UnlearnkitError, match="there is nothing to"):
            call(text[0], [])


@pytest.mark.parametrize(
    ("name", "budget", "message"),
    [
        ("prune", [5], "budget 5 of prune is out of range; give numbers from 0 to 1"),
        ("quantize", [99], "budget 99 of quantize is out of range; give numbers from 2 to 32"),
        ("noise", [math.nan], "budget nan of noise is out of range"),
        ("noise", [-1], "budget -1 of noise is out of range; give numbers from 0"),
        ("noise", [], "the budget of noise is empty"),
        ("noise", "a", "budget = 'a' .*give"),
        ("noise", 0.1, "budget = 0.1 .*give"),
        ("relearn", "20", "budget = '20' .*give a list of numbers"),
        ("relearn", ["1"], "budget = .* is not possible"),
        ("relearn", [True], "budget = .* is not possible"),
        ("relearn", [math.inf], "budget inf of relearn is out of range"),
    ],
)
def test_budgets_out_of_range(text: Any, image: Any, name: str, budget: Any, message: str) -> None:
    for problem, unlearned in (text, image):
        with pytest.raises(uk.UnlearnkitError, match=message):
            uk.attack(problem, unlearned, name, budget=budget)


def test_numbers_and_settings_out_of_range(text: Any, image: Any) -> None:
    problem, unlearned = text
    for limit in (0, -2, 1.5):
        with pytest.raises(uk.UnlearnkitError, match="limit = .* a whole number of at least 1"):
            uk.evaluate(problem, unlearned, limit=limit)
    for call in (
        lambda: uk.unlearn(problem, "npo", seed=-1),
        lambda: uk.attack(problem, unlearned, seed=-1),
        lambda: uk.load_problem("authors", seed=-1),
    ):
        with pytest.raises(uk.UnlearnkitError, match="seed = -1 is not possible"):
            call()
    with pytest.raises(uk.UnlearnkitError, match=r"seed = 1000\d* is not possible; .* below 2\^63"):
        uk.unlearn(problem, "npo", seed=10**30)
    with pytest.raises(uk.UnlearnkitError, match=r"lora = 1000 is not possible: no matrix of this model has a rank"):
        uk.unlearn(problem, "npo", lora=1000)
    for lr in (math.nan, 0, -1):
        with pytest.raises(uk.UnlearnkitError, match="lr"):
            uk.attack(problem, unlearned, "relearn", budget=[1], lr=lr)
    with pytest.raises(uk.UnlearnkitError, match="UCE takes no step and has no setting 'lr'; its settings: .*lam"):
        uk.unlearn(image[0], "uce", lr=1)
    with pytest.raises(uk.UnlearnkitError, match="'steps' of a tiny pipeline can't be -2"):
        uk.load_problem("digits", "seven", steps=-2, oracles=0)
    with pytest.raises(uk.UnlearnkitError, match="world = 5 is not possible; give a name .authors"):
        uk.load_problem(5)  # type: ignore[arg-type]
    with pytest.raises(uk.UnlearnkitError, match="world = '' is not possible; give a name .authors"):
        uk.load_problem("")
    with pytest.raises(uk.UnlearnkitError, match="nothing to judge a metric by"):
        uk.meta_evaluate([])
    with pytest.raises(uk.UnlearnkitError, match="no folder was named"):
        unlearned.save("")


def test_what_unlearn_returns_is_printed_in_one_line(text: Any, image: Any) -> None:
    assert repr(text[1]).startswith("Unlearned(grad_diff, seed 0; 1 steps, ") and "\n" not in repr(text[1])
    assert repr(image[1]).startswith("Unlearned(uce, seed 0; 0 steps, ")


def test_a_budget_that_counts_is_whole(text: Any) -> None:
    with pytest.raises(uk.UnlearnkitError, match=r"budget 1.5 of relearn is not possible; give whole numbers"):
        uk.attack(*text, "relearn", budget=[0, 1.5])
    with pytest.raises(uk.UnlearnkitError, match=r"give numbers from 0 \(fine-tuning steps\)"):
        uk.attack(*text, "relearn", budget=[-1])


def test_a_built_in_name_is_not_replaced() -> None:
    before = uk.METHODS["text"]["npo"]
    with pytest.raises(uk.UnlearnkitError, match="'npo' is built in; register yours under another name"):

        @uk.register_method("npo")
        class Npo(uk.TextMethod):
            pass

    assert uk.METHODS["text"]["npo"] is before
    known = uk.METRICS["forget_answer_nll"]
    with pytest.raises(uk.UnlearnkitError, match="'forget_answer_nll' is built in; register yours under another name"):
        uk.register_metric("answer_nll")(lambda items: 42.0)
    assert uk.METRICS["forget_answer_nll"] is known
