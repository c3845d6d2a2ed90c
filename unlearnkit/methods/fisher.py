"""The diagonal of the Fisher information, from squared gradients of batch losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def fisher_diagonal(
    model: nn.Module, parameters: Mapping[str, Tensor], data: Any, view: str, batches: int
) -> dict[str, Tensor]:
    """Mean over batches of the squared gradient of the batch's mean loss: name → the shape of the parameter.

    The gradient is that of a batch, as in the public implementations, so the noise in it is 1/batch size of that of a
    single record: two of these can be compared only at one batch size.
    """
    total = {n: torch.zeros_like(p) for n, p in parameters.items()}
    for loss in data.losses(model, view, batches):
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                total[name] += gradient.square() / batches
    return total
