"""SalUn: only the salient weights learn that the concept's pictures carry another name."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.image.base import ImageMethod, noised, predictions, with_retain


@register_method("salun", "image")
class SalUn(ImageMethod):
    """‖ε(x_f,c) − sg ε(x_f,c′)‖² + αL_r on the half of the weights with the largest |∇L_f(θ₀)| (the loop's mask)."""

    card = Card(
        "Saliency unlearning (SalUn)",
        "Fan et al. 2024, arXiv 2310.12508",
        r"F=\|\epsilon_\theta(x_f,c)-\mathrm{sg}\,\epsilon_\theta(x_f,c')\|^2,\quad "
        r"\theta\ \text{masked by}\ |\nabla L_f(\theta_0)|\ge\text{median}",
        "mask share 0.5 (paper); both terms are means; lr and steps tuned for the built-in world",
        "the mask's gain over a random mask of the same size is small; show both",
    )
    loop = {"lr": 2.1e-4, "steps": 100, "batch_size": 24, "mask": "salun", "mask_share": 0.5}

    def prepare(self, model: nn.Module, data: Any) -> None:
        """Nothing; raises UnlearnkitError where there is no concept, or nothing that takes its place."""
        problem = data.problem
        if not problem.word:
            raise UnlearnkitError(
                "salun relabels a concept; individual images have none: use grad_ascent or erasediff."
            )
        if not problem.anchor:
            raise UnlearnkitError("salun relabels a concept; give load_problem(..., anchor='what takes its place').")

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        forget = batch.forget
        x = noised(model, forget)
        with torch.no_grad():
            (other,) = predictions(model, (x, forget.t, forget.anchor))
        (found,), retain = with_retain(model, batch.retain if self.alpha else None, (x, forget.t, forget.text))
        return Objectives(F.mse_loss(found, other), retain)
