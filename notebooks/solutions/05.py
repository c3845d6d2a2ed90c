"""Solutions of notebook 05: shown folded there, executed by the tests against the same checks."""

import numpy as np
import torch


def solution_05_1(n, alpha):
    return 1 - alpha ** (1 / n)


def solution_05_2(edited, value):
    return torch.linalg.pinv(edited) @ value


def solution_05_3(null, prompts, weights):
    shape = (-1,) + (1,) * null.ndim
    return null + (weights.reshape(shape) * (prompts - null)).sum(0)


def solution_05_4(a, b, statistic, draws, rng):
    both, observed = np.concatenate([a, b]), statistic(a, b)
    mixed = [rng.permutation(both) for _ in range(draws)]
    hits = sum(statistic(m[: len(a)], m[len(a) :]) >= observed for m in mixed)
    return (1 + hits) / (1 + draws)
