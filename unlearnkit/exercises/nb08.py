"""Checks of notebook 08."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from unlearnkit.exercises import exercise, near
from unlearnkit.metaevaluation.statistics import separation, symmetric_robustness


@exercise("08.1")
def faithfulness(answer: Any) -> str:
    """answer(knows, ignorant) → AUC, ties half."""
    cases = [
        ([3.0, 4.0], [1.0, 2.0]),
        ([1.0], [2.0]),
        ([1.0, 3.0], [2.0, 2.0]),
        ([1.0, 1.0], [1.0]),
        ([5.0, 1.0], [1.0]),
    ]
    for knows, ignorant in cases:
        found, wanted = answer(knows, ignorant), separation(knows, ignorant)
        if near(found, wanted):
            continue
        if near(found, 1 - wanted):
            return "the wrong way round: a knowing model with the larger value is a win."
        pairs = [(a, b) for a in knows for b in ignorant]
        if near(found, sum(a > b for a, b in pairs) / len(pairs)):
            return "a tie is half a win, or a metric that never changes would look worse than a coin."
        if near(found, sum(a >= b for a, b in pairs) / len(pairs)):
            return "a tie is half a win, or a metric that never changes would look perfect."
        return f"for knows = {knows}, ignorant = {ignorant} it is {wanted:.3f}, not {found!r}."
    return ""


@exercise("08.2")
def robustness(answer: Any) -> str:
    """answer(before, after) → symmetric robustness, NaN for two zeros."""
    for before, after in ((1.0, 3.0), (0.5, 0.5), (0.2, 0.0), (-1.0, 1.0), (-2.0, -1.0)):
        found, wanted = answer(before, after), float(symmetric_robustness(before, after))
        if near(found, wanted):
            continue
        if min(before, after) < 0:
            return (
                f"take absolute values below the line: from {before:g} to {after:g} it is {wanted:.3f}, not {found!r}."
            )
        if near(found, abs(before - after) / (abs(before) + abs(after))):
            return "that is the change; robustness is 1 minus it."
        return f"from {before:g} to {after:g} it is {wanted:.3f}, not {found!r}."
    nothing = answer(0.0, 0.0)
    try:
        empty = math.isnan(float(nothing))
    except (TypeError, ValueError):
        empty = False
    return "" if empty else "two zeros say nothing: a metric that can't move is not robust; return nan."


@exercise("08.3")
def discordant(answer: Any) -> str:
    """answer(first, second) → number of pairs that two rankings order differently."""
    cases = [([1, 2, 3], [1, 2, 3]), ([1, 2, 3], [3, 2, 1]), ([1, 2, 3, 4], [2, 1, 4, 3]), ([1, 1, 3], [3, 2, 1])]
    for first, second in cases:
        pairs = [(i, j) for i in range(len(first)) for j in range(i)]
        moves = [(first[i] - first[j]) * (second[i] - second[j]) for i, j in pairs]
        found, wanted = answer(first, second), sum(m < 0 for m in moves)
        if near(found, wanted):
            continue
        if near(found, 2 * wanted):
            return "each pair counts once."
        if near(found, sum(m <= 0 for m in moves)):
            return "a pair that shares a place under one of the two has no order there, so it does not flip."
        if near(found, sum(a != b for a, b in zip(first, second, strict=True))):
            return "those are methods whose place changed; count pairs whose order did."
        return f"for {first} and {second} it is {wanted}, not {found!r}."
    return ""


@exercise("08.4")
def two_sided(answer: Any) -> str:
    """answer(value, original, oracle) → 1 at the oracle, 0 at the original, falling on both sides, never below 0."""
    for original, oracle in ((0.1, 3.0), (1.0, 0.2)):
        for share in (0.0, 0.25, 1.0, 1.5, 2.0, 3.0, -0.5):
            value = original + share * (oracle - original)
            found, wanted = answer(value, original, oracle), max(0.0, 1 - abs(1 - share))
            if near(found, wanted):
                continue
            if share > 1 and near(found, float(np.clip(share, 0, 1))):
                return "past the oracle it must fall again, or ruin gets full marks."
            if near(found, 1 - abs(1 - share)):
                return "cut it off at 0: a model twice as far gone is not worth a negative mark."
            return (
                f"original {original:g}, oracle {oracle:g}, value {value:g}: {wanted:.3f} was expected, not {found!r}."
            )
    return ""
