"""Weights: where a model was changed, and what the weight masks would have chosen."""

from __future__ import annotations

import re
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

DENOISER: dict[str, Any] = {"trained": "full", "batch_size": 4}  # what a mask of a pipeline chooses from, and how


def block_of(name: str) -> str:
    """The part of a model a tensor belongs to: "layer 3", "down 0", "middle", "up 1", "text_encoder", or "rest"."""
    if name.startswith(("text_encoder", "vae.")):
        return name.split(".")[0]
    found = re.search(r"(?:^|\.)(layers|h|down_blocks|up_blocks|mid_block)(?:\.(\d+))?\.", name)
    if not found:
        return "rest"
    if found[1] in ("layers", "h"):
        return f"layer {int(found[2]) + 1}"
    return "middle" if found[1] == "mid_block" else f"{found[1].removesuffix('_blocks')} {found[2]}"


@register_view("weights", "image")
@register_view("weights")
class Weights(View):
    """One row a model, tensor or block, and measure.

    `change` is the relative change ‖θ − θ₀‖ / ‖θ₀‖ of a tensor; `share` its part of the whole squared change. For each
    mask m, `m_share` (who "original") is the part of a tensor's weights the mask chooses, `m_block` the part of the
    mask that lies in a block (see `block_of`; that of the random mask is the block's size), and `m_hit` (at place −1)
    the part of a model's squared change inside the mask, among the weights masks choose from, to be set against the
    same of the random mask; `m_n` the Jaccard overlap of the masks m and n. Masks are those of gradient difference;
    of pipelines, over the weights of the denoiser.
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
            blocks: dict[str, float] = {}
            for name, part in parts.items():
                blocks[block_of(name)] = blocks.get(block_of(name), 0.0) + float(part.sum())
            for place, (block, size) in enumerate(blocks.items()):
                add("original", place, block, f"{mask}_block", size / sum(blocks.values()))
            for who, change in changes.items():
                total = sum(float(change[n].sum()) for n in parts)
                inside = sum(float((change[n] * part).sum()) for n, part in parts.items())
                add(who, -1, "", f"{mask}_hit", inside / total if total else float("nan"))
            for other in list(chosen)[list(chosen).index(mask) :]:
                add("original", -1, "", f"{mask}_{other}", jaccard(parts, chosen[other]))
        return pd.DataFrame(rows)

    def _masks(self, problem: Any, seed: int) -> dict[str, dict[str, Tensor]]:
        name, own = ("grad_diff", {}) if problem.modality == "text" else ("grad_ascent", {"alpha": 1.0, **DENOISER})
        method, loop = configure_method(problem.modality, name, own)
        model = problem.original.fresh().eval()
        data = problem.training_data(method, model, loop, seed)
        names = method.trainable(model)
        for n, p in model.named_parameters():
            p.requires_grad_(names is None or n in names)
        parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
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
