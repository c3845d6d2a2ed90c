"""What the loop draws its batches from: encoded answers, or latents with their text states."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnkit.models.pipeline import Conditioning, Diffusion, join
from unlearnkit.text import Batch, Encoded, answer_tokens, collate, shuffled_batches


class TrainingData(Protocol):
    """Batches of the views a method trains on; all views but "retain" run in step with "forget"."""

    unit: str  # what the cost counts: "tokens" or "images"
    device: torch.device
    batch_size: int

    def draw(self) -> dict[str, Any]: ...
    def size(self, view: str) -> int: ...
    def losses(self, model: nn.Module, view: str, batches: int) -> Iterator[Tensor]: ...


@dataclass
class TextData:
    """Encoded question–answer pairs by view."""

    encoded: dict[str, list[Encoded]]
    pad: int
    device: torch.device
    batch_size: int
    order: random.Random
    queues: dict[str, list[list[int]]] = field(default_factory=dict)
    unit: str = "tokens"

    def size(self, view: str) -> int:
        return len(self.encoded[view])

    def draw(self) -> dict[str, Batch]:
        """The next batch of every view; each split runs through shuffled epochs of its own."""
        rows = {split: self._next(split) for split in ("forget", "retain")}
        return {
            view: collate(encoded, rows["retain" if view == "retain" else "forget"], self.pad).to(self.device)
            for view, encoded in self.encoded.items()
        }

    def losses(self, model: nn.Module, view: str, batches: int) -> Iterator[Tensor]:
        """ℓ of `batches` batches of a view, taken evenly from it; no order of this object is touched."""
        encoded = self.encoded[view]
        rows = [i * len(encoded) // (batches * self.batch_size) for i in range(batches * self.batch_size)]
        for k in range(batches):
            chosen = rows[k::batches]
            yield answer_tokens(model, collate(encoded, chosen, self.pad).to(self.device))[0].loss

    def _next(self, split: str) -> list[int]:
        if not self.queues.get(split):
            self.queues[split] = shuffled_batches(self.encoded[split], self.batch_size, self.order)
        return self.queues[split].pop()


@dataclass
class ImageBatch:
    """Latents with prompts, and the noise and timestep a loss looks at them with.

    Attributes:
        latents: x₀ (images, c, h, w); noise: the same shape; t: (images,).
        text: states of the prompts; anchor: of the prompts with the concept replaced, None on the retain side.
        rows: which picture of its view each is, (images,).
        prompts: the prompts themselves, for methods that train the text encoder.
    """

    latents: Tensor
    noise: Tensor
    t: Tensor
    text: Conditioning
    anchor: Conditioning | None
    rows: Tensor
    prompts: list[str]

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def count(self) -> int:
        return len(self.latents)


@dataclass
class ImageData:
    """Latents by view, encoded once; text states of every prompt, encoded once.

    Attributes:
        views: what a step draws; others are loaded when a mask or a Fisher asks for their losses.
        latents: view → (pictures, c, h, w).
        prompts: view → a prompt a picture; anchors: view → the same with the concept replaced, where it applies.
        states: text states of all `known` prompts, the null prompt first.
    """

    problem: Any
    model: Diffusion
    views: tuple[str, ...]
    device: torch.device
    batch_size: int
    generator: torch.Generator
    latents: dict[str, Tensor] = field(default_factory=dict)
    prompts: dict[str, list[str]] = field(default_factory=dict)
    anchors: dict[str, list[str]] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    queues: dict[str, list[list[int]]] = field(default_factory=dict)
    unit: str = "images"

    def __post_init__(self) -> None:
        self.states = self._learn([""])
        for view in self.views:
            self._load(view)

    def size(self, view: str) -> int:
        if view not in self.latents:  # a method that needs no pictures of it goes by prompts
            return len(self.problem.asked[view])
        return len(self.latents[view])

    def text(self, prompts: Sequence[str]) -> Conditioning:
        """The states of prompts; new ones are encoded, once, by the text encoder as it is now."""
        if any(p not in self.known for p in prompts):
            self.states = self._learn(prompts)
        return self.states.take([self.known[p] for p in prompts])

    @torch.no_grad()
    def _learn(self, prompts: Sequence[str]) -> Conditioning:
        new = [p for p in dict.fromkeys(prompts) if p not in self.known]
        parts = [self.model.embed(new[i : i + 64]) for i in range(0, len(new), 64)]
        self.known.update({p: len(self.known) + k for k, p in enumerate(new)})
        return join([self.states, *parts] if hasattr(self, "states") else parts)

    def _load(self, view: str) -> None:
        """Latents, prompts and anchor prompts of a view, with their text states."""
        self.latents[view] = self.problem.latents(view).to(self.model.dtype)
        self.prompts[view], anchors = self.problem.prompts_of(view)
        if anchors:
            self.anchors[view] = anchors
        self.text([*self.prompts[view], *anchors])

    def draw(self) -> dict[str, ImageBatch]:
        """The next batch of every view, each with fresh noise and timesteps."""
        return {view: self.batch(view, self._next(view)) for view in self.views}

    def batch(self, view: str, rows: Sequence[int], generator: torch.Generator | None = None) -> ImageBatch:
        """The pictures `rows` of a view; noise and t come from `generator` (default: the loop's own)."""
        generator = generator or self.generator
        x = self.latents[view][list(rows)]
        noise = torch.randn(x.shape, generator=generator).to(x.device, x.dtype)
        t = torch.randint(0, self.model.timesteps, (len(x),), generator=generator).to(x.device)
        prompts = [self.prompts[view][i] for i in rows]
        anchor = self.text([self.anchors[view][i] for i in rows]) if view in self.anchors else None
        return ImageBatch(x, noise, t, self.text(prompts), anchor, torch.tensor(list(rows)), prompts)

    def losses(self, model: nn.Module, view: str, batches: int) -> Iterator[Tensor]:
        """MSE of `batches` batches of a view, taken evenly from it with noise of their own."""
        if view not in self.latents:
            self._load(view)
        size = self.size(view)
        own = torch.Generator().manual_seed(0)
        rows = [i * size // (batches * self.batch_size) for i in range(batches * self.batch_size)]
        live = any(p.requires_grad for n, p in self.model.named_parameters() if n.startswith("text_encoder"))
        for k in range(batches):
            batch = self.batch(view, rows[k::batches], own)
            if live:  # what is trained has its gradient: not the states of before
                batch.text = self.model.embed(batch.prompts)
            yield denoising_loss(model, batch)

    def _next(self, view: str) -> list[int]:
        if not self.queues.get(view):
            rows = torch.randperm(self.size(view), generator=self.generator).tolist()
            width = min(self.batch_size, len(rows))
            rows += rows[: -len(rows) % width]
            self.queues[view] = [rows[i : i + width] for i in range(0, len(rows), width)]
        return self.queues[view].pop()


def denoising_loss(model: nn.Module, batch: ImageBatch) -> Tensor:
    """L: mean squared error of the prediction to the model's own target, a scalar."""
    parts: Any = getattr(model, "module", model)
    x = parts.noisy(batch.latents, batch.noise, batch.t)
    return F.mse_loss(model(x, batch.t, batch.text).float(), parts.target(batch.latents, batch.noise, batch.t).float())
