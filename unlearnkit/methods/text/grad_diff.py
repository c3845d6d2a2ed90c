"""Gradient difference: ascent on the forget set, descent on the retain set."""

from __future__ import annotations

from torch import nn

from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.text.base import TextMethod
from unlearnkit.text import answer_tokens


@register_method("grad_diff")
class GradDiff(TextMethod):
    """−ℓ_f + R with R = NLL or KL (`retain_loss`)."""

    card = Card(
        "Gradient difference",
        "Liu, Liu and Stone 2022, arXiv 2203.12817; as a TOFU baseline in Maini et al. 2024, arXiv 2401.06121",
        r"F = -\ell_f,\quad R = \ell_r \text{ or } \mathrm{KL}(p_{\theta_0}\|p_\theta)_r",
        "gamma 1, alpha 1 (open-unlearning); here tuned for the built-in world",
        "still unbounded: the forget loss outruns the retain loss, and answers go far past the oracle",
    )
    loop = {"lr": 5.7e-5, "steps": 80}
    search = {"alpha": [1.0, 2.0, 5.0]}

    alpha: float = 5.0

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        forget, retain = answer_tokens(model, batch.forget, batch.retain)
        return Objectives(forget=-forget.loss, retain=self.retain(retain, batch.reference))
