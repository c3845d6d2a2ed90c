"""The loss along the line from the original through another model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from unlearnkit.attribution.base import View, ViewCard, register_view
from unlearnkit.attribution.losses import loss_of, same_weights, splits_of
from unlearnkit.errors import UnlearnkitError


@register_view("landscape", "image")
@register_view("landscape")
class Landscape(View):
    """Loss (see `loss_of`) of forget, retain and holdout at θ₀ + t(θ − θ₀): one row a model, t and split.

    `place` is t: 0 the original, 1 the model. The line of "random" is the control.
    """

    card = ViewCard(
        "Loss along a line",
        "Goodfellow et al. 2014, arXiv 1412.6544; Li et al. 2018, arXiv 1712.09913",
        "forget NLL that falls back within a short way from the model is a short way to relearn",
    )

    points: int = Field(7, ge=3)
    first: float = -0.25  # t at the start of the line
    last: float = 1.25  # t at its end
    limit: int | None = Field(None, ge=1)  # records or pictures a split; None: as `loss_of` has it

    def rows(self, problem: Any, models: Mapping[str, Any], seed: int) -> pd.DataFrame:
        if self.first >= self.last:
            raise UnlearnkitError(f"first = {self.first:g} must be below last = {self.last:g}.")
        losses = {split: loss_of(problem, split, self.limit) for split in splits_of(problem)}
        probe = copy.deepcopy(models["original"]).eval()
        start = {n: p.detach().clone() for n, p in probe.named_parameters()}
        measure = "nll" if problem.modality == "text" else "loss"
        rows = []
        for who, model in models.items():
            end = dict(model.named_parameters())
            if who == "original" or not same_weights(probe, model):
                continue
            for t in np.linspace(self.first, self.last, self.points):
                with torch.no_grad():
                    for name, weight in probe.named_parameters():
                        weight.copy_(start[name] + float(t) * (end[name].detach().to(weight) - start[name]))
                    values = {split: float(loss(probe)) for split, loss in losses.items()}
                rows += [
                    {"who": who, "item": split, "place": float(t), "label": "", "measure": measure, "value": v}
                    for split, v in values.items()
                ]
        if not rows:
            raise UnlearnkitError("no model has the original's weights, so there is no line to walk along.")
        return pd.DataFrame(rows)
