"""Models that are only looked at: in eval mode meanwhile, and afterwards as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def at_rest(*models: nn.Module, frozen: bool = False) -> Iterator[None]:
    """While open, the models are in eval mode; afterwards, after an error too, every part has its mode and flags again.

    Args:
        frozen: let no weight take a gradient meanwhile.
    """
    modes = [(part, part.training) for model in models for part in model.modules()]
    flags = [(weight, weight.requires_grad) for model in models for weight in model.parameters()]
    for model in models:
        model.eval()
        if frozen:
            model.requires_grad_(False)
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        for weight, flag in flags:
            weight.requires_grad_(flag)
