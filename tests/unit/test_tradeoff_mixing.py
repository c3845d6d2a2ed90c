"""Mixing a model with its original: exact at both ends, refused where nothing mixes, calibrated to a utility."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit import tradeoff
from unlearnkit.errors import UnlearnkitError

QUICK: dict[str, Any] = {"steps": 4, "batch_size": 8, "lr": 3e-3, "progress": False, "trace_every": 0}


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def same(a: Any, b: Any) -> bool:
    mine, other = weights(a), weights(b)
    return list(mine) == list(other) and all(torch.equal(mine[n], other[n]) for n in mine)


@pytest.fixture(scope="module", params=["text", "image"])
def pair(request: Any) -> tuple[Any, Any]:
    """A problem of either branch, and a model unlearned from it."""
    if request.param == "text":
        problem = request.getfixturevalue("small_problem")
        return problem, uk.unlearn(problem, "npo", **QUICK)
    problem = request.getfixturevalue("small_image_problem")
    return problem, uk.unlearn(problem, "grad_ascent", **QUICK)


def test_both_ends_are_exact_and_the_middle_is_the_mean(pair: Any) -> None:
    problem, unlearned = pair
    assert same(tradeoff.mix(problem, unlearned, 0.0), problem.model)
    assert same(tradeoff.mix(problem, unlearned, 1.0), unlearned.model)
    middle, start, end = (weights(m) for m in (tradeoff.mix(problem, unlearned, 0.5), problem.model, unlearned.model))
    moved = [n for n in start if not torch.equal(start[n], end[n])]
    assert moved
    for n in moved:
        torch.testing.assert_close(middle[n], (start[n] + end[n]) / 2)
    for a in (-0.1, 1.5):
        with pytest.raises(UnlearnkitError, match=f"a = {a} is not possible"):
            tradeoff.mix(problem, unlearned, a)


def test_mixing_leaves_both_ends_alone(pair: Any) -> None:
    problem, unlearned = pair
    before = [{n: w.clone() for n, w in weights(m).items()} for m in (problem.model, unlearned.model)]
    mixed = tradeoff.mix(problem, unlearned, 0.3)
    with torch.no_grad():
        for w in mixed.parameters():
            w.zero_()
    for model, kept in zip((problem.model, unlearned.model), before, strict=True):
        assert all(torch.equal(w, kept[n]) for n, w in weights(model).items())


def test_an_adapter_is_merged_into_a_copy(small_problem: Any) -> None:
    unlearned = uk.unlearn(small_problem, "npo", lora=2, **{**QUICK, "lr": 3e-2})
    mixed = tradeoff.mix(small_problem, unlearned, 1.0)
    assert hasattr(unlearned.model, "peft_config") and not hasattr(mixed, "peft_config")
    ids = torch.tensor([[1, 5, 9, 3]])
    with torch.no_grad():
        wanted, found, start = (m(ids).logits for m in (unlearned.model, mixed, small_problem.model))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, start, atol=1e-3)


def test_what_changes_no_weight_can_not_be_mixed(small_problem: Any, small_image_problem: Any) -> None:
    guarded = uk.unlearn(small_problem, "guardrail")
    with pytest.raises(UnlearnkitError, match="they don't share the weight"):
        tradeoff.mix(small_problem, guarded, 0.5)
    steered = uk.unlearn(small_image_problem, "negative_prompt")
    with pytest.raises(UnlearnkitError, match="weights of its original.*can't be calibrated"):
        tradeoff.mix(small_image_problem, steered, 0.5)
    with pytest.raises(UnlearnkitError, match="they don't share the weight"):
        tradeoff.mix(small_problem, nn.Linear(2, 2), 0.5)


def test_calibrated_to_a_utility(small_problem: Any) -> None:
    """A model far gone is mixed back until it keeps the share; one that kept it is left as it is."""
    ruined = uk.unlearn(small_problem, "grad_ascent", **{**QUICK, "steps": 12})
    found = tradeoff.calibrate(small_problem, ruined, "retain_probability", 0.8, limit=12, looks=5)
    looks = found.looks.set_index("a")["utility"]
    assert looks[1.0] < 0.8 <= found.utility == looks[found.a] and 0 < found.a < 1
    assert np.isclose(looks.index[looks.index > found.a].min() - found.a, 2**-5)  # the next one tried lost too much
    assert looks[looks.index > found.a].iloc[0] < 0.8
    assert same(found.model, tradeoff.mix(small_problem, ruined, found.a))
    table = uk.evaluate(small_problem, found.measured, ["retain_probability"], limit=12, resamples=0)
    assert table.loc["retain_probability", "relative"] == pytest.approx(found.utility)
    kept = tradeoff.calibrate(small_problem, ruined, "retain_probability", 1e-9, limit=12)
    assert kept.a == 1.0 and len(kept.looks) == 2 and same(kept.model, ruined.model)
    none = tradeoff.calibrate(small_problem, ruined, "retain_probability", 1.0, limit=12, looks=1)
    assert none.a in (0.0, 0.5) and none.utility >= 1.0
    with pytest.raises(UnlearnkitError, match="metric 'retain_probabilty' is unknown|text metric 'retain_probabilty'"):
        tradeoff.calibrate(small_problem, ruined, "retain_probabilty")
