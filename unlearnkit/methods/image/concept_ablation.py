"""Concept ablation: the concept's prompt gets the anchor's distribution."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.image.base import ImageMethod, Trained, noised, predictions, target, with_retain


@register_method("concept_ablation", "image")
class ConceptAblation(ImageMethod):
    """Both variants look at pictures of the anchor: what is wanted for c is what the model says for a, or the noise."""

    card = Card(
        "Concept ablation",
        "Kumari et al. 2023, arXiv 2303.13516",
        r"F=\|\epsilon_\theta(x_t,c)-\mathrm{sg}\,\epsilon_\theta(x_t,a)\|^2\ \text{(model)},\quad"
        r"\|\epsilon_\theta(x_t,c)-\epsilon\|^2\ \text{(noise)}",
        "cross-attention (authors' code: 100 steps, lr 2e-6 × batch scale on Stable Diffusion); retain weight 1; lr "
        "and steps tuned for the built-in world",
        "the concept's own pictures are never seen, so what they mean in other words stays",
    )
    needs: ClassVar[tuple[str, ...]] = ("anchor", "retain")
    loop = {"lr": 2.5e-3, "steps": 50, "batch_size": 24}

    trained: Trained = "attn2"
    variant: Literal["model", "noise"] = "model"

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        anchor = batch.views["anchor"]  # pictures of a, `text` asks for c and `anchor` for a
        x = noised(model, anchor)
        kept = batch.retain if self.alpha else None
        if self.variant == "noise":
            (found,), retain = with_retain(model, kept, (x, anchor.t, anchor.text))
            return Objectives(F.mse_loss(found, target(model, anchor)), retain)
        assert anchor.anchor is not None
        with torch.no_grad():  # apart: in one pass with the others, its gradient would be computed and thrown away
            (wanted,) = predictions(model, (x, anchor.t, anchor.anchor))
        (found,), retain = with_retain(model, kept, (x, anchor.t, anchor.text))
        return Objectives(F.mse_loss(found, wanted), retain)
