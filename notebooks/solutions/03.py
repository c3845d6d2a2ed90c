"""Solutions of notebook 03: shown folded there, executed by the tests against the same checks."""

import math


def solution_03_1(after, oracle, original, floor):
    distance = original - oracle
    return math.nan if abs(distance) <= floor else (after - oracle) / distance


def solution_03_2(weight, bits):
    top = 2 ** (bits - 1) - 1
    scale = (weight.abs().amax(1, keepdim=True) / top).clamp_min(1e-12)
    return (weight / scale).round() * scale


def solution_03_3(n, c, k):
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def solution_03_4(a, b):
    pairs = [(i, j) for i in range(len(a)) for j in range(i)]
    return sum(1 if (a[i] - a[j]) * (b[i] - b[j]) > 0 else -1 for i, j in pairs) / len(pairs)


def solution_03_5(low, high, margin):
    if -margin <= low and high <= margin:
        return "supported"
    return "contradicted" if low > margin or high < -margin else "undecided"
