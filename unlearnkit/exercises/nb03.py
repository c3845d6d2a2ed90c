"""Checks of notebook 03."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import torch

from unlearnkit.attacks.text.weights import quantized
from unlearnkit.exercises import exercise, near


@exercise("03.1")
def recovered(answer: Any) -> str:
    """answer(after, oracle, original, floor) → share of the way from oracle to original, nan within the floor."""
    cases = [
        ((0.6, 0.1, 1.0, 0.05), 5 / 9, "0.5 of the 0.9 between oracle and original"),
        ((0.1, 0.1, 1.0, 0.05), 0.0, "nothing beyond the oracle came back"),
        ((0.5, 2.5, 0.5, 0.1), 1.0, "on a loss the original is below the oracle; all of it came back"),
        ((0.0, 0.2, 1.0, 0.05), -0.25, "below the oracle the share is negative, not 0"),
    ]
    for given, wanted, why in cases:
        found = answer(*given)
        if not near(found, wanted):
            return (
                f"after {given[0]:g}, oracle {given[1]:g}, original {given[2]:g}: {wanted:.2f}, not {found!r} ({why})."
            )
    for given in ((0.5, 0.5, 0.5, 0.0), (0.7, 0.50, 0.54, 0.1), (0.7, 0.54, 0.50, 0.1)):
        found = answer(*given)
        if not (isinstance(found, float) and math.isnan(found)):
            return f"oracle {given[1]:g}, original {given[2]:g}, floor {given[3]:g}: nan, there is nothing to recover."
    return ""


@exercise("03.2")
def rounding(answer: Any) -> str:
    """answer(weight, bits) → quantized weight."""
    weight = torch.tensor([[0.90, -0.32, 0.05], [0.2, -1.6, 0.7]])
    for bits in (3, 4, 8):
        found = answer(weight, bits)
        if not isinstance(found, torch.Tensor) or found.shape != weight.shape:
            return "return a matrix of the shape of weight."
        if torch.allclose(found, quantized(weight, bits), atol=1e-6):
            continue
        whole = weight.abs().max() / (2 ** (bits - 1) - 1)
        if torch.allclose(found, (weight / whole).round() * whole, atol=1e-6):
            return "each row has a scale of its own; yours is that of the whole matrix."
        return f"for {bits} bits there are {2 ** (bits - 1) - 1} steps from 0 to the largest entry of a row."
    zeros = answer(torch.zeros(2, 3), 4)
    return "" if bool((zeros == 0).all()) else "a row of zeros must stay zeros; mind the division."


@exercise("03.3")
def leak_at_k(answer: Any) -> str:
    """answer(n, c, k) → chance that k of n samples, c of which hit, hold a hit."""
    for n, c, k in ((4, 1, 2), (5, 2, 3), (5, 0, 2), (4, 3, 2), (6, 6, 1)):
        sets = list(combinations([i < c for i in range(n)], k))
        wanted = sum(any(s) for s in sets) / len(sets)
        found = answer(n, c, k)
        if near(found, wanted):
            continue
        if near(found, 1 - (1 - c / n) ** k):
            return "that is drawing with replacement; a sample is used at most once."
        return f"of {n} samples {c} hit: {k} of them hold a hit with probability {wanted:.3f}, not {found!r}."
    return ""


@exercise("03.4")
def tau(answer: Any) -> str:
    """answer(a, b) → Kendall's tau of two lists without ties."""
    from scipy.stats import kendalltau

    for a, b in (([1, 2, 3], [1, 3, 2]), ([0.1, 0.7, 0.4, 0.9], [3, 1, 2, 0]), ([1, 2, 3, 4], [1, 2, 10, 11])):
        wanted, found = float(kendalltau(a, b).statistic), answer(a, b)
        if near(found, wanted):
            continue
        if near(found, (wanted + 1) / 2):
            return "that is the share of pairs ordered alike; subtract the share ordered differently."
        return f"for {a} and {b} it is {wanted:.3f}, not {found!r}."
    return ""


@exercise("03.5")
def absence(answer: Any) -> str:
    """answer(low, high, margin) → verdict on a claim that there is nothing."""
    cases = [
        ((-0.02, 0.03, 0.05), "supported", "the whole interval lies within the margin"),
        ((-0.30, 0.30, 0.05), "undecided", "it includes zero, and much else"),
        ((0.08, 0.20, 0.05), "contradicted", "all of it lies beyond the margin"),
        ((-0.20, -0.08, 0.05), "contradicted", "an effect the other way is an effect"),
        ((0.02, 0.20, 0.05), "undecided", "it straddles the margin"),
        ((0.01, 0.04, 0.05), "supported", "an effect, but one smaller than the margin"),
    ]
    for given, wanted, why in cases:
        if (found := answer(*given)) != wanted:
            low, high, margin = given
            return f"[{low:g}, {high:g}] with a margin of {margin:g}: '{wanted}', not {found!r} ({why})."
    return ""
