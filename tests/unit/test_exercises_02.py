"""Notebook 02's exercises: typical mistakes are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import unlearnkit as uk

WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("02.1", lambda nll, before, beta: -2 / beta * F.logsigmoid(beta * (before - nll)).mean(), "turned round"),
    ("02.1", lambda nll, before, beta: -2 / beta * F.logsigmoid(beta * (nll - before)).sum(), "mean over sequences"),
    ("02.1", lambda nll, before, beta: -1 / beta * F.logsigmoid(beta * (nll - before)).mean(), "the loss is"),
    ("02.2", lambda nll, before, beta: torch.sigmoid(-beta * (nll - before)), "2σ"),
    ("02.2", lambda nll, before, beta: torch.sigmoid(-beta * (nll - before)).mean(), "one weight a sequence"),
    ("02.3", lambda before, now: F.kl_div(before.log_softmax(-1), now.softmax(-1), reduction="batchmean"), "p₀"),
    (
        "02.3",
        lambda before, now: F.kl_div(now.log_softmax(-1), before.softmax(-1), reduction="sum"),
        "mean over tokens",
    ),
    ("02.4", lambda now, before, labels, beta: F.cross_entropy(now, before.softmax(-1)), "only the label's logit"),
    (
        "02.4",
        lambda now, before, labels, beta: F.cross_entropy(now, (now - beta * F.one_hot(labels, 3)).softmax(-1)),
        "the original's logits",
    ),
    ("02.5", lambda nll, lengths, level: -nll.mean(), "pulled back"),
    ("02.5", lambda nll, lengths, level: F.relu(level - nll / lengths).mean(), "pulled back"),
    ("02.5", lambda nll, lengths, level: (nll / lengths - level).square().mean(), "as steep as ascent"),
    ("02.5", lambda nll, lengths, level: (nll - level).abs().mean(), "mean NLL"),
    ("02.5", lambda nll, lengths, level: (nll / lengths - level).abs(), "a scalar"),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_a_mistake_is_named(number: str, answer: Callable[..., Any], hint: str, capsys: Any) -> None:
    assert not uk.check(number, answer)
    assert hint in capsys.readouterr().out
