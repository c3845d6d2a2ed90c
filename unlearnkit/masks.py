"""Weight masks: which weights a gradient method may change. A masked-out weight stays bit-identical.

SalUn: Fan et al. 2024, arXiv 2310.12508; WAGLE: Jia et al. 2024, arXiv 2410.17509. `random` is the control of the same
size that belongs beside each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.registry import Registry

MASKS: Registry[Callable[..., dict[str, Tensor]]] = Registry("mask")
BATCHES = 8  # per gradient


def _mean_gradient(model: nn.Module, parameters: dict[str, Tensor], data: Any, view: str) -> dict[str, Tensor]:
    """∇ℓ of one split at the original, averaged over at most `BATCHES` batches."""
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for loss in data.losses(model, view, BATCHES):
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                total[name] += gradient / BATCHES
    return total


def _top(scores: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """1 for the `share` of all weights with the highest score, over the whole model (ties by position)."""
    flat = torch.cat([s.reshape(-1).float() for s in scores.values()])
    keep = torch.zeros_like(flat)
    keep[flat.argsort(descending=True, stable=True)[: round(share * len(flat))]] = 1
    parts = keep.split([s.numel() for s in scores.values()])
    return {name: part.view_as(s).to(s.dtype) for (name, s), part in zip(scores.items(), parts, strict=True)}


@MASKS.register("salun")
def salun(model: nn.Module, parameters: dict[str, Tensor], data: Any, share: float, seed: int) -> dict[str, Tensor]:
    """The weights with the largest |∇ℓ_f(θ₀)|; share 0.5 is the paper's median."""
    gradient = _mean_gradient(model, parameters, data, "forget")
    return _top({name: g.abs() for name, g in gradient.items()}, share)


@MASKS.register("wagle")
def wagle(
    model: nn.Module, parameters: dict[str, Tensor], data: Any, share: float, seed: int, mu: float = 1e-6
) -> dict[str, Tensor]:
    """The weights with the largest S = |(θ − g_r/μ) ⊙ g_f|."""
    forget = _mean_gradient(model, parameters, data, "forget")
    retain = _mean_gradient(model, parameters, data, "retain")
    return _top({n: ((p.detach() - retain[n] / mu) * forget[n]).abs() for n, p in parameters.items()}, share)


@MASKS.register("random")
def random(model: nn.Module, parameters: dict[str, Tensor], data: Any, share: float, seed: int) -> dict[str, Tensor]:
    """As many weights, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    return _top({n: torch.rand(p.shape, generator=generator).to(p.device) for n, p in parameters.items()}, share)
