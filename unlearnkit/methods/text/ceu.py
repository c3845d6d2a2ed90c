"""CEU: cross-entropy to the model's own distribution without the label."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.text.base import TextMethod
from unlearnkit.text import AnswerTokens, answer_tokens, widen


def ceu_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """CE(softmax(stopgrad z with z_y = −∞), p_θ), mean over tokens.

    (answer tokens, vocabulary) and (answer tokens,) → scalar (arXiv 2503.01224).
    """
    target = widen(logits).detach().clone()
    target[torch.arange(len(labels), device=labels.device), labels] = -torch.inf
    return F.cross_entropy(widen(logits), target.softmax(-1))


def after_first(tokens: AnswerTokens) -> Tensor:
    """True for every answer token but the first of its sequence: (answer tokens,)."""
    before = torch.full_like(tokens.sequence[:1], -1)
    return tokens.sequence == torch.cat([before, tokens.sequence[:-1]])


@register_method("ceu")
class CEU(TextMethod):
    """The target has zero probability on the label; the first answer token is left alone, as in the paper's code."""

    card = Card(
        "Cross-entropy unlearning (CEU)",
        "Yang et al. 2025, arXiv 2503.01224",
        r"F=\mathrm{CE}\!\left(\mathrm{softmax}(\bar z\,|\,\bar z_y=-\infty),\,p_\theta\right)",
        "first answer token skipped (open-unlearning); here tuned for the built-in world",
        "the target moves with the model: probability goes to whatever was second, right or wrong",
    )
    loop = {"lr": 3.8e-4, "steps": 20}
    search = {"gamma": (0.05, 1.0)}

    gamma: float = 0.18

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        forget, retain = answer_tokens(model, batch.forget, batch.retain)
        kept = after_first(forget)  # never empty: every answer ends in an end token
        loss = ceu_loss(forget.logits[kept], forget.labels[kept])
        return Objectives(loss, self.retain(retain, batch.reference))
