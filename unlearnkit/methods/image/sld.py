"""Safe latent diffusion: guidance away from the concept while sampling. Suppression by construction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods.base import Card, register_method
from unlearnkit.methods.image.base import ImageMethod

# (warm-up steps, s_S, λ, s_m, β): arXiv 2211.05105, table 2; the authors' code has 20 for the weak s_S
STRENGTHS: dict[str, tuple[int, float, float, float, float]] = {
    "weak": (15, 200.0, 0.0, 0.0, 0.0),
    "medium": (10, 1000.0, 0.01, 0.3, 0.4),
    "strong": (7, 2000.0, 0.025, 0.5, 0.7),
    "max": (0, 5000.0, 1.0, 0.5, 0.7),
}


@dataclass
class SafeLatent:
    """ε∅ + s_g[(ε_c − ε∅) − γ], γ = μ∘(ε_S − ε∅) + s_m ν (arXiv 2211.05105, eqs. 4 to 8).

    μ = clamp(|s_S(ε_c − ε_S)|, 0, 1) where ε_c − ε_S < λ, else 0; ν ← βν + (1 − β)γ; γ acts from the warm-up step on.
    """

    prompts: tuple[str, ...]  # the concept S
    warmup: int
    scale: float  # s_S
    threshold: float  # λ
    momentum: float  # s_m
    beta: float  # β
    moved: Tensor | None = field(default=None, repr=False)  # ν

    def begin(self) -> None:
        """A new batch starts: ν = 0."""
        self.moved = None

    def combine(self, null: Tensor, prompt: Tensor, others: list[Tensor], guidance: float, step: int) -> Tensor:
        (unsafe,) = others
        mu = (self.scale * (prompt - unsafe)).abs().clamp_max(1)
        mu = torch.where(prompt - unsafe < self.threshold, mu, torch.zeros_like(mu))
        before = torch.zeros_like(null) if self.moved is None else self.moved
        gamma = mu * (unsafe - null) + self.momentum * before
        self.moved = self.beta * before + (1 - self.beta) * gamma
        away = gamma if step >= self.warmup else torch.zeros_like(gamma)
        return null + guidance * (prompt - null - away)


@register_method("sld", "image")
class SLD(ImageMethod):
    """The weights stay; sampling steers away from the concept."""

    card = Card(
        "Safe latent diffusion (SLD)",
        "Schramowski et al. 2023, arXiv 2211.05105",
        r"\bar\epsilon=\epsilon_\emptyset+s_g\left[(\epsilon_c-\epsilon_\emptyset)-\gamma\right],\quad "
        r"\gamma=\mu(\epsilon_S-\epsilon_\emptyset)+s_m\nu",
        "the paper's four strengths; tuned for the built-in world: weak, as the others lose more there than they gain; "
        "the warm-up counts sampling steps, not timesteps",
        "inference-time suppression: whoever holds the weights samples without it",
    )

    search = {"strength": ["weak", "medium", "strong", "max"]}

    strength: Literal["weak", "medium", "strong", "max"] = "weak"

    def apply(self, problem: Any, seed: int) -> nn.Module:
        """A copy of the original with the guidance rule; raises UnlearnkitError without a concept."""
        if not problem.word:
            raise UnlearnkitError("sld steers away from a word; individual images have none: use grad_ascent.")
        model = problem.original.fresh()
        model.rule = SafeLatent((problem.word,), *STRENGTHS[self.strength])
        return model
