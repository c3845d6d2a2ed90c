"""A negative prompt: guidance starts from the concept instead of from nothing. Suppression by construction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods.base import Card, register_method
from unlearnkit.methods.image.base import ImageMethod


@dataclass
class Negative:
    """ε_neg + s(ε_c − ε_neg): the concept takes the place of the null prompt."""

    prompts: tuple[str, ...]

    def begin(self) -> None:
        """Nothing is carried from batch to batch."""

    def combine(self, null: Tensor, prompt: Tensor, others: list[Tensor], guidance: float, step: int) -> Tensor:
        (negative,) = others
        return negative + guidance * (prompt - negative)


@register_method("negative_prompt", "image")
class NegativePrompt(ImageMethod):
    """The weights stay; every sample is drawn with the concept as its negative prompt."""

    card = Card(
        "Negative prompt",
        "practice of diffusers users; see Ho and Salimans 2022, arXiv 2207.12598, for the guidance it changes",
        r"\bar\epsilon=\epsilon_{\mathrm{neg}}+s(\epsilon_c-\epsilon_{\mathrm{neg}})",
        "none to tune",
        "inference-time suppression: whoever holds the weights leaves it out; it pushes every other prompt as well",
    )

    def apply(self, problem: Any, seed: int) -> nn.Module:
        """A copy of the original with the guidance rule; raises UnlearnkitError without a concept."""
        if not problem.word:
            raise UnlearnkitError("negative_prompt steers away from a word; individual images have none.")
        model = problem.original.fresh()
        model.rule = Negative((problem.word,))
        return model
