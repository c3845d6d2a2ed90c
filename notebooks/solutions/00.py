"""Solutions of notebook 00: shown folded there, executed by the tests against the same checks."""


def solution_00_1(original, unlearned, oracle):
    return abs(unlearned - oracle) / abs(original - oracle)


def solution_00_2(original, oracles):
    first = oracles[0]
    return max(abs(other - first) / abs(original - first) for other in oracles[1:])


def solution_00_3(low, oracles):
    first = oracles[0]
    noise = max(abs(other - first) for other in oracles)
    return low > first + noise
