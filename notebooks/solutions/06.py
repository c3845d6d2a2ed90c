"""Solutions of notebook 06: shown folded there, executed by the tests against the same checks."""

import itertools
import math

import numpy as np


def solution_06_1(gradient, x, baseline, steps):
    ways = (np.arange(steps) + 0.5) / steps
    return (x - baseline) * np.mean([gradient(baseline + a * (x - baseline)) for a in ways], axis=0)


def solution_06_2(f, n):
    values, orders = np.zeros(n), list(itertools.permutations(range(n)))
    for order in orders:
        for place, i in enumerate(order):
            values[i] += (f({*order[:place], i}) - f(set(order[:place]))) / len(orders)
    return values


def solution_06_3(oracle, unlearned, least):
    tells = oracle > least
    if not tells.any():
        return math.nan
    gone = np.clip(unlearned[tells] / oracle[tells], 0, 1)
    return float((oracle[tells] * gone).sum() / oracle[tells].sum())


def solution_06_4(n, wanted, k, hits):
    ways = [math.comb(wanted, h) * math.comb(n - wanted, k - h) for h in range(hits, min(wanted, k) + 1)]
    return sum(ways) / math.comb(n, k)


def solution_06_5(positive, negative):
    difference = positive[:, None] - negative[None, :]
    return float((np.sign(difference) + 1).mean() / 2)
