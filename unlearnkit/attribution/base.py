"""What an attribution view is, and the control that stands beside every one of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from unlearnkit.models.adapters import merged
from unlearnkit.registry import Registry

COLUMNS = ["view", "who", "item", "place", "label", "measure", "value"]


@dataclass(frozen=True)
class ViewCard:
    """Where a view comes from and how its numbers are read."""

    title: str
    source: str  # paper and arXiv id
    reads: str  # what a difference between the models says


class View(BaseModel):
    """Base of every view; settings are fields.

    `rows` gives a tidy table with the columns of `COLUMNS` but the first: `who` ("original", "unlearned", "oracle",
    "oracle 2", …, "random"), `item` (the record looked at), `place` (a position, a layer: a number), `label` (its
    name), `measure`, `value`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    card: ClassVar[ViewCard]

    def rows(self, problem: Any, models: Mapping[str, Any], seed: int) -> pd.DataFrame:
        """The view of every model; the models are left as they were."""
        raise TypeError(f"{type(self).__name__} has no rows(problem, models, seed); a view must give it")


VIEWS: dict[str, Registry[type[View]]] = {"text": Registry("text view"), "image": Registry("image view")}


def register_view(name: str, modality: Literal["text", "image"] = "text") -> Any:
    """Decorator that files a view class; registered from a notebook cell it works everywhere at once."""
    return VIEWS[modality].register(name)


@torch.no_grad()
def random_change(original: nn.Module, unlearned: nn.Module, seed: int = 0) -> nn.Module:
    """The original moved at random, each tensor as far (Euclidean norm) as the unlearned model's: the control.

    Tensors that only one of the two models has are left alone, so that a model which was only wrapped gives the
    original.
    """
    moved = copy.deepcopy(original).eval()
    theirs = dict(merged(unlearned).named_parameters())
    generator = torch.Generator().manual_seed(2**31 + seed)  # not the numbers that the random mask draws
    for name, weight in moved.named_parameters():
        other = theirs.get(name)
        if other is None or other.shape != weight.shape:
            continue
        size = (other.detach().to(weight) - weight).float().norm()
        noise = torch.randn(weight.shape, generator=generator).to(weight.device, torch.float32)
        weight.add_((noise * (size / noise.norm().clamp_min(1e-12))).to(weight.dtype))
    return moved
