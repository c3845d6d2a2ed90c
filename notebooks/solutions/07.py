"""Solutions of notebook 07: shown folded there, executed by the tests against the same checks."""

import torch


def solution_07_1(forget, retain):
    against = min(0.0, float(forget @ retain)) / float(retain @ retain)
    return retain + forget - against * retain


def solution_07_2(forget, retain):
    apart = forget - retain
    share = float((retain - forget) @ retain) / max(float(apart @ apart), 1e-30)
    share = min(1.0, max(0.0, share))
    return float(torch.linalg.norm(share * forget + (1 - share) * retain))


def solution_07_3(points):
    area, right = 0.0, 0.0
    for forgetting, utility in sorted(points, key=lambda p: -p[1]):
        if forgetting > right and utility > 0:
            area += (forgetting - right) * utility
            right = forgetting
    return area


def solution_07_4(runs, goal):
    reached = [any(f >= goal[0] and u >= goal[1] for f, u in run) for run in runs]
    return sum(reached) / len(reached)


def solution_07_5(utility, share, looks):
    if utility(1.0) >= share:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(looks):
        middle = (low + high) / 2
        low, high = (middle, high) if utility(middle) >= share else (low, middle)
    return low
