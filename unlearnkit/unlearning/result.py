"""What `unlearn` returns, and how every verb reads it."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError
from torch import nn

from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods import METHODS
from unlearnkit.models.source import ModelSource

ABOUT = "unlearnkit.json"  # marks a folder as written by `Unlearned.save`


@dataclass
class Unlearned:
    """What `unlearn` returns.

    Attributes:
        model: the unlearned model, in eval mode on its device (a PeftModel when LoRA was asked for).
        trace: a row a step: losses, gradient norms, cosine(g_f, g_r) and, at traced steps, both norms.
        cost: seconds, prepare_seconds, steps, tokens or images, peak_memory_mb, parameters_touched.
        stopped: why the loop ended before its last step; empty when it didn't.
    """

    model: Any
    method: str
    settings: dict[str, Any]
    seed: int
    trace: pd.DataFrame
    cost: dict[str, float]
    stopped: str = ""

    def __repr__(self) -> str:
        steps, seconds = self.cost.get("steps", 0), self.cost.get("seconds", 0.0)
        end = f", stopped: {self.stopped}" if self.stopped else ""
        return f"Unlearned({self.method}, seed {self.seed}; {steps:g} steps, {seconds:.1f} s{end}; .model .trace .cost)"

    def save(self, folder: str | Path, tokenizer: Any = None, original: Any = None) -> Path:
        """Model (adapter, or whole pipeline) and tokenizer in safetensors, with the settings and the trace beside them.

        Args:
            original: of a pipeline; with it, only the tensors that differ from it are saved, in ``delta.safetensors``
                (see `unlearnkit.models.delta.load_delta`).

        Raises:
            UnlearnkitError: the folder holds other things than a model saved before, or could not be written (what
                was in it is as it was), or the method has no weights of its own.
        """
        from unlearnkit.models.delta import save_delta

        if not isinstance(folder, str | Path) or not str(folder).strip():
            raise UnlearnkitError("no folder was named to save to; give one.")
        folder = free_folder(folder)
        if original is not None and not hasattr(self.model, "pipe"):
            raise UnlearnkitError(
                "a delta is of a pipeline; of a language model a small file is an adapter: unlearn(..., lora=8)."
            )
        about = {"method": self.method, "seed": self.seed, "settings": self.settings, "cost": self.cost}
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
                if original is None:
                    self.model.save_pretrained(work)
                else:
                    save_delta(self.model, original, Path(work, "delta.safetensors"))
                if tokenizer is not None:
                    tokenizer.save_pretrained(work)
                Path(work, ABOUT).write_text(json.dumps(about, indent=1))
                self.trace.to_csv(Path(work, "trace.csv"), index=False)
                for file in sorted(f for f in Path(work).rglob("*") if f.is_file()):
                    final = folder / file.relative_to(work)
                    final.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(file, final)
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UnlearnkitError(
                f"{folder} could not be written: {reason}; free some space or give another folder."
            ) from error
        return folder


def free_folder(folder: Path | str) -> Path:
    """A folder that is new, empty, or holds what `Unlearned.save` wrote before, which is replaced.

    Raises:
        UnlearnkitError: it holds something else, or is a file.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ABOUT).is_file():
        raise UnlearnkitError(f"{folder} holds other files; give a new or empty folder to save to.")
    if folder.exists() and not folder.is_dir():
        raise UnlearnkitError(f"{folder} is a file; give a folder to save to.")
    return folder


class DivergedError(UnlearnkitError):
    """A loss or gradient was not finite; `trace` holds everything up to that step."""

    def __init__(self, message: str, trace: pd.DataFrame) -> None:
        super().__init__(message)
        self.trace = trace


def check_problem(problem: Any) -> None:
    """Raises UnlearnkitError for what `load_problem` has not made."""
    if getattr(problem, "modality", None) not in METHODS:
        raise UnlearnkitError(f"a {type(problem).__name__} is not a problem; make one with load_problem.")


def model_of(problem: Any, unlearned: Any) -> Any:
    """The model in what a user gives to a verb: a model, what `unlearn` returned, or a problem's original or oracle.

    Raises:
        UnlearnkitError: neither, or a model of the other modality.
    """
    check_problem(problem)
    model = unlearned.model if isinstance(unlearned, Unlearned) else unlearned
    model = model.get() if isinstance(model, ModelSource) else model
    if not isinstance(model, nn.Module):
        raise UnlearnkitError(
            f"a {type(unlearned).__name__} is not a model; give what unlearn returned, a model, or a list of these."
        )
    kind = "image" if hasattr(model, "unet") else "text"
    if kind != problem.modality:
        raise UnlearnkitError(f"this is a model for {kind}, and the problem is one of {problem.modality}.")
    return model
