"""Relearning: a few training steps on, and the forgotten is back."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from pydantic import Field

from unlearnkit.attacks.base import Attack, AttackCard, Curve, register_attack
from unlearnkit.attacks.text.asking import ask, forgotten, halves
from unlearnkit.errors import UnlearnkitError
from unlearnkit.text import answer_tokens, collate, context_length, encode, pad_id, shuffled_batches


@register_attack("relearn")
class Relearn(Attack):
    """Fine-tune on one half of the forget facts (the other half is asked), on related text, or on retain text."""

    card = AttackCard(
        "Relearning",
        "Hu et al. 2024, arXiv 2406.13356; Lynch et al. 2024, arXiv 2402.16835",
        "weights",
        "questions that were never shown come back: the knowledge was there all along",
    )
    unit = "fine-tuning steps"
    whole = True
    budgets = (0, 5, 10, 20)

    data: Literal["forget", "related", "retain"] = "forget"  # related: the neighbours' facts
    lr: float = Field(default=3e-4, gt=0, allow_inf_nan=False)
    batch_size: int = Field(default=16, ge=1)

    def shown(self, problem: Any) -> list[tuple[str, str]]:
        """The (question, answer) pairs the attacker holds."""
        if self.data == "forget":
            items = halves(forgotten(problem))[0]
        else:
            items = problem.splits.get("neighbours" if self.data == "related" else "retain", [])
        if not items:
            raise UnlearnkitError("the problem has no neighbours split to relearn from; use data='forget' or 'retain'.")
        return [(question, qa.answer) for qa in items for question in qa.phrasings]

    def curve(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Curve:
        asked = halves(forgotten(problem))[1]
        for budget, attacked in self.models(problem, model, budgets, seed):
            yield budget, ask(problem, attacked, asked)

    def models(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Iterator[tuple[float, Any]]:
        """(budget, attacked model): one copy, ready to be asked, trained on once the next is wanted."""
        attacked = copy.deepcopy(model).float().train()
        for parameter in attacked.parameters():
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(attacked.parameters(), lr=self.lr, weight_decay=0.0, fused=True)
        encoded = encode(problem.tokenizer, problem.template, self.shown(problem), context_length(model))
        order, queue, done = random.Random(seed), [], 0  # type: ignore[var-annotated]
        for budget in sorted(budgets):
            while done < budget:
                queue = queue or shuffled_batches(encoded, self.batch_size, order)
                batch = collate(encoded, queue.pop(), pad_id(problem.tokenizer)).to(problem.device)
                loss = answer_tokens(attacked, batch)[0].loss
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(attacked.parameters(), 1.0)
                optimizer.step()
                done += 1
            attacked.eval()
            yield budget, attacked
            attacked.train()
