"""Solutions of notebook 08: shown folded there, executed by the tests against the same checks."""

import math


def solution_08_1(knows, ignorant):
    won = sum((a > b) + 0.5 * (a == b) for a in knows for b in ignorant)
    return won / (len(knows) * len(ignorant))


def solution_08_2(before, after):
    total = abs(before) + abs(after)
    return 1 - abs(before - after) / total if total else math.nan


def solution_08_3(first, second):
    pairs = [(i, j) for i in range(len(first)) for j in range(i)]
    return sum((first[i] - first[j]) * (second[i] - second[j]) < 0 for i, j in pairs)


def solution_08_4(value, original, oracle):
    gap = abs(value - oracle) / abs(original - oracle)
    return max(0.0, 1 - gap)
