"""Sampling from a text-to-image pipeline: deterministic DDIM, and the states on its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from unlearnkit.models.pipeline import ClassifierFree as ClassifierFree
from unlearnkit.models.pipeline import Conditioning, Diffusion, join

STEPS, GUIDANCE = 20, 3.0  # of a sample, unless something else is asked for


@dataclass
class Visited:
    """A state of a sampling path: x_t (n, c, h, w), t, and the model's predictions there for null prompt and prompt."""

    x: Tensor
    t: Tensor
    null: Tensor
    prompt: Tensor


def noise_of(model: Diffusion, seeds: Sequence[int]) -> Tensor:
    """The starting noise of each seed, the same on every device and whatever the batch: (n, c, h, w)."""
    shape = model.latent_shape
    drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(int(s))) for s in seeds]
    return torch.stack(drawn).to(model.device, model.dtype)


@torch.inference_mode()
def sample(
    model: Diffusion,
    prompts: Sequence[str] | Conditioning,
    seeds: Sequence[int],
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    batch_size: int | None = None,
    start: Tensor | None = None,
    first_step: int = 0,
    progress: bool = False,
) -> np.ndarray:
    """Images by deterministic DDIM, uint8 (n, height, width, 3): the same prompt and seed give the same image.

    Args:
        prompts: a prompt a seed, or their conditioning.
        batch_size: samples at a time; by default as many as `Diffusion.batch` says.
        start: latents to begin from instead of noise, at `first_step`.
        first_step: how many of the `steps` are left out (completion from a noised image).
    """
    latents = denoise(
        model, prompts, seeds, steps, guidance, batch_size, start=start, first_step=first_step, progress=progress
    )
    return model.decode(latents)


@torch.no_grad()
def denoise(
    model: Diffusion,
    prompts: Sequence[str] | Conditioning,
    seeds: Sequence[int],
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    batch_size: int | None = None,
    *,
    start: Tensor | None = None,
    first_step: int = 0,
    last_step: int | None = None,
    path: list[Visited] | None = None,
    progress: bool = False,
) -> Tensor:
    """The latents of `sample`, or those before `last_step`; states on the way are appended to `path` where given."""
    given = prompts if isinstance(prompts, Conditioning) else _unique(model, prompts)
    fixed = model.embed(["", *model.rule.prompts])
    scheduler = ddim(model, steps)
    times = scheduler.timesteps.to(model.device)
    noise = noise_of(model, seeds) if start is None else start.to(model.device, model.dtype)
    parts = []
    batch_size = batch_size or model.batch
    starts = range(0, len(noise), batch_size)
    bar = tqdm(total=len(starts) * steps, desc="sampling", unit="step", leave=False, disable=not progress)
    for begin in starts:
        x = noise[begin : begin + batch_size] * scheduler.init_noise_sigma
        rows = range(begin, begin + len(x))
        model.rule.begin()
        own = given.take(list(rows))
        kinds = [fixed.take([k] * len(x)) for k in range(1 + len(model.rule.prompts))]
        for k, t in enumerate(times[first_step:last_step], start=first_step):
            if guidance == 1 and not model.rule.prompts and path is None:
                followed = model(x, t.expand(len(x)), own)
            else:  # all conditionings in one batch
                together = join([kinds[0], own, *kinds[1:]])
                found = model(x.repeat(len(kinds) + 1, 1, 1, 1), t.expand(len(together.hidden)), together)
                null, prompt, *others = found.chunk(len(kinds) + 1)
                if path is not None:
                    path.append(Visited(x, t, null, prompt))
                followed = model.rule.combine(null, prompt, list(others), guidance, k)
            x = scheduler.step(followed, t, x).prev_sample
            bar.update()
        parts.append(x)
    bar.close()
    return torch.cat(parts)


def ddim(model: Diffusion, steps: int) -> Any:
    """A DDIM scheduler on the pipeline's own noise schedule."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_config(model.schedule.config)
    scheduler.set_timesteps(steps)
    return scheduler


def _unique(model: Diffusion, prompts: Sequence[str]) -> Conditioning:
    """Text states of prompts, each different prompt encoded once."""
    different = list(dict.fromkeys(prompts))
    place = {p: i for i, p in enumerate(different)}
    return model.embed(different).take([place[p] for p in prompts])
