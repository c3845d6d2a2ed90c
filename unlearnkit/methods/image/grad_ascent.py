"""Gradient ascent on the denoising loss of the forgotten pictures."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.image.base import ImageMethod, noised, target, with_retain


def capped_ascent(prediction: Tensor, wanted: Tensor, cap: float) -> Tensor:
    """−mean over pictures of min(L, cap): (images, c, h, w) twice → scalar; beyond the cap nothing pushes."""
    loss = F.mse_loss(prediction, wanted, reduction="none").flatten(1).mean(1)  # (images,)
    return -loss.clamp_max(cap).mean()


@register_method("grad_ascent", "image")
class GradAscent(ImageMethod):
    """−L_f + αL_r; with the default α = 0 nothing holds the rest."""

    card = Card(
        "Gradient ascent",
        "Thudi et al. 2022, arXiv 2109.13398; as a diffusion baseline in Fan et al. 2024, arXiv 2310.12508",
        r"F=-\min(L_f,\kappa),\quad R=\alpha L_r",
        "alpha 0 and a cap of 2 (twice the loss of predicting nothing): the control that shows the collapse",
        "the loss has no lower bound of its own; without a retain term every prompt is destroyed",
    )
    loop = {"lr": 3e-4, "steps": 100, "batch_size": 24}

    alpha: float = 0.0
    cap: float = 2.0  # κ: loss beyond which a picture counts as forgotten

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        forget = batch.forget
        kept = batch.retain if self.alpha else None
        (found,), retain = with_retain(model, kept, (noised(model, forget), forget.t, forget.text))
        return Objectives(capped_ascent(found, target(model, forget), self.cap), retain)
