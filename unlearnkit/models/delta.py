"""What a method changed of a pipeline, as one small safetensors file beside the original that everyone has."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.pipeline import Diffusion

FORMAT = "unlearnkit delta 1"


def save_delta(model: Diffusion, original: Diffusion, path: str | Path, base: str = "") -> Path:
    """The tensors of `model` that differ from the original's, with their new values.

    Args:
        base: name of the original for the file's metadata; default: where it was loaded from.

    Raises:
        UnlearnkitError: another architecture, a method that changed the sampling instead of weights, or a path that
            can't be written.
    """
    model.check_savable()
    if _architecture(model) != _architecture(original):
        raise UnlearnkitError("the model and its original are of different architectures, so there is no delta.")
    before = original.state_dict()
    changed = {
        name: value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
        if not torch.equal(value, before[name].to(value))
    }
    about = {
        "format": FORMAT,
        "base": base or str(original.pipe.config.get("_name_or_path", "")),
        "pipeline": type(model.pipe).__name__,
        "architecture": _architecture(model),
    }
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(changed, part, metadata=about)
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            part.unlink()
        reason = getattr(error, "strerror", None) or error
        raise UnlearnkitError(
            f"{path} could not be written: {reason}; free some space or give another folder."
        ) from error
    return path


def load_delta(model: Diffusion, path: str | Path) -> Diffusion:
    """Put the changes of `save_delta` into the pipeline they were made for, in place; returns it.

    Raises:
        UnlearnkitError: no such file, no delta, or one of another architecture (nothing is changed then).
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            changed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
    except (OSError, SafetensorError) as error:
        raise UnlearnkitError(f"the delta {path} can't be read ({error}); give a file of save_delta.") from error
    if about.get("format") != FORMAT:
        raise UnlearnkitError(f"{path} is no delta of a pipeline; give a file of save_delta.")
    weights = model.state_dict()
    foreign = [n for n, value in changed.items() if n not in weights or weights[n].shape != value.shape]
    if foreign or about.get("architecture") != _architecture(model):
        where = f"; '{foreign[0]}' is the first tensor that does not fit" if foreign else ""
        raise UnlearnkitError(
            f"the delta {path} was made for {about.get('base') or 'another pipeline'} ({about.get('pipeline')}), whose "
            f"architecture is not that of this {type(model.pipe).__name__}{where}; load that one first."
        )
    with torch.no_grad():
        for name, value in changed.items():
            weights[name].copy_(value)
    return model


def _architecture(model: Diffusion) -> str:
    """sha256 of the names and shapes of all weights, 16 hex digits."""
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    return hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()[:16]
