"""What a model says before it is attacked: most curves begin with it, so it is asked once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

import pandas as pd
import torch


def once(problem: Any, model: Any, question: Hashable, find: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A copy of what `find` made of the model, kept for as long as the model lives and its weights are the same."""
    of_models = problem.measured.setdefault("unattacked", WeakKeyDictionary())
    state = fingerprint(model)
    if model not in of_models or of_models[model][0] != state:
        of_models[model] = state, {}
    known = of_models[model][1]
    if question not in known:
        known[question] = find()
    return known[question].copy()


def fingerprint(model: torch.nn.Module) -> str:
    """A digest of weights and buffers, and of the rule by which a pipeline is guided."""
    found = hashlib.blake2b(repr(getattr(model, "rule", None)).encode())
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()
