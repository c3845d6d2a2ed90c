"""SatImp: ascent weighted towards tokens that are neither unsaturated nor forgotten."""

from __future__ import annotations

from pydantic import NonNegativeFloat
from torch import Tensor, nn

from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.text.base import TextMethod
from unlearnkit.text import answer_tokens


def satimp_loss(token_nll: Tensor, beta1: float, beta2: float) -> Tensor:
    """−mean_t p_t^β1·(1−p_t)^β2·CE_t, weights detached; (answer tokens,) → scalar (arXiv 2505.11953)."""
    p = (-token_nll.detach()).exp()
    return -(p**beta1 * (1 - p) ** beta2 * token_nll).mean()


@register_method("satimp")
class SatImp(TextMethod):
    """β₁ weighs by saturation (how well a token is known), β₂ by importance (how much it has to give)."""

    card = Card(
        "SatImp",
        "Yang et al. 2025, arXiv 2505.11953",
        r"F=-\mathbb{E}_t\left[\bar p_t^{\,\beta_1}(1-\bar p_t)^{\beta_2}\,\mathrm{CE}_t\right]",
        "beta1 5, beta2 1, gamma 1, alpha 1 (open-unlearning); here tuned for the built-in world",
        "memorised tokens (p near 1) get a weight near 0 and hardly move",
    )
    loop = {"lr": 5.7e-4, "steps": 40}
    search = {"beta1": (0.1, 5.0), "beta2": (0.1, 2.0)}

    beta1: NonNegativeFloat = 4.8  # β₁
    beta2: NonNegativeFloat = 0.26  # β₂

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        forget, retain = answer_tokens(model, batch.forget, batch.retain)
        loss = satimp_loss(forget.token_nll, self.beta1, self.beta2)
        return Objectives(loss, self.retain(retain, batch.reference))
