"""WGA: gradient ascent weighted by the model's own confidence."""

from __future__ import annotations

from pydantic import NonNegativeFloat
from torch import Tensor, nn

from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.text.base import TextMethod
from unlearnkit.text import answer_tokens


def wga_loss(token_nll: Tensor, beta: float) -> Tensor:
    """−mean_t p_t^β·CE_t with p_t = exp(−CE_t) detached; (answer tokens,) → scalar (arXiv 2502.19301)."""
    weight = (-beta * token_nll.detach()).exp()
    return -(weight * token_nll).mean()


@register_method("wga")
class WGA(TextMethod):
    """Tokens that are forgotten already no longer push, which bounds the ascent."""

    card = Card(
        "Weighted gradient ascent (WGA)",
        "Wang et al. 2025, arXiv 2502.19301",
        r"F=-\mathbb{E}_t\left[\bar p_t^{\,\beta}\,\mathrm{CE}_t\right]",
        "beta 1, gamma 1, alpha 1 (open-unlearning); here tuned for the built-in world",
        "the first tokens to lose their probability shield the rest of the answer",
    )
    loop = {"lr": 1.3e-4, "steps": 40}
    search = {"beta": (0.1, 3.0)}

    beta: NonNegativeFloat = 0.62  # β

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        forget, retain = answer_tokens(model, batch.forget, batch.retain)
        return Objectives(wga_loss(forget.token_nll, self.beta), self.retain(retain, batch.reference))
