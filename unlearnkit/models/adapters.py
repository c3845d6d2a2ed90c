"""LoRA adapters as part of the weights they change."""

from __future__ import annotations

import copy
from typing import Any


def merged(model: Any) -> Any:
    """The model with its LoRA adapter in the weights, as a copy; any other model as it is."""
    return copy.deepcopy(model).merge_and_unload() if hasattr(model, "peft_config") else model
