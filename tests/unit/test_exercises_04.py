"""Notebook 04's exercises: typical mistakes are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from solved import solved

import unlearnkit as uk
from unlearnkit.methods.image import uce_weight

SOLVED = solved("04")
NULL, PROMPT = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0])


def scored(part: int, change: Callable[[list[dict[str, Any]], str], float]) -> Callable[..., Any]:
    """The right three accuracies of the test pictures, one of them computed in another way."""

    def answer(pictures: list[dict[str, Any]], erased: str) -> list[float]:
        values = [0.75, 0.6, 8 / 9]
        values[part] = change(pictures, erased)
        return values

    return answer


def hits(pictures: list[dict[str, Any]], domain: str, which: Callable[[str], bool]) -> float:
    chosen = [p for p in pictures if which(p["asked"]["style"])]
    return sum(p["read"][domain] == p["asked"][domain] for p in chosen) / len(chosen)


def sld(clamped: bool, gated: bool) -> Callable[..., torch.Tensor]:
    def answer(null: Any, prompt: Any, unsafe: Any, w: float, scale: float, threshold: float) -> torch.Tensor:
        mu = (scale * (prompt - unsafe)).abs()
        mu = mu.clamp(max=1) if clamped else mu
        mu = mu * (prompt - unsafe < threshold) if gated else mu
        return null + w * (prompt - null - mu * (unsafe - null))

    return answer


WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("04.1", lambda x, n, a: (a * x + (1 - a) * n, x), "square roots"),
    ("04.1", lambda x, n, a: (a**0.5 * x + (1 - a) ** 0.5 * n, (1 - a) ** 0.5 * x - a**0.5 * n), "turned round"),
    ("04.1", lambda x, n, a: (a**0.5 * x + (1 - a) ** 0.5 * n, n), "right angle"),
    ("04.1", lambda x, n, a: (0.6 * x + 0.8 * n, 0.6 * n - 0.8 * x), "from the argument"),
    ("04.1", lambda x, n, a: a**0.5 * x + (1 - a) ** 0.5 * n, "two tensors"),
    ("04.2", lambda w, eta: w * eta, "the sign"),
    ("04.2", lambda w, eta: -eta, "not -1.0"),
    ("04.3", lambda w0, c, v, p, lam: uce_weight(w0, c, v, p, 0.5, 1.0, 0.0), "preserved states are missing"),
    ("04.3", lambda w0, c, v, p, lam: uce_weight(w0, c, v, p, 1.0, 1.0, 1.0), "from the argument"),
    ("04.3", lambda w0, c, v, p, lam: uce_weight(w0, c, v, p, 0.5, 2.0, 1.0), "Σ c cᵀ"),
    ("04.3", lambda w0, c, v, p, lam: w0[0], "shape of w0"),
    ("04.4", scored(0, lambda p, e: 1 - hits(p, "style", lambda s: s != e)), "prompts for striped alone"),
    ("04.4", scored(0, lambda p, e: hits(p, "style", lambda s: s == e)), "high is forgotten"),
    ("04.4", scored(1, lambda p, e: hits(p, "style", lambda s: True)), "leaves out the prompts"),
    ("04.4", scored(2, lambda p, e: hits(p, "object", lambda s: s != e)), "over all prompts"),
    ("04.4", scored(2, lambda p, e: 0.5), "8 of 9"),
    ("04.4", lambda pictures, erased: 0.75, "three shares"),
    ("04.5", sld(clamped=True, gated=False), "threshold"),
    ("04.5", sld(clamped=False, gated=True), "never exceeds 1"),
    ("04.5", lambda null, prompt, unsafe, w, scale, threshold: null + w * (prompt - null), "inside w"),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_a_mistake_is_named(number: str, answer: Callable[..., Any], hint: str, capsys: Any) -> None:
    assert not uk.check(number, answer)
    assert hint in capsys.readouterr().out


@pytest.mark.parametrize(("w", "eta"), [(3.0, 1.0), (7.5, 0.5)])
def test_the_weight_after_esd_is_what_its_target_gives(w: float, eta: float) -> None:
    from unlearnkit.methods.image import esd_target

    erased = NULL + w * (esd_target(NULL, PROMPT, eta) - NULL)
    torch.testing.assert_close(erased, NULL + SOLVED["04.2"](w, eta) * (PROMPT - NULL))
