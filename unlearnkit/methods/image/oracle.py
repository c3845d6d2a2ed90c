"""Exact unlearning of a pipeline: retrained without the forgotten pictures. The yardstick, never a competitor."""

from __future__ import annotations

from typing import Any

from torch import nn

from unlearnkit.methods.base import Card, register_method
from unlearnkit.methods.image.base import ImageMethod


@register_method("oracle", "image")
class Oracle(ImageMethod):
    """Returns a pipeline of the problem's own oracles; `index` picks the seed."""

    card = Card(
        "Retraining (oracle)",
        "the definition of exact unlearning: Cao and Yang 2015; Bourtoule et al. 2021, arXiv 1912.03817",
        r"\theta=\mathrm{train}(\mathcal D\setminus f)",
        "the recipe of the original, another seed; the autoencoder is shared",
        "costs a full training; out of reach for models whose training data is gone",
    )

    index: int = -1  # which of the problem's oracles; metrics compare with the first

    def apply(self, problem: Any, seed: int) -> nn.Module:
        """A copy of the oracle; raises UnlearnkitError when the problem has none."""
        if not -len(problem.oracles) <= self.index < len(problem.oracles):
            problem.oracle(self.index)  # raises, and says why
        return problem.oracles[self.index].fresh()
