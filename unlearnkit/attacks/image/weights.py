"""Attacks that change the weights without any data: quantization, pruning, noise; the change is that of the text's."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from unlearnkit.attacks.base import Curve, register_attack
from unlearnkit.attacks.image.showing import ImageAttack, draw, seen, shots, unattacked, unguarded
from unlearnkit.attacks.text import weights as text


class DenoiserWeights(ImageAttack):
    """`change` of the text attack on every linear layer and convolution of denoiser and text encoders."""

    @torch.no_grad()
    def attacked(self, model: Any, budget: float, seed: int) -> Any:
        """A changed copy of a model."""
        out = copy.deepcopy(model)
        generator = torch.Generator().manual_seed(seed)
        change: Any = self.change  # type: ignore[attr-defined]
        for name, module in out.named_modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)) and not name.startswith("vae."):
                rows = module.weight.float().cpu().flatten(1)  # (out, in × height × width)
                module.weight.copy_(change(rows, budget, generator).view(module.weight.shape))
        return out

    def curve(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Curve:
        plain = shots(problem, self.samples, seed)
        for budget in budgets:
            if budget == self.identity:
                yield budget, unattacked(problem, model, plain)
                continue
            changed = self.attacked(model, budget, seed)
            with unguarded(changed):
                images = draw(problem, changed, plain.prompts, plain.seeds)
            yield budget, seen(problem, images, plain.ids)


@register_attack("quantize", "image")
class Quantize(DenoiserWeights, text.Quantize):
    """Weight-only round-to-nearest quantization."""


@register_attack("prune", "image")
class Prune(DenoiserWeights, text.Prune):
    """Magnitude pruning."""


@register_attack("noise", "image")
class Noise(DenoiserWeights, text.Noise):
    """Gaussian noise on every weight."""
