"""Selective synaptic dampening: weights that matter to the forget set alone are shrunk; for text and images."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.methods.base import Card, register_method
from unlearnkit.methods.fisher import fisher_diagonal
from unlearnkit.methods.image.base import ImageMethod
from unlearnkit.methods.text.base import TextMethod

CARD = Card(
    "Selective synaptic dampening (SSD)",
    "Foster et al. 2024, arXiv 2308.07707",
    r"\theta_i\leftarrow\min\!\left(\lambda F_{D,i}/F_{f,i},\,1\right)\theta_i\ \text{ where }F_{f,i}>\alpha F_{D,i}",
    "alpha 10, lambda 1 (paper, classifiers), with the retain set in the place of D: to be searched per model",
    "what the forget set shares with the rest can't be told apart by a diagonal",
)


@torch.no_grad()
def dampened(weight: Tensor, forget: Tensor, every: Tensor, select: float, strength: float) -> Tensor:
    """θ·min(λF_D/F_f, 1) where F_f > αF_D, θ elsewhere; elementwise (arXiv 2308.07707, eq. 5)."""
    factor = (strength * every / forget.clamp_min(1e-30)).clamp_max(1)
    return torch.where(forget > select * every, weight * factor, weight)


def dampen(method: Any, problem: Any, seed: int) -> nn.Module:
    """A copy of the original with dampened weights.

    D is the retain set. The paper's D has the forget set in it, F_D = (1−ρ)F_r + ρF_f with ρ its share, which for
    α ≥ 1/ρ selects nothing at all.
    """
    model = problem.original.fresh()
    dtype = next(model.parameters()).dtype
    model.float()  # squared gradients add up badly in bfloat16
    data = problem.training_data(method, model, SimpleNamespace(batch_size=method.batch_size), seed)
    names = method.trainable(model)
    parameters = {n: p for n, p in model.named_parameters() if names is None or n in names}
    for p in parameters.values():
        p.requires_grad_(True)
    forget, every = (fisher_diagonal(model, parameters, data, view, method.batches) for view in ("forget", "retain"))
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(dampened(p, forget[name], every[name], method.select, method.strength))
    return model.to(dtype)


@register_method("ssd", "image")
class ImageSSD(ImageMethod):
    """Dampening of the denoiser, Fisher from its denoising loss on both sides."""

    card = replace(
        CARD,
        defaults="alpha 10, lambda 1 (paper, classifiers), with the retain set in the place of D; tuned for the "
        "built-in world: alpha 20, lambda 0.3",
    )
    loop: ClassVar[dict[str, Any]] = {}
    search = {"select": [1.0, 2.0, 5.0, 10.0, 20.0], "strength": [0.1, 0.3, 1.0]}

    select: float = Field(20.0, ge=0)  # α of the paper: how much more a weight must matter to the forget set
    strength: float = Field(0.3, ge=0)  # λ
    batch_size: int = Field(16, ge=1)
    batches: int = Field(8, ge=1)

    def apply(self, problem: Any, seed: int) -> nn.Module:
        return dampen(self, problem, seed)


@register_method("ssd", "text")
class TextSSD(TextMethod):
    """Dampening of a language model, Fisher from the answer NLL on both sides."""

    card = CARD

    select: float = Field(10.0, ge=0)  # α of the paper
    strength: float = Field(1.0, ge=0)  # λ
    batch_size: int = Field(16, ge=1)
    batches: int = Field(8, ge=1)

    def apply(self, problem: Any, seed: int) -> nn.Module:
        return dampen(self, problem, seed)
