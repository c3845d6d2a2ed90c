"""Fine-tuning on the retain set alone: the control every table needs."""

from __future__ import annotations

from torch import nn

from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.text.base import TextMethod
from unlearnkit.text import answer_tokens


@register_method("retain_finetune")
class RetainFinetune(TextMethod):
    """Trains on r only and hopes that f fades; whatever a method gains must be gained over this."""

    card = Card(
        "Retain fine-tuning",
        "control; see Golatkar et al. 2020, arXiv 1911.04933",
        r"F = 0,\quad R = \ell_r",
        "no published default; tuned for the built-in world",
        "forgets next to nothing: the forget set is not touched",
    )
    loop = {"lr": 2.1e-4, "steps": 80}

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        (retain,) = answer_tokens(model, batch.retain)
        return Objectives(retain=self.retain(retain, batch.reference))
