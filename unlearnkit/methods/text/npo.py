"""Negative preference optimisation: gradient ascent that is bounded by the original model."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor, nn

from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.text.base import TextMethod
from unlearnkit.methods.text.reference import Reference, reference
from unlearnkit.text import answer_tokens


def npo_loss(nll: Tensor, reference_nll: Tensor, beta: float) -> Tensor:
    """−(2/β)·mean log σ(β(L_θ − L₀)); both summed answer NLLs, (sequences,) → scalar (arXiv 2404.05868, eq. 3)."""
    return -2 / beta * F.logsigmoid(beta * (nll - reference_nll)).mean()


@register_method("npo")
class NPO(TextMethod):
    """The dispreferred half of DPO: as β → 0 it is gradient ascent, and it fades once L_θ ≫ L₀."""

    card = Card(
        "Negative preference optimisation",
        "Zhang et al. 2024, arXiv 2404.05868",
        r"F = -\tfrac{2}{\beta}\,\mathbb{E}_f\left[\log\sigma\!\left(\beta(L_\theta-L_{\theta_0})\right)\right]",
        "beta 0.1, gamma 1, alpha 1 (open-unlearning); here tuned for the built-in world",
        "not length-normalised: long answers dominate; pushes far beyond the oracle's loss",
    )
    loop = {"lr": 5.9e-4, "steps": 80}
    search = {"beta": (0.05, 2.0)}

    beta: PositiveFloat = 0.21  # β: how soon the push fades

    def prepare(self, model: nn.Module, data: Any) -> dict[str, Reference]:
        return {**super().prepare(model, data), "forget": reference(model, data, "forget")}

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        forget, retain = answer_tokens(model, batch.forget, batch.retain)
        before = batch.reference["forget"].nll[forget.rows]
        return Objectives(npo_loss(forget.nll, before, self.beta), self.retain(retain, batch.reference))
