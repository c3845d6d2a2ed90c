"""Fine-tuning on the retain pictures alone: the control every table needs."""

from __future__ import annotations

from torch import nn

from unlearnkit.data import denoising_loss
from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.image.base import ImageMethod


@register_method("retain_finetune", "image")
class RetainFinetune(ImageMethod):
    """L_r only: whatever a method gains must be gained over this."""

    card = Card(
        "Retain fine-tuning",
        "control; see Fan et al. 2024, arXiv 2310.12508",
        r"F=0,\quad R=L_r",
        "no published default; the loop's settings are those of the other methods",
        "forgets next to nothing: the prompt still means what it meant",
    )
    needs = ("retain",)
    loop = {"lr": 3e-4, "steps": 100, "batch_size": 24}

    def views_needed(self) -> tuple[str, ...]:
        """The retain pictures, whatever alpha is."""
        return self.needs

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        return Objectives(retain=denoising_loss(model, batch.retain))
