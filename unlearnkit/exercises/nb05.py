"""Checks of notebook 05."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unlearnkit.exercises import exercise, near


@exercise("05.1")
def upper_bound(answer: Any) -> str:
    """answer(n, alpha) → largest share for which none of n still happens with probability alpha."""
    for n, alpha in ((24, 0.05), (1, 0.05), (200, 0.01)):
        found = answer(n, alpha)
        if near(found, 1 - alpha ** (1 / n)):
            continue
        if near(found, alpha ** (1 / n)):
            return "that is the share that must be without it; the other share is asked for."
        if near(found, 3 / n):
            return "3/n is the rule of thumb for 5%; solve (1 − q)^n = alpha."
        return f"for n = {n}, alpha = {alpha:g} it is {1 - alpha ** (1 / n):.4f}, not {found!r}."
    return ""


@exercise("05.2")
def address(answer: Any) -> str:
    """answer(edited, value) → the shortest state that comes closest to the value."""
    cases = [
        (torch.tensor([[0.2, 0.0], [0.8, 1.0]]), torch.tensor([1.0, 0.0])),
        (torch.tensor([[1.0, 1.0]]), torch.tensor([2.0])),  # wider than high: many states
        (torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([1.0, 3.0])),  # singular: the second part is lost
    ]
    for edited, value in cases:
        found = answer(edited, value)
        if found is None:
            return ""
        if not isinstance(found, Tensor) or found.shape != (edited.shape[1],):
            return f"return a state of shape ({edited.shape[1]},)."
        best = torch.linalg.pinv(edited) @ value
        if (edited @ found - value).norm() > (edited @ best - value).norm() + 1e-4:
            return f"for {edited.tolist()} and {value.tolist()} another state comes closer: {best.tolist()}."
        if found.norm() > best.norm() + 1e-4:
            return "it gets there, but a shorter state does too."
    return ""


@exercise("05.3")
def composed(answer: Any) -> str:
    """answer(null, prompts, weights) → null + Σ w_i (prompt_i − null)."""
    draw = torch.Generator().manual_seed(5)
    null, prompts = torch.randn(2, 3, generator=draw), torch.randn(2, 2, 3, generator=draw)
    weights = torch.tensor([2.0, -0.5])
    wanted = null + 2 * (prompts[0] - null) - 0.5 * (prompts[1] - null)
    found = answer(null, prompts, weights)
    if found is None:
        return ""
    if not isinstance(found, Tensor) or found.shape != null.shape:
        return "return a prediction of the shape of null."
    if torch.allclose(found, 2 * prompts[0] - 0.5 * prompts[1] + null, atol=1e-5):
        return "each direction is a difference from null."
    if not torch.allclose(found, wanted, atol=1e-5):
        return "add to null each prompt's direction times its own weight."
    four = answer(torch.zeros(1, 8, 4, 4), torch.ones(3, 1, 8, 4, 4), torch.ones(3))
    return "" if torch.allclose(four, torch.full((1, 8, 4, 4), 3.0)) else "it must work for any shape of null."


@exercise("05.4")
def permutation(answer: Any) -> str:
    """answer(a, b, statistic, draws, rng) → p-value of a permutation test."""

    def gap(x: Any, y: Any) -> float:
        return float(np.mean(x) - np.mean(y))

    far = answer(np.arange(10.0) + 100, np.arange(10.0), gap, 199, np.random.default_rng(0))
    if far is None:
        return ""
    if near(far, 0.0):
        return "the observed labelling is one of the possible ones and counts: it can't be 0."
    if not near(far, 1 / 200):
        return f"for two samples far apart and 199 draws it is 1/200, not {far!r}."
    a, b = np.array([1.0, 5.0, 2.0]), np.array([3.0, 0.0])
    every = [gap(np.array(p[:3]), np.array(p[3:])) >= gap(a, b) for p in permutations([1.0, 5.0, 2.0, 3.0, 0.0])]
    found = answer(a, b, gap, 4000, np.random.default_rng(1))
    if not near(found, float(np.mean(every)), 0.1):
        return f"for a = [1, 5, 2] and b = [3, 0] it is about {np.mean(every):.2f}, not {found!r}; keep the sizes."
    same = answer(np.ones(4), np.ones(4), gap, 50, np.random.default_rng(2))
    return "" if near(same, 1.0) else "a tie with the observed statistic counts as at least as large: here p is 1."
