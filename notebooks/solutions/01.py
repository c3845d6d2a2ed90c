"""Solutions of notebook 01: shown folded there, executed by the tests against the same checks."""


def solution_01_1(forget, records):
    requested = {record.id for record in forget}
    return {record.id for record in records if record.id not in requested and requested & set(record.sources)}


def solution_01_2(alpha):
    from math import comb

    n = 1
    while 2 / comb(2 * n, n) >= alpha:  # two of all the deals are as extreme as this one
        n += 1
    return n


def solution_01_3(original, unlearned, oracle, floor):
    distance = abs(original - oracle)
    if distance == 0 or floor >= 1:
        return "not measurable"
    if abs(unlearned - oracle) / distance <= floor:
        return "at the oracle"
    return "under" if (unlearned - oracle) * (original - oracle) > 0 else "over"


def solution_01_4(said, known, relearned, oracle, floor):
    beyond = [value > level + floor for value, level in zip((said, known, relearned), oracle, strict=True)]
    if beyond[0]:
        return "present"
    if all(beyond[1:]):
        return "suppressed"
    return "undecided" if any(beyond[1:]) else "removed"
