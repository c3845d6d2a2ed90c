"""Exact unlearning: the model retrained without the forget set. The yardstick, never a competitor."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from unlearnkit.methods.base import Card, Method, register_method


@register_method("oracle")
class Oracle(Method):
    """Returns a model of the problem's own oracles; `index` picks the seed."""

    card = Card(
        "Retraining (oracle)",
        "the definition of exact unlearning: Cao and Yang 2015; Bourtoule et al. 2021, arXiv 1912.03817",
        r"\theta = \mathrm{train}(\mathcal{D}\setminus f)",
        "the recipe of the original, another seed",
        "costs a full training; out of reach for models whose training data is gone",
    )

    index: int = -1  # which of the problem's oracles; the last by default, metrics compare with the first

    def apply(self, problem: Any, seed: int) -> nn.Module:
        """A copy of the oracle; raises UnlearnkitError when the problem has none."""
        return copy.deepcopy(problem.oracle(self.index))
