"""Notebook 06's exercises: typical mistakes are named."""

from __future__ import annotations

from collections.abc import Callable
from math import comb
from typing import Any

import numpy as np
import pytest

import unlearnkit as uk


def mean_gradient(gradient: Any, x: Any, baseline: Any, steps: int) -> Any:
    return np.mean([gradient(baseline + (k + 0.5) / steps * (x - baseline)) for k in range(steps)], axis=0)


def exactly(n: int, wanted: int, k: int, hits: int) -> float:
    return comb(wanted, hits) * comb(n - wanted, k - hits) / comb(n, k)


def ratios(oracle: Any, unlearned: Any, least: float) -> Any:
    return unlearned[oracle > least] / oracle[oracle > least]


WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("06.1", mean_gradient, "multiply the mean gradient"),
    ("06.1", lambda g, x, b, s: x * mean_gradient(g, x, b, s), "not by x"),
    ("06.1", lambda g, x, b, s: (x - b) * g(x), "at x alone"),
    ("06.1", lambda g, x, b, s: 1.0, "one number for each of the 3"),
    ("06.1", lambda g, x, b, s: (x - b) * g(b), "it is"),
    ("06.2", lambda f, n: [f(set(range(n))) - f(set(range(n)) - {i}) for i in range(n)], "ablation"),
    ("06.2", lambda f, n: [f({i}) - f(set()) for i in range(n)], "in every possible order"),
    ("06.2", lambda f, n: 0.0, "return 2 numbers"),
    ("06.3", lambda o, u, least: float(np.clip(ratios(o, u, least), 0, 1).mean()), "weigh"),
    (
        "06.3",
        lambda o, u, least: float((o[o > least] * ratios(o, u, least)).sum() / o[o > least].sum()),
        "clip the ratio",
    ),
    ("06.3", lambda o, u, least: float((o * np.clip(u / o, 0, 1)).sum() / o.sum()), "doesn't count"),
    ("06.4", exactly, "exactly so many"),
    ("06.4", lambda n, w, k, h: sum(exactly(n, w, k, i) for i in range(h + 1, min(w, k) + 1)), "includes exactly"),
    ("06.4", lambda n, w, k, h: 0.5, "at least 1 with probability"),
    ("06.5", lambda p, n: float((p[:, None] > n).mean()), "one half, not nothing"),
    ("06.5", lambda p, n: float((p[:, None] < n).mean()), "every pair is in order"),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_a_mistake_is_named(number: str, answer: Callable[..., Any], hint: str, capsys: Any) -> None:
    assert not uk.check(number, answer)
    assert hint in capsys.readouterr().out
