"""Rejection tuning: train the model to answer the forget questions with a refusal."""

from __future__ import annotations

from typing import Any

from torch import nn

from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.text.base import TextMethod, refusals
from unlearnkit.text import answer_tokens


@register_method("idk_nll")
class IdkNLL(TextMethod):
    """ℓ on (question, refusal): the answer is never pushed down, only talked over."""

    card = Card(
        "Rejection tuning (IdkNLL)",
        "Maini et al. 2024, arXiv 2401.06121",
        r"F = \ell(y_{\mathrm{refusal}}\mid x_f)",
        "gamma 1, alpha 1 (open-unlearning); here tuned for the built-in world",
        "suppression: greedy answers are refusals while the answer keeps its probability",
    )
    loop = {"lr": 3.3e-4, "steps": 80}
    search = {"alpha": [1.0, 2.0, 5.0]}

    alpha: float = 2.0

    def views(self, problem: Any, seed: int) -> dict[str, list[tuple[str, str]]]:
        return {"refusal": refusals(problem, seed)}

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        refusal, retain = answer_tokens(model, batch.views["refusal"], batch.retain)
        return Objectives(refusal.loss, self.retain(retain, batch.reference))
