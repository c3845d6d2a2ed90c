"""Attacks that change the weights without any data: quantization, pruning, noise."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.attacks.base import Attack, AttackCard, Curve, register_attack
from unlearnkit.attacks.text.asking import ask, forgotten
from unlearnkit.models.adapters import merged


def quantized(weight: Tensor, bits: int) -> Tensor:
    """Round to nearest on a symmetric grid of 2^bits − 1 levels per output row: (out, in) → the same shape."""
    top = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / top  # (out, 1)
    return (weight / scale).round().clamp(-top, top) * scale


def pruned(weight: Tensor, share: float) -> Tensor:
    """The `share` of the entries with the smallest magnitude set to zero, per matrix."""
    count = int(share * weight.numel())
    if not count:
        return weight
    limit = weight.abs().flatten().kthvalue(count).values
    return torch.where(weight.abs() > limit, weight, torch.zeros_like(weight))


class WeightAttack(Attack):
    """Every linear layer but the output embedding is changed by `change`; the questions stay the same."""

    def change(self, weight: Tensor, budget: float, generator: torch.Generator) -> Tensor:
        raise TypeError(f"{type(self).__name__} has no change(weight, budget, generator)")

    @torch.no_grad()
    def attacked(self, model: Any, budget: float, seed: int) -> Any:
        """A changed copy of a model."""
        out = copy.deepcopy(merged(model))  # an adapter apart would be rounded by itself
        generator = torch.Generator().manual_seed(seed)
        head = out.get_output_embeddings()
        for module in out.modules():
            conv1d = type(module).__name__ == "Conv1D"  # GPT-2 keeps its weights transposed
            if (isinstance(module, nn.Linear) or conv1d) and module is not head:
                weight = module.weight.T if conv1d else module.weight
                changed = self.change(weight.float().cpu(), budget, generator).to(weight)
                module.weight.copy_(changed.T if conv1d else changed)
        return out

    def curve(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Curve:
        asked = forgotten(problem)
        for budget in budgets:
            yield budget, ask(problem, model if budget == self.identity else self.attacked(model, budget, seed), asked)


@register_attack("quantize")
class Quantize(WeightAttack):
    """Weight-only round-to-nearest quantization."""

    card = AttackCard(
        "Quantization",
        "Zhang et al. 2024, arXiv 2410.16454",
        "weights",
        "the change made by unlearning is smaller than a rounding step, and rounds away",
    )
    unit = "bits a weight"
    whole = True
    budgets = (16, 8, 4, 3)
    least, most = 2, 32
    identity = 16

    def change(self, weight: Tensor, budget: float, generator: torch.Generator) -> Tensor:
        return quantized(weight, int(budget))


@register_attack("prune")
class Prune(WeightAttack):
    """Magnitude pruning."""

    card = AttackCard(
        "Pruning", "Jia et al. 2023, arXiv 2304.04934 (sparsity and unlearning)", "weights",
        "few weights carry the suppression",
    )  # fmt: skip
    unit = "share of weights removed"
    budgets = (0, 0.1, 0.2, 0.4)
    most = 1

    def change(self, weight: Tensor, budget: float, generator: torch.Generator) -> Tensor:
        return pruned(weight, budget)


@register_attack("noise")
class Noise(WeightAttack):
    """Gaussian noise on every weight, in units of the matrix's standard deviation."""

    card = AttackCard(
        "Weight noise", "Fan et al. 2025, arXiv 2502.05374 (sharpness and relearning)", "weights",
        "suppression sits in a sharp minimum that a small push leaves",
    )  # fmt: skip
    unit = "noise, standard deviations of the weights"
    budgets = (0, 0.05, 0.1, 0.2)

    def change(self, weight: Tensor, budget: float, generator: torch.Generator) -> Tensor:
        return weight + budget * weight.std() * torch.randn(weight.shape, generator=generator)
