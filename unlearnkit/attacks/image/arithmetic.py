"""Concept arithmetic: guidance directions that sum to the concept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unlearnkit.attacks.base import AttackCard, Curve, register_attack
from unlearnkit.attacks.image.showing import ImageAttack, draw, seen, shots, unattacked
from unlearnkit.errors import UnlearnkitError
from unlearnkit.modes import at_rest


@dataclass
class Composed:
    """ε∅ + s(ε_c − ε∅) + s Σ w_k(ε_k − ε∅)."""

    prompts: tuple[str, ...]
    weights: tuple[float, ...]

    def begin(self) -> None:
        """Nothing is carried from batch to batch."""

    def combine(self, null: Tensor, prompt: Tensor, others: list[Tensor], guidance: float, step: int) -> Tensor:
        direction = prompt - null
        for weight, other in zip(self.weights, others, strict=True):
            direction = direction + weight * (other - null)
        return null + guidance * direction


@register_attack("concept_arithmetic", "image")
class ConceptArithmetic(ImageAttack):
    """Asks for the anchor, and adds the direction from the anchor's bare name to the concept's.

    "a plain circle" + w("striped" − "plain"): each part is a prompt that no erasure was made for. Budget w = 0 is the
    forget prompt as it is. `parts` gives other prompts and their weights.
    """

    card = AttackCard(
        "Concept arithmetic", "Petsiuk and Saenko 2024, arXiv 2404.13706", "weights",
        "directions of prompts that were left alone still sum to the concept",
    )  # fmt: skip
    unit = "weight of the composed direction"
    budgets = (0, 1, 2)

    parts: dict[str, float] = {}  # prompt → weight; empty: the concept's word 1, the anchor's −1

    def curve(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Curve:
        plain = shots(problem, self.samples, seed)
        if not problem.anchor:
            raise UnlearnkitError("concept arithmetic starts from an anchor; give load_problem(..., anchor='…').")
        parts = self.parts or {problem.word: 1.0, problem.anchor: -1.0}
        base = [problem.replaced(p) for p in plain.prompts]
        rule = model.rule
        with at_rest(model, frozen=True):
            for budget in budgets:
                if not budget:
                    yield budget, unattacked(problem, model, plain)
                    continue
                model.rule = Composed(tuple(parts), tuple(budget * w for w in parts.values()))
                try:
                    images = draw(problem, model, base, plain.seeds)
                finally:
                    model.rule = rule
                yield budget, seen(problem, images, plain.ids)
