"""Checks of notebook 07."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unlearnkit.balances import forget_first, retain_first
from unlearnkit.exercises import exercise, near
from unlearnkit.tradeoff import attained, bisect, hypervolume


@exercise("07.1")
def asymmetric(answer: Any) -> str:
    """answer(forget, retain) → the step of retain_first."""
    cases = [([1.0, -1.0], [0.0, 2.0]), ([1.0, 1.0], [0.0, 2.0]), ([-3.0, 0.5], [1.0, 1.0])]
    for pair in cases:
        f, r = (torch.tensor(side) for side in pair)
        found, wanted = answer(f, r), retain_first(f, r)
        if found is None:
            return ""
        if not isinstance(found, Tensor) or found.shape != wanted.shape:
            return "return a gradient: a tensor of the shape of the two."
        if torch.allclose(found, wanted, atol=1e-5):
            continue
        if torch.allclose(found, forget_first(f, r), atol=1e-5):
            return "that protects forgetting from retaining; here retain comes first."
        if float(f @ r) > 0:
            return "without conflict (g_f·g_r > 0) nothing is taken away: the step is the sum."
        if torch.allclose(found, wanted - r, atol=1e-5):
            return "the retain gradient itself is missing: g_r plus what is left of g_f."
        return f"for g_f = {f.tolist()}, g_r = {r.tolist()} it is {[round(x, 3) for x in wanted.tolist()]}."
    return ""


@exercise("07.2")
def stationarity(answer: Any) -> str:
    """answer(forget, retain) → norm of the shortest vector between the two."""
    cases = [([1.0, 0.0], [-2.0, 0.0], 0.0), ([1.0, 0.0], [0.0, 1.0], 0.5**0.5), ([1.0, 0.0], [3.0, 0.0], 1.0)]
    cases += [([0.0, 0.0], [3.0, 1.0], 0.0), ([2.0, 1.0], [2.0, 1.0], 5**0.5)]
    for f, r, wanted in cases:
        found = answer(torch.tensor(f), torch.tensor(r))
        if near(found, wanted, 1e-4):
            continue
        if (f, r) == ([1.0, 0.0], [3.0, 0.0]):
            return "the shares stay between 0 and 1: of two gradients that agree, the shorter one is the answer."
        if f == r:
            return "equal gradients leave no line between them to divide by; the answer is their length."
        return f"for g_f = {f}, g_r = {r} the shortest s·g_f + (1 − s)·g_r has the norm {wanted:.3f}, not {found!r}."
    return ""


@exercise("07.3")
def area(answer: Any) -> str:
    """answer(points) → hypervolume above (0, 0)."""
    cases = [[(0.5, 0.8)], [(0.0, 1.0), (0.5, 0.75), (0.75, 0.25), (0.25, 0.5)], [(-0.5, 1.0), (0.4, 0.9), (0.4, 0.9)]]
    for points in cases:
        found, wanted = answer(points), hypervolume(points)
        if near(found, wanted):
            continue
        if near(found, sum(max(f, 0) * max(u, 0) for f, u in points)):
            return "the rectangles overlap; each part of the plane counts once."
        if min(f for f, _ in points) < 0:
            return "a point behind the reference point on one axis adds nothing."
        return f"for {points} the area is {wanted:.4f}, not {found!r}."
    return ""


@exercise("07.4")
def reached(answer: Any) -> str:
    """answer(runs, goal) → share of the runs that attain the goal."""
    runs = [[(0.2, 0.99), (0.7, 0.9)], [(0.9, 0.5), (0.1, 1.0)], [(0.8, 0.95)], [(0.7, 0.9)]]
    points = [p for run in runs for p in run]
    labels = [k for k, run in enumerate(runs) for _ in run]
    for goal in ((0.7, 0.9), (0.8, 0.5), (0.0, 0.0), (0.9, 0.99)):
        found, wanted = answer(runs, goal), attained(points, labels, goal)
        if near(found, wanted):
            continue
        if near(found, sum(f >= goal[0] and u >= goal[1] for f, u in points) / len(points)):
            return "runs are counted, not points: one point that reaches the goal is enough for its run."
        if near(
            found, sum(any(f >= goal[0] for f, _ in r) and any(u >= goal[1] for _, u in r) for r in runs) / len(runs)
        ):
            return "one and the same point must reach both."
        return f"the goal {goal} is attained by {wanted:.2f} of the runs, not {found!r}."
    return ""


@exercise("07.5")
def mixing(answer: Any) -> str:
    """answer(utility, share, looks) → the largest a, to 2^−looks, that keeps the share."""
    for power, share, looks in ((2.0, 0.75, 6), (1.0, 0.9, 4), (2.0, 1.0, 3)):

        def utility(a: float, power: float = power) -> float:
            return 1 - a**power

        found, wanted = answer(utility, share, looks), bisect(utility, share, looks)[0]
        if near(found, wanted):
            continue
        if near(found, wanted + 2.0**-looks):
            return "that one lost too much; return the last a that kept the share."
        return f"for u(a) = 1 − a^{power:g}, share {share:g} and {looks} looks it is {wanted:.5f}, not {found!r}."
    if not near(answer(lambda a: 0.99, 0.9, 6), 1.0):
        return "a model that keeps the share by itself needs no mixing: a = 1."
    return ""
