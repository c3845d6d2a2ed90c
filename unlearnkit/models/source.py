"""A model that is loaded when asked for, and kept only when it is small."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

KEEP_LIMIT = 200_000_000  # parameters up to which original and oracles stay in memory once loaded


@dataclass
class ModelSource:
    """A model by name; `keep=False` never holds it, whatever its size."""

    load: Callable[[], Any]
    name: str
    keep: bool = True
    kept: Any = field(default=None, repr=False)

    def get(self) -> Any:
        """The model, shared: don't train it."""
        if self.kept is not None:
            return self.kept
        with torch.inference_mode(False):  # a metric may be the first to ask; what it loads must stay trainable
            model = self.load()
        if self.keep and sum(p.numel() for p in model.parameters()) <= KEEP_LIMIT:
            self.kept = model
        return model

    def fresh(self) -> Any:
        """A copy of its own for the caller to train."""
        return copy.deepcopy(self.kept) if self.kept is not None else self.load()
