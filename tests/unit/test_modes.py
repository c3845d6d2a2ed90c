"""Models that are looked at come back as they were, whatever happens meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from unlearnkit.metrics.measure import measure
from unlearnkit.modes import at_rest
from unlearnkit.text import generate


def mixed() -> nn.Sequential:
    """In training, but for one part whose statistics are kept, with one frozen weight."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5)).train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    return model


def state(model: nn.Module) -> list[bool]:
    return [part.training for part in model.modules()] + [weight.requires_grad for weight in model.parameters()]


@pytest.mark.parametrize("frozen", [False, True])
def test_every_part_gets_its_own_mode_and_flags_back(frozen: bool) -> None:
    model = mixed()
    before, x = state(model), torch.ones(3, 2)
    with pytest.raises(ZeroDivisionError), at_rest(model, frozen=frozen):
        assert not any(part.training for part in model.modules())
        assert torch.equal(model(x), model(x))
        assert model[0].weight.requires_grad != frozen
        model.requires_grad_(True)
        model.train()
        raise ZeroDivisionError
    assert state(model) == before


def test_a_measurement_that_fails_leaves_the_model_as_it_was(
    small_problem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_problem.original.fresh().train()
    next(model.children()).eval()
    before = state(model)

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(model), "generate", fails)
    for ask in (
        lambda: generate(model, small_problem.tokenizer, small_problem.template, ["Who is it?"], 4),
        lambda: measure(small_problem, model, 4, 4),
    ):
        with pytest.raises(RuntimeError, match="out of memory"):
            ask()
        assert state(model) == before
