"""UNDIAL: self-distillation towards the original's distribution with the label's logit turned down."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.text.base import TextMethod
from unlearnkit.methods.text.reference import Reference, reference
from unlearnkit.text import answer_tokens, widen


def undial_loss(logits: Tensor, reference_logits: Tensor, labels: Tensor, beta: float) -> Tensor:
    """CE(softmax(z₀ − β·onehot(y)), p_θ), mean over answer tokens.

    (answer tokens, vocabulary) twice and (answer tokens,) → scalar (arXiv 2402.10052). Prompt and padding carry no
    label and never reach this function.
    """
    target = widen(reference_logits).detach().clone()
    target[torch.arange(len(labels), device=labels.device), labels] -= beta
    return F.cross_entropy(widen(logits), target.softmax(-1))


@register_method("undial")
class UNDIAL(TextMethod):
    """A fixed, bounded target: the original itself, without its favourite token."""

    card = Card(
        "UNDIAL",
        "Dong et al. 2024, arXiv 2402.10052",
        r"F = \mathrm{CE}\!\left(\mathrm{softmax}(z_0-\beta\,\mathrm{onehot}(y)),\,p_\theta\right)",
        "beta 10 (open-unlearning, lr 1e-4); here tuned for the built-in world",
        "memorised tokens keep a large logit: with a small beta little is forgotten",
    )
    loop = {"lr": 1.9e-4, "steps": 80}
    search = {"beta": (2.0, 30.0)}

    beta: NonNegativeFloat = 11.0  # β: how much the label's logit is lowered

    def prepare(self, model: nn.Module, data: Any) -> dict[str, Reference]:
        return {**super().prepare(model, data), "forget": reference(model, data, "forget", distributions=True)}

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        forget, retain = answer_tokens(model, batch.forget, batch.retain)
        before = batch.reference["forget"].logits(forget)
        return Objectives(
            undial_loss(forget.logits, before, forget.labels, self.beta), self.retain(retain, batch.reference)
        )
