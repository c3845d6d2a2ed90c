"""Notebook 05's exercises: typical mistakes are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import unlearnkit as uk


def strict(a: Any, b: Any, statistic: Any, draws: int, rng: Any) -> float:
    both, observed = np.concatenate([a, b]), statistic(a, b)
    mixed = [rng.permutation(both) for _ in range(draws)]
    return (1 + sum(statistic(m[: len(a)], m[len(a) :]) > observed for m in mixed)) / (1 + draws)


def without_observed(a: Any, b: Any, statistic: Any, draws: int, rng: Any) -> float:
    both, observed = np.concatenate([a, b]), statistic(a, b)
    mixed = [rng.permutation(both) for _ in range(draws)]
    return float(np.mean([statistic(m[: len(a)], m[len(a) :]) >= observed for m in mixed]))


WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("05.1", lambda n, alpha: alpha ** (1 / n), "the other share"),
    ("05.1", lambda n, alpha: 3 / n, "rule of thumb"),
    ("05.2", lambda edited, value: edited.T @ value, "another state comes closer"),
    ("05.2", lambda edited, value: torch.zeros(3), "a state of shape"),
    (
        "05.2",
        lambda edited, value: (
            torch.linalg.pinv(edited) @ value
            + (torch.tensor([1.0, -1.0]) if len(edited) == 1 else torch.zeros(edited.shape[1]))
        ),
        "a shorter state",
    ),
    ("05.3", lambda null, prompts, weights: null + (weights.reshape(-1, 1, 1) * prompts).sum(0), "a difference"),
    (
        "05.3",
        lambda null, prompts, weights: null + (weights.reshape(-1, 1, 1) * (prompts - null)).sum(0),
        "it stops with",
    ),
    ("05.4", without_observed, "can't be 0"),
    ("05.4", strict, "about"),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_a_mistake_is_named(number: str, answer: Callable[..., Any], hint: str, capsys: Any) -> None:
    assert not uk.check(number, answer)
    assert hint in capsys.readouterr().out
