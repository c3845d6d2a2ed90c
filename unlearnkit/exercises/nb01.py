"""Checks of notebook 01."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import ks_2samp

from unlearnkit.exercises import exercise, near


@exercise("01.1")
def truth_ratio(answer: Any) -> str:
    """answer(right_nll, wrong_nlls) → r = P_wrong/P_right from mean NLLs."""
    if not near(answer(2.0, [2.0, 2.0]), 1.0):
        return "when right and wrong answers are equally likely, r is 1."
    found = answer(0.5, [1.0, 2.0])
    if near(found, float(np.mean(np.exp([-1.0, -2.0])) / np.exp(-0.5))):
        return "average the NLLs of the wrong answers first, then take exp (a geometric mean of probabilities)."
    return (
        ""
        if near(found, float(np.exp(0.5 - 1.5)))
        else f"for NLL 0.5 against [1, 2], r is exp(0.5 − 1.5), not {found}."
    )


@exercise("01.2")
def ks_statistic(answer: Any) -> str:
    """answer(a, b) → largest distance between the two empirical distribution functions."""
    draw = np.random.default_rng(0)
    for a, b in (
        ([1, 2, 3], [1, 2, 3]),
        ([1, 2], [3, 4]),
        ([1, 3, 5, 7], [2, 3, 6]),
        (draw.normal(size=30), draw.random(20)),
    ):
        wanted = float(ks_2samp(a, b).statistic)
        if not near(answer(np.array(a, float), np.array(b, float)), wanted):
            return f"for {np.round(a, 2)[:4]} and {np.round(b, 2)[:4]} the largest distance is {wanted:.3f}."
    return ""


@exercise("01.3")
def gap(answer: Any) -> str:
    """answer(original, unlearned, oracle) → |unlearned − oracle| / |original − oracle|."""
    if not near(answer(1.0, 0.1, 0.1), 0.0):
        return "a model at the oracle's level has gap 0."
    if not near(answer(1.0, 1.0, 0.1), 1.0):
        return "the original itself has gap 1: nothing happened."
    if not near(answer(1.0, 0.0, 0.5), 1.0):
        return "going past the oracle counts as well: from 1.0 to 0.0 with the oracle at 0.5 is gap 1."
    return "" if near(answer(0.02, 8.0, 3.0), 5 / 2.98) else "a gap can be larger than 1; don't cut it off."


@exercise("01.4")
def verdict(answer: Any) -> str:
    """answer(said, likely, oracle_likely, floor) → 'present', 'suppressed' or 'removed'."""
    cases = {
        (1.0, 0.9, 0.1, 0.05): "present",
        (0.0, 0.9, 0.1, 0.05): "suppressed",
        (0.0, 0.12, 0.1, 0.05): "removed",
        (0.0, 0.3, 0.1, 0.05): "suppressed",
    }
    for given, wanted in cases.items():
        found = answer(*given)
        if found != wanted:
            return f"answers given {given[0]:.0%}, options known {given[1]:.2f}, oracle {given[2]:.2f} ± {given[3]:.2f}: {wanted}."
    return ""
