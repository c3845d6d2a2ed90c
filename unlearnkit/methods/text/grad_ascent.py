"""Gradient ascent: raise the loss on the forget set, and nothing else."""

from __future__ import annotations

from torch import nn

from unlearnkit.methods.base import Card, Method, Objectives, StepBatch, register_method
from unlearnkit.text import answer_tokens


@register_method("grad_ascent")
class GradAscent(Method):
    """−ℓ_f without a retain term. Unbounded below: it does not stop at forgetting."""

    card = Card(
        "Gradient ascent",
        "Jang et al. 2023, arXiv 2210.01504; Yao et al. 2023, arXiv 2310.10683",
        r"F = -\ell_f,\quad R = 0",
        "lr 1e-5, 10 epochs on 1B-7B models (open-unlearning); tuned for the built-in world",
        "the loss has no lower bound: general ability collapses, the paper-book failure",
    )
    loop = {"lr": 3.3e-5, "steps": 80}

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        (forget,) = answer_tokens(model, batch.forget)
        return Objectives(forget=-forget.loss)
