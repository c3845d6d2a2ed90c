"""The ways that `unlearnkit bench image` compares with ours: ESD with fresh trajectories, sampling as scripts do it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from unlearnkit.bench.clock import clock, seconds_of, wait
from unlearnkit.methods import Objectives, StepBatch
from unlearnkit.methods.image import ESD, esd_target
from unlearnkit.methods.image.base import parts, with_retain
from unlearnkit.models.diffusion import GUIDANCE, STEPS, ddim, noise_of
from unlearnkit.models.pipeline import Diffusion, join
from unlearnkit.unlearning import configure_method, unlearn


class FreshESD(ESD):
    """ESD as the authors' script has it: every iteration denoises anew, by the model in training, up to a random t.

    The frozen original, a second model in memory, is then asked for its two predictions there. Unlike the script's one
    state an iteration, this takes a batch, and guidance in one pass, as the other way does.
    """

    def prepare(self, model: nn.Module, data: Any) -> Any:
        frozen: Any = deepcopy(model).eval()
        return frozen, frozen.embed(data.problem.asked["forget"]), frozen.embed([""]), data.batch_size

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        frozen, prompts, null, count = batch.reference
        text = prompts.take(torch.randint(len(prompts.hidden), (count,)))
        both = join([null.repeat(count), text])
        scheduler = ddim(frozen, self.bank_steps)
        last = int(torch.randint(self.bank_steps, (1,)))
        with torch.no_grad():
            x = torch.randn(count, *frozen.latent_shape).to(text.device) * scheduler.init_noise_sigma
            for t in scheduler.timesteps[:last].to(text.device):
                without, asked = parts(model)(x.repeat(2, 1, 1, 1), t.expand(2 * count), both).chunk(2)
                x = scheduler.step(without + self.start_guidance * (asked - without), t, x).prev_sample
            t = scheduler.timesteps[last].to(text.device).expand(count)
            wanted = esd_target(frozen(x, t, null.repeat(count)), frozen(x, t, text), self.eta)
        (found,), retain = with_retain(model, batch.retain if self.alpha else None, (x, t, text))
        return Objectives(F.mse_loss(found, wanted), retain)


def timed_esd(problem: Any, method: ESD, steps: int) -> tuple[Any, float]:
    """(what `unlearn` returned, seconds an iteration); the first iteration warms up."""
    times: list[float] = []

    def watch(step: int, model: Any) -> None:
        wait(problem.device)
        times.append(clock())

    done = unlearn(problem, method, steps=steps, trace_every=0, progress=False, on_step=watch)
    return done, float(np.mean(np.diff(times)))


def preparation(problem: Any, method: ESD) -> float:
    """Seconds of what a way does once, before its first iteration."""
    model = problem.original.fresh()
    data = problem.training_data(method, model, configure_method("image", method, {})[1], 0)
    return seconds_of(lambda: method.prepare(model, data))


def two_passes(model: Diffusion, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """Guided samples with a pass for the null prompt and one for the prompt, in batches of the same size."""
    null, scheduler = model.embed([""]), ddim(model, STEPS)
    out = []
    with torch.inference_mode():
        for begin in range(0, len(prompts), model.batch):
            text = model.embed(prompts[begin : begin + model.batch])
            x = noise_of(model, seeds[begin : begin + model.batch]) * scheduler.init_noise_sigma
            for t in scheduler.timesteps.to(model.device):
                at = t.expand(len(x))
                without, asked = model(x, at, null.repeat(len(x))), model(x, at, text)
                x = scheduler.step(without + GUIDANCE * (asked - without), t, x).prev_sample
            out.append(model.decode(x))
    return np.concatenate(out)


def one_call_each(model: Diffusion, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """A call of the plain diffusers pipeline for every picture, as scripts do; the starting noise is the same."""
    noise = noise_of(model, seeds)
    made = [
        model.pipe(
            prompt, latents=noise[k : k + 1], num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="np"
        ).images
        for k, prompt in enumerate(prompts)
    ]
    return (np.concatenate(made) * 255).round().astype(np.uint8)
