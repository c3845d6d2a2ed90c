"""Weights: where a model was changed, and what the weight masks would have chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from unlearnkit.attribution.base import View, ViewCard, register_view
from unlearnkit.errors import UnlearnkitError
from unlearnkit.masks import MASKS
from unlearnkit.unlearning import configure_method


@register_view("weights")
class Weights(View):
    """One row a model, tensor and measure.

    `change` is the relative change ‖θ − θ₀‖ / ‖θ₀‖ of a tensor; `share` its part of the whole squared change. For each
    mask m, `m_share` (who "original") is the part of a tensor's weights the mask chooses, and `m_hit` (at place −1) the
    part of a model's squared change inside the mask, to be set against the same of the random mask; `m_random` the
    Jaccard overlap of the mask with the random one.
    """

    card = ViewCard(
        "Weights: change and masks",
        "Fan et al. 2024, arXiv 2310.12508; Jia et al. 2024, arXiv 2410.17509",
        "a mask localises if models change inside it more than inside a random one of the same size",
    )

    masks: tuple[str, ...] = ("salun", "wagle", "random")
    mask_share: float = Field(0.5, gt=0, lt=1)

    def rows(self, problem: Any, models: Mapping[str, Any], seed: int) -> pd.DataFrame:
        before = dict(models["original"].named_parameters())
        rows: list[dict[str, Any]] = []

        def add(who: str, place: int, label: str, measure: str, value: float) -> None:
            rows.append(
                {
                    "who": who, "item": "weights", "place": place, "label": label, "measure": measure,
                    "value": float(value),
                }
            )  # fmt: skip

        changes = {who: _squared_change(before, model) for who, model in models.items() if _same(before, model)}
        if "unlearned" not in changes:
            raise UnlearnkitError("the unlearned model has other weights than the original; this view compares them.")
        for who, change in changes.items():
            total = sum(float(c.sum()) for c in change.values())
            for place, (name, c) in enumerate(change.items()):
                size = float(before[name].detach().float().square().sum())
                add(who, place, name, "change", (float(c.sum()) / size) ** 0.5 if size else float("nan"))
                add(who, place, name, "share", float(c.sum()) / total if total else 0.0)
        chosen = self._masks(problem, seed)
        for mask, parts in chosen.items():
            for place, (name, part) in enumerate(parts.items()):
                add("original", place, name, f"{mask}_share", float(part.float().mean()))
            for who, change in changes.items():
                total = sum(float(c.sum()) for c in change.values())
                inside = sum(float((change[n] * part).sum()) for n, part in parts.items())
                add(who, -1, "", f"{mask}_hit", inside / total if total else float("nan"))
            if "random" in chosen:
                add("original", -1, "", f"{mask}_random", jaccard(parts, chosen["random"]))
        return pd.DataFrame(rows)

    def _masks(self, problem: Any, seed: int) -> dict[str, dict[str, Tensor]]:
        method, loop = configure_method(problem.modality, "grad_diff", {})
        model = problem.original.fresh().eval()
        data = problem.training_data(method, model, loop, seed)
        parameters = {n: p.requires_grad_(True) for n, p in model.named_parameters()}
        return {name: MASKS[name](model, parameters, data, self.mask_share, seed) for name in self.masks}


def _same(before: dict[str, Tensor], model: Any) -> bool:
    theirs = dict(model.named_parameters())
    return list(theirs) == list(before) and all(theirs[n].shape == p.shape for n, p in before.items())


@torch.no_grad()
def _squared_change(before: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    return {n: (p.float() - before[n].to(p).float()).square() for n, p in model.named_parameters()}


def jaccard(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """|A ∩ B| / |A ∪ B| of two masks over the same tensors."""
    both = sum(float(((a[n] > 0) & (b[n] > 0)).sum()) for n in a)
    either = sum(float(((a[n] > 0) | (b[n] > 0)).sum()) for n in a)
    return both / either if either else float("nan")
