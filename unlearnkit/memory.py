"""Memory: the peak of this process on the device that is used, and what a training step will hold."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


def reset_peak_memory(device: torch.device) -> None:
    """Start a new peak (GPU only: the operating system's own counter can't be reset)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> float:
    """Peak in MB: allocated by torch on a GPU, resident set of the whole process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


@dataclass(frozen=True)
class TrainingMemory:
    """What one unlearning run holds at its peak, in GB (10⁹ bytes) on the device that trains.

    Attributes:
        parameters, trained: how many there are, and how many of them are trained.
        weights: of the model that is trained, with its adapter.
        original: the untouched model, where it stays in memory beside it.
        optimizer: AdamW's two moments.
        activations: what autograd keeps of the forward pass for the backward pass.
        gradients: what they add to the activations, which go as gradients come; where the trace or a balance looks at
            both losses apart, two or three of every trained weight.
    """

    parameters: int
    trained: int
    weights: float
    original: float
    optimizer: float
    activations: float
    gradients: float

    @property
    def total(self) -> float:
        """The peak: what stays, and activations with the gradients."""
        return self.weights + self.original + self.optimizer + self.activations + self.gradients

    def __str__(self) -> str:
        parts = ("weights", "original", "optimizer", "gradients", "activations")
        said = ", ".join(f"{name} {getattr(self, name):.2g}" for name in parts if getattr(self, name))
        share = (
            f"{self.parameters / 1e6:,.1f}M parameters, {self.trained / max(self.parameters, 1):.0%} of them trained"
        )
        return f"{self.total:.2g} GB of memory ({said}); {share}"


def size_of(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers, shared ones once."""
    held = {id(t): t.numel() * t.element_size() for t in [*module.parameters(), *module.buffers()]}
    return sum(held.values())


def saved_bytes(module: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps of `forward()` for its backward pass, without the module's own parameters.

    Exact for the operators that run. Under `FakeTensorMode` nothing is computed and no memory is needed.
    """
    own = {t.untyped_storage()._cdata for t in [*module.parameters(), *module.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def note(saved: Tensor) -> Tensor:
        kept.setdefault(saved.untyped_storage()._cdata, saved.untyped_storage())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        forward()
    return sum(storage.nbytes() for at, storage in kept.items() if at not in own)
