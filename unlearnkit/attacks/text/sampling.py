"""leak@k: sample several answers; one slip is a leak."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unlearnkit.attacks.base import Attack, AttackCard, Curve, register_attack
from unlearnkit.attacks.text.asking import ANSWER_TOKENS, forgotten, spoken, table
from unlearnkit.metrics.measure import says
from unlearnkit.text import generate


@register_attack("leak")
class Leak(Attack):
    """Share of questions of which at least one of k sampled answers holds the value; k = 0 is the greedy answer."""

    card = AttackCard(
        "leak@k", "Reisizadeh et al. 2025, arXiv 2511.04934", "sampling",
        "the greedy answer is clean, the distribution is not",
    )  # fmt: skip
    unit = "answers sampled a question"
    whole = True
    budgets = (0, 1, 4, 16)

    temperature: float = 1.0

    def curve(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Curve:
        items = forgotten(problem)
        questions = [qa.question for qa in items]
        most = int(max(budgets))
        if most:
            answers = generate(
                model, problem.tokenizer, problem.template, questions, ANSWER_TOKENS, 64, most, self.temperature, seed
            )
            hits = [says(a, items[i // most].value) for i, a in enumerate(answers)]
            found = np.array(hits, float).reshape(len(items), most)  # (questions, samples)
        for budget in sorted(budgets):
            if budget:
                yield budget, table(items, accuracy=found[:, : int(budget)].max(axis=1).tolist())
            else:
                yield budget, spoken(problem, model, items, questions).to_frame()
