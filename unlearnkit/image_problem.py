"""A forget request on a text-to-image pipeline: the concept, what to preserve, the original, and its oracles."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from unlearnkit.data import ImageBatch, ImageData, denoising_loss
from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.diffusion import sample
from unlearnkit.models.load import device_of
from unlearnkit.models.pipeline import Diffusion
from unlearnkit.models.source import ModelSource
from unlearnkit.worlds.pictures import Concepts, Pictures

PROBE = 64  # pictures a probe looks at
SAMPLED = 4  # pictures a prompt, where a problem has prompts but no pictures
FIRST_NOISE = 2_000_000_000  # of those pictures: starting noises that no metric samples with
Labels = dict[str, str]


@dataclass
class ImageProblem:
    """A forget request on a text-to-image model.

    Attributes:
        splits: name → pictures; `forget` and `retain` are what a method is given, `holdout` is never trained. A
            problem of prompts alone has empty ones, and methods that need pictures get samples of the original.
        concept: domain → the erased concept; empty when individual images are forgotten.
        word, anchor: the concept as it stands in prompts, and what takes its place.
        asked: "forget" → prompts that ask for the concept, "retain" → prompts to preserve.
        wanted: the same keys → what each of these prompts asks for, by domain.
        judge: reads samples; None where there is none.
        oracles: pipelines retrained without the forgotten pictures; may be empty.
    """

    name: str
    request: str
    seed: int
    splits: dict[str, Pictures]
    concept: Labels
    word: str
    anchor: str
    asked: dict[str, list[str]]
    wanted: dict[str, list[Labels]]
    original: ModelSource
    oracles: list[ModelSource]
    judge: Any = None
    concepts: Concepts | None = None
    device: torch.device = field(default_factory=device_of)
    modality: str = "image"
    ability_name: str = "inverse loss"
    measured: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        missing = [p for p in self.asked["forget"] if self.word and not contains(p, self.word)]
        if missing:
            raise UnlearnkitError(
                f"the prompt '{missing[0]}' does not contain the concept '{self.word}'; "
                "every forget prompt must name what is to be forgotten."
            )
        if self.word and contains(self.anchor, self.word):
            raise UnlearnkitError(
                f"the anchor '{self.anchor}' contains the concept '{self.word}' whose place it takes; give another."
            )
        kept = [p for p in self.asked["retain"] if self.word and contains(p, self.word)]
        if kept:
            raise UnlearnkitError(
                f"the prompt '{kept[0]}' is to be preserved but contains the concept '{self.word}'; take it out."
            )

    @property
    def model(self) -> Diffusion:
        """The original. Shared: `unlearn` works on a copy."""
        return self.original.get()

    def oracle(self, index: int = 0) -> Diffusion:
        """One of the retrained pipelines; raises when there is none."""
        if not -len(self.oracles) <= index < len(self.oracles):
            raise UnlearnkitError(
                f"oracle {index} was asked for, this problem has {len(self.oracles)}; "
                "give retrained pipelines with load_problem(..., oracles=[...])."
            )
        return self.oracles[index].get()

    def replaced(self, prompt: str) -> str:
        """A prompt with the anchor in place of the concept; one without the concept stays as it is."""
        return swapped(prompt, self.word, self.anchor) if self.word else prompt

    def pictures(self, split: str) -> Pictures:
        """The pictures of a split; samples of the original where the problem has prompts only (made once)."""
        known = self.splits.get(split)
        if known is not None and len(known):
            return known
        asked = [self.replaced(p) for p in self.asked["forget"]] if split == "anchor" else self.asked.get(split)
        if not asked:
            raise UnlearnkitError(f"this problem has neither pictures nor prompts for {split}; give some.")
        if split == "anchor" and self.concepts is not None and (found := self._anchor_pictures()) is not None:
            return found
        key = ("sampled", split)
        if key not in self.measured:
            prompts = [p for p in asked for _ in range(SAMPLED)]
            numbers = range(FIRST_NOISE, FIRST_NOISE + len(prompts))
            images = sample(self.model, prompts, numbers, steps=30, guidance=7.5)
            ids = tuple(f"{split}-{k:04d}" for k in range(len(prompts)))
            self.measured[key] = Pictures(images, tuple(prompts), {}, ids)
        return self.measured[key]

    def _anchor_pictures(self) -> Pictures | None:
        """The retained pictures of the anchor, in the anchor's own words; None when there are none."""
        assert self.concepts is not None
        kept = self.splits["retain"]
        wanted = {self.replaced(self.concepts.prompt(w)) for w in self.wanted["forget"]}
        plain = [self._plain(kept, i) for i in range(len(kept))]
        rows = [i for i, p in enumerate(plain) if p in wanted]
        if not rows:
            return None
        found = kept.take(rows)
        captions = [c if contains(c, self.anchor) else self._plain(found, i) for i, c in enumerate(found.captions)]
        return replace(found, captions=tuple(captions))

    def latents(self, split: str) -> torch.Tensor:
        """The pictures of a split as latents, encoded once: (n, c, h, w)."""
        key = ("latents", split)
        if key not in self.measured:
            images, side = self.pictures(split).images, self.model.image_size
            if images.shape[1:3] != (side, side):
                raise UnlearnkitError(
                    f"the pictures of {self.name} are {images.shape[2]}×{images.shape[1]} pixels, the pipeline "
                    f"{self.original.name} draws {side}×{side}; resize them."
                )
            self.measured[key] = self.model.encode(images)
        return self.measured[key]

    def training_data(self, method: Any, model: Diffusion, loop: Any, seed: int) -> ImageData:
        """What the loop draws from: latents and text states of the forget and the retain side."""
        needed = method.views_needed()
        if "retain" in needed and not len(self.splits["retain"]) and not self.asked["retain"]:
            without = method.model_copy(update={"alpha": 0.0}).views_needed()
            raise UnlearnkitError(
                f"{type(method).__name__} needs something to retain; give load_problem(..., preserve=['a prompt', …])"
                + ("." if "retain" in without else " or set alpha=0.")
            )
        if "anchor" in needed and not (self.word and self.anchor):
            raise UnlearnkitError(
                f"{type(method).__name__} maps a concept to an anchor; give "
                "load_problem(..., anchor='what replaces it')."
            )
        return ImageData(self, model, needed, self.device, loop.batch_size, torch.Generator().manual_seed(seed))

    def prompts_of(self, view: str) -> tuple[list[str], list[str]]:
        """The prompts a method is given with the pictures of a view, and the same with the concept replaced.

        A request names the concept in its own word, so that other words for it remain an attack. Pictures of the
        anchor are asked for with the concept's prompt. The retain side has no replaced prompts.
        """
        pictures = self.pictures(view)
        captions = list(pictures.captions)
        if view == "anchor":
            return [self.named(c) for c in captions], captions
        if view == "forget" and self.word:
            captions = [c if contains(c, self.word) else self._plain(pictures, i) for i, c in enumerate(captions)]
            return captions, [self.replaced(c) for c in captions]
        return captions, []

    def named(self, prompt: str) -> str:
        """An anchor's prompt with the concept in place of the anchor."""
        return swapped(prompt, self.anchor, self.word)

    def _plain(self, pictures: Pictures, row: int) -> str:
        """The plain caption of a picture, in the concepts' own words."""
        if self.concepts is None:
            return pictures.captions[row]
        return self.concepts.prompt({d: values[row] for d, values in pictures.labels.items()})

    @torch.inference_mode()
    def ability(self, model: Diffusion, split: str) -> float:
        """1 / denoising loss on at most `PROBE` pictures of a split, with fixed noise: higher knows more."""
        probe = self._probe(split)
        return 1 / float(denoising_loss(model, replace(probe, text=model.embed(probe.prompts))))

    def _probe(self, split: str) -> Any:
        key = ("probe", split)
        if key not in self.measured:
            pictures, latents = self.pictures(split), self.latents(split)
            rows = np.linspace(0, len(pictures) - 1, min(PROBE, len(pictures))).round().astype(int).tolist()
            own = torch.Generator().manual_seed(0)
            x = latents[rows]
            noise = torch.randn(x.shape, generator=own).to(x.device, x.dtype)
            t = torch.randint(0, self.model.timesteps, (len(rows),), generator=own).to(x.device)
            prompts = [pictures.captions[i] for i in rows]
            self.measured[key] = ImageBatch(x, noise, t, self.model.embed(prompts), None, torch.tensor(rows), prompts)
        return self.measured[key]

    @property
    def digest(self) -> str:
        """Identifies request, pictures, prompts and models (by source name)."""
        parts = [self.name, self.request, str(self.seed), self.word, self.anchor, self.original.name]
        parts += [o.name for o in self.oracles]
        parts += [f"{name}:{p}" for name, prompts in self.asked.items() for p in prompts]
        parts += [f"{name}:{i}:{c}" for name, s in self.splits.items() for i, c in zip(s.ids, s.captions, strict=True)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(s)}" for name, s in self.splits.items() if len(s))
        return (
            f"ImageProblem({self.name}/{self.request}, seed {self.seed}; {sizes or 'prompts only'}; "
            f"{len(self.oracles)} oracles)"
        )


def swapped(prompt: str, word: str, other: str) -> str:
    """A prompt with `other` in place of `word`, whatever the case; an article before it is put right."""

    def put(found: re.Match[str]) -> str:
        lead = found.group(1)  # "a " or "an ", if there is one
        return f"{lead[0]}{'n' if other[:1].lower() in 'aeiou' else ''} {other}" if lead else other

    return re.sub(rf"(?<!\w)(an?\s+)?{re.escape(word)}(?!\w)", put, prompt, flags=re.IGNORECASE)


def contains(prompt: str, word: str) -> bool:
    """Whether a concept stands in a prompt as whole words, whatever the case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt, re.IGNORECASE) is not None
