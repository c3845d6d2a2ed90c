"""Checks of notebook 06."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
from scipy.stats import hypergeom

from unlearnkit.attribution.text.layers import unlearning_depth
from unlearnkit.exercises import exercise, near


@exercise("06.1")
def integrated(answer: Any) -> str:
    """answer(gradient, x, baseline, steps) → integrated gradients by the midpoint rule."""
    x, baseline, weights = np.array([2.0, -1.0, 0.5]), np.array([1.0, 1.0, 0.0]), np.array([1.0, 3.0, -2.0])

    def product(at: Any) -> Any:  # of f = a·b + c²
        return np.array([at[1], at[0], 2 * at[2]])

    def gate(at: Any) -> Any:  # of f = relu(2a + b − 2)
        return np.array([2.0, 1.0]) * (2 * at[0] + at[1] > 2)

    cases = [
        ("f(a, b, c) = a + 3b − 2c", lambda at: weights, x, baseline, 1),
        ("f(a, b, c) = ab + c²", product, x, baseline, 8),
        ("f(a, b) = relu(2a + b − 2)", gate, np.ones(2), np.zeros(2), 300),
    ]
    for said, gradient, at, zero, steps in cases:
        found = answer(gradient, at, zero, steps)
        if found is None:
            return ""
        if np.shape(found) != at.shape:
            return f"return one number for each of the {len(at)} inputs."
        middle = [(k + 0.5) / steps for k in range(steps)]
        mean = np.mean([gradient(zero + a * (at - zero)) for a in middle], axis=0)
        if np.allclose(found, (at - zero) * mean, atol=1e-6):
            continue
        if np.allclose(found, mean, atol=1e-6):
            return "multiply the mean gradient by x − baseline."
        if np.allclose(found, at * mean, atol=1e-6):
            return "multiply by x − baseline, not by x: the way starts at the baseline."
        if np.allclose(found, (at - zero) * gradient(at), atol=1e-6):
            return "that is the gradient at x alone; average it along the way."
        return f"for {said} it is {np.round((at - zero) * mean, 3).tolist()}, not {np.round(found, 3).tolist()}."
    return ""


@exercise("06.2")
def shapley(answer: Any) -> str:
    """answer(f, n) → Shapley value of each of n inputs; f takes the set of those that are present."""
    draw = np.random.default_rng(6)
    table: dict[frozenset[int], float] = {frozenset(): 0.5}

    def game(present: Any) -> float:
        return table.setdefault(frozenset(present), float(draw.normal()))

    for said, f, n in (("a and b together", lambda s: 4.0 * ({0, 1} <= set(s)), 2), ("a made-up game", game, 3)):
        orders = list(permutations(range(n)))
        wanted = [
            float(np.mean([f(set(o[: o.index(i) + 1])) - f(set(o[: o.index(i)])) for o in orders])) for i in range(n)
        ]
        found = answer(f, n)
        if found is None:
            return ""
        if np.shape(found) != (n,):
            return f"return {n} numbers, one for each input."
        if np.allclose(found, wanted, atol=1e-6):
            continue
        whole = set(range(n))
        if np.allclose(found, [f(whole) - f(whole - {i}) for i in range(n)], atol=1e-6):
            return "that is ablation: each input leaves once, from the full set only."
        if np.allclose(found, [f({i}) - f(set()) for i in range(n)], atol=1e-6):
            return "that is each input alone; it must join in every possible order."
        return f"for {said} it is {np.round(wanted, 3).tolist()}, not {np.round(found, 3).tolist()}."
    return ""


@exercise("06.3")
def depth(answer: Any) -> str:
    """answer(oracle, unlearned, least) → unlearning depth from the drops of each layer."""
    cases = [
        ([1.0, 0.04, 3.0], [0.5, 9.0, 6.0], "a layer of which the oracle tells nothing doesn't count"),
        ([2.0, 1.0], [2.0, 1.0], "as gone as in the oracle"),
        ([2.0, 1.0], [0.0, 0.0], "nothing is gone"),
        ([1.0, 3.0], [-1.0, 1.5], "a drop below nothing counts as nothing"),
    ]
    for oracle, unlearned, why in cases:
        first, second = np.array(oracle), np.array(unlearned)
        wanted, found = unlearning_depth(first, second), answer(first, second, 0.05)
        if near(found, wanted):
            continue
        tells = first > 0.05
        ratios = second[tells] / first[tells]
        if near(found, float(np.clip(ratios, 0, 1).mean())):
            return "layers weigh as much as the oracle's drop there; yours all weigh the same."
        if near(found, float((first[tells] * ratios).sum() / first[tells].sum())):
            return "a layer can't be more than gone, nor less than untouched: clip the ratio to 0 … 1."
        return f"oracle {oracle}, unlearned {unlearned}: {wanted:.3f}, not {found!r} ({why})."
    none = answer(np.array([0.01]), np.array([0.0]), 0.05)
    return "" if isinstance(none, float) and np.isnan(none) else "where no layer of the oracle tells, it is nan."


@exercise("06.4")
def luck(answer: Any) -> str:
    """answer(n, wanted, k, hits) → chance that k of n records drawn at random hold at least `hits` of the wanted."""
    for n, wanted, k, hits in ((10, 3, 3, 1), (220, 20, 20, 5), (6, 2, 3, 0), (8, 4, 4, 4)):
        found = answer(n, wanted, k, hits)
        if near(found, float(hypergeom.sf(hits - 1, n, wanted, k))):
            continue
        if near(found, float(hypergeom.pmf(hits, n, wanted, k))):
            return "that is exactly so many; at least as many is asked for."
        if near(found, float(hypergeom.sf(hits, n, wanted, k))):
            return "at least as many includes exactly as many."
        right = hypergeom.sf(hits - 1, n, wanted, k)
        return f"{k} of {n} drawn, {wanted} wanted: at least {hits} with probability {right:.4f}, not {found!r}."
    return ""


@exercise("06.5")
def auc(answer: Any) -> str:
    """answer(positive, negative) → area under the ROC curve."""
    cases = [
        ([3.0, 2.0], [1.0, 0.0], 1.0, "every pair is in order"),
        ([1.0, 4.0], [2.0, 3.0], 0.5, "half of the pairs"),
        ([1.0, 2.0], [2.0, 2.0, 0.0], 0.5, "a tie counts one half"),
        ([1.0], [1.0, 1.0], 0.5, "nothing but ties: chance"),
        ([0.0], [5.0], 0.0, "the wrong way round"),
    ]
    for positive, negative, wanted, why in cases:
        found = answer(np.array(positive), np.array(negative))
        if near(found, wanted):
            continue
        ties = float(np.mean([[p > n for n in negative] for p in positive]))
        if near(found, ties) and ties != wanted:
            return "a tie counts one half, not nothing."
        return f"for {positive} against {negative} it is {wanted:g}, not {found!r} ({why})."
    return ""
