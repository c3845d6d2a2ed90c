"""Selective amnesia: the concept is overwritten while elastic weights hold the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.fisher import fisher_diagonal
from unlearnkit.methods.image.base import ImageMethod, noised, target, with_retain


def elastic(parameters: Mapping[str, Tensor], start: dict[str, Tensor], fisher: dict[str, Tensor]) -> Tensor:
    """Σ_i F_i (θ_i − θ₀_i)², a scalar (arXiv 2305.10120, eq. 6)."""
    return torch.stack([(fisher[n] * (p - start[n]).square()).sum() for n, p in parameters.items()]).sum()


@register_method("selective_amnesia", "image")
class SelectiveAmnesia(ImageMethod):
    """L(q(x|c)) + γ_r·L(replay) + λ·Σ F_i(θ_i−θ₀_i)²; the surrogate q is pictures of the anchor."""

    card = Card(
        "Selective amnesia",
        "Heng and Soh 2023, arXiv 2305.10120",
        r"F=L(q(x|c)),\quad R=\gamma L(\mathrm{replay})+\lambda\sum_iF_i(\theta_i-\theta_{0,i})^2",
        "gamma 1, lambda 10 (authors' code for DDPM); Fisher from the denoising loss itself, batch means; lr and steps "
        "tuned for the built-in world",
        "the Fisher is diagonal and taken once: far from the original it no longer says what matters",
    )
    needs: ClassVar[tuple[str, ...]] = ("anchor", "retain")
    loop = {"lr": 2.1e-4, "steps": 100, "batch_size": 24}

    elastic: float = Field(10.0, ge=0)  # λ
    fisher_batches: int = Field(8, ge=1)

    def prepare(self, model: nn.Module, data: Any) -> dict[str, dict[str, Tensor]]:
        parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        with torch.enable_grad():
            fisher = fisher_diagonal(model, parameters, data, "retain", self.fisher_batches)
        return {"fisher": fisher, "start": {n: p.detach().clone() for n, p in parameters.items()}}

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        anchor = batch.views["anchor"]
        kept = batch.retain if self.alpha else None
        (found,), replay = with_retain(model, kept, (noised(model, anchor), anchor.t, anchor.text))
        start = batch.reference["start"]
        now = {n.removeprefix("module."): p for n, p in model.named_parameters() if p.requires_grad}
        held = elastic(now, start, batch.reference["fisher"])
        return Objectives(
            F.mse_loss(found, target(model, anchor)),
            self.elastic * held + (0.0 if replay is None else replay),
            {"elastic": float(held.detach())},
        )
