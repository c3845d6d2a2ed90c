"""Solutions of notebook 09: shown folded there, executed by the tests against the same checks."""

import json


def solution_09_1(parameters, adapter, loaded):
    if not adapter:
        return 16 * parameters / 1e9
    return (loaded * parameters + 16 * adapter) / 1e9


def solution_09_2(attack, before, low, oracle):
    teaches = attack in ("relearn", "soft_prompt", "concept_inversion")
    if oracle is None and teaches:
        return "not measurable"
    level = before if oracle is None else oracle
    return "present" if low > level else "nothing found"


def solution_09_3(rows):
    names = ("subject", "question", "answer")
    return "".join(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
