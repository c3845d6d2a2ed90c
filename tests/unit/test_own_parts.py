"""Methods, metrics and attacks of one's own: what is wrong with them is said, not left to a traceback."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import unlearnkit as uk
from unlearnkit.attacks import ATTACKS
from unlearnkit.methods import METHODS
from unlearnkit.text import answer_tokens, generate


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing registered here outlives its test."""
    before = dict(METHODS["text"]), dict(ATTACKS["text"])
    yield
    for registry, known in zip((METHODS["text"], ATTACKS["text"]), before, strict=True):
        registry.clear()
        registry.update(known)


def test_what_cannot_be_one_is_not_registered() -> None:
    class Bare(uk.Attack):
        unit = "steps"

    for put, thing, message in (
        (uk.register_method("f1"), lambda x: x, "derived from Method"),
        (uk.register_attack("f1"), 3, "derived from Attack"),
        (uk.register_attack("f1"), Bare, "attack 'f1' lacks card, budgets"),
        (uk.register_metric("m0"), 3, "metric 'm0' is 3; register a function"),
    ):
        with pytest.raises(uk.UnlearnkitError, match=message):
            put(thing)
    for register in (uk.register_method, uk.register_attack):
        with pytest.raises(uk.UnlearnkitError, match="modality 'audio' is unknown; known: image, text"):
            register("zz", "audio")(uk.Attack)
        with pytest.raises(uk.UnlearnkitError, match="name '3' can't be used"):
            register(3)(ATTACKS["text"]["noise"])
    assert "f1" not in METHODS["text"] and "f1" not in ATTACKS["text"]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda nll: 3.0, "returned a float; return Objectives"),
        (lambda nll: uk.Objectives(nll), r"a tensor of shape \(\d+,\) as its forget loss; give one number"),
        (lambda nll: uk.Objectives(nll.mean().detach()), r"without a gradient as its forget loss"),
        (lambda nll: uk.Objectives(nll.mean(), 0.0), "a float as its retain loss"),
    ],
)
def test_what_objectives_may_return(small_problem: Any, made: Any, message: str) -> None:
    @uk.register_method("own")
    class Own(uk.TextMethod):
        def objectives(self, model: Any, batch: Any) -> Any:
            (forget,) = answer_tokens(model, batch.forget)
            return made(forget.token_nll)

    for balance in ("sum", "mgda"):
        with pytest.raises(uk.UnlearnkitError, match=message):
            uk.unlearn(small_problem, "own", steps=1, balance=balance, progress=False)


def test_numbers_that_mean_nothing_are_refused(small_problem: Any, small_image_problem: Any) -> None:
    problem, model = small_problem, small_problem.model
    ask = problem.tokenizer, problem.template, ["Who is it?"]
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(uk.UnlearnkitError, match="temperature = .* is not possible"):
            generate(model, *ask, 4, samples=1, temperature=temperature)
    for call in (
        lambda: uk.review_twin(problem, {"npo": model}, limit=0),
        lambda: uk.answers_twin(problem, {"npo": model}, samples=-1),
        lambda: uk.pictures_twin(small_image_problem, {"uce": small_image_problem.model}, count=0),
    ):
        with pytest.raises(uk.UnlearnkitError, match="is not possible; give a whole number"):
            call()
    with pytest.raises(uk.UnlearnkitError, match="measure 'zz' is unknown; known: "):
        uk.attack_twin(problem, {"npo": model}, "noise", budget=[0], measure="zz")


def test_a_model_of_nan_is_named_as_what_it_is(small_problem: Any) -> None:
    broken = small_problem.original.fresh()
    with torch.no_grad():
        broken.model.norm.weight.fill_(math.nan)
    with pytest.raises(uk.UnlearnkitError, match="the model's weights or outputs are NaN or infinite"):
        uk.measure(small_problem, broken, 4)


def test_the_original_of_a_problem_may_be_given_as_it_is(small_problem: Any) -> None:
    given = uk.evaluate(small_problem, small_problem.original, ["retain_probability"], limit=28)
    row = given.loc["retain_probability"]
    assert 0 < row["unlearned"] == row["original"]
