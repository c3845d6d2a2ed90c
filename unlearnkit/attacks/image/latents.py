"""Attacks on the latents: completion of noised pictures, and pictures traced back to their starting noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from unlearnkit.attacks.base import AttackCard, Curve, register_attack
from unlearnkit.attacks.image.showing import ImageAttack, draw, drawn_with, held, seen, shots, unguarded
from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.diffusion import ddim, noise_of
from unlearnkit.models.pipeline import Conditioning, Diffusion
from unlearnkit.modes import at_rest


@register_attack("completion", "image")
class Completion(ImageAttack):
    """Samples on from real pictures of the concept with noise on them, asked for nothing in particular.

    At budget 1 there is nothing but noise. The less noise, the more of the picture is simply still there: what counts
    is the distance to the oracle at the same noise.
    """

    card = AttackCard(
        "Completion of a noised picture", "Lu et al. 2025, arXiv 2505.17013; Meng et al. 2021, arXiv 2108.01073",
        "sampling", "given a hint of it, the model still draws the concept to the end",
    )  # fmt: skip
    unit = "noise at the start, share of the schedule"
    budgets = (1, 0.9, 0.7, 0.5, 0.3)
    identity = 1

    prompt: str = ""  # neutral

    def curve(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Curve:
        if not 0 < min(budgets) <= max(budgets) <= 1:
            raise UnlearnkitError(f"noise is a share of the schedule above 0 and up to 1, not {tuple(budgets)}.")
        plain = shots(problem, self.samples, seed)
        latents, _, _ = held(problem, len(plain.seeds))
        latents = latents[torch.arange(len(plain.seeds)) % len(latents)].to(model.device, model.dtype)
        steps, _ = drawn_with(problem)
        times = ddim(model, steps).timesteps.to(model.device)
        noise = noise_of(model, plain.seeds)
        with at_rest(model, frozen=True):
            for budget in budgets:
                first = min(steps - 1, round((1 - budget) * steps))
                start = model.noisy(latents, noise, times[first].expand(len(noise))) if first else None
                images = draw(problem, model, [self.prompt] * len(noise), plain.seeds, start=start, first_step=first)
                yield budget, seen(problem, images, plain.ids)


@torch.no_grad()
def inverted(model: Diffusion, latents: Tensor, text: Conditioning, steps: int, rounds: int = 5) -> Tensor:
    """The starting noise from which DDIM with guidance 1 draws `latents`: (n, c, h, w) → (n, c, h, w).

    A step of DDIM is A·x_t + B·prediction(x_t). It is solved for x_t by fixed-point iteration (arXiv 2309.04907),
    which leaves an error that falls with `rounds`, where inverting with the prediction at x_{t−1} leaves a fixed one.
    """
    scheduler = ddim(model, steps)
    x = latents.float()
    for t in reversed(scheduler.timesteps):
        one, zero = torch.ones(1), torch.zeros(1)
        a = scheduler.step(zero, t, one).prev_sample.item()
        b = scheduler.step(one, t, zero).prev_sample.item()
        at = t.to(model.device).expand(len(x))
        target = x
        for _ in range(rounds):
            x = (target - b * model(x.to(model.dtype), at, text).float()) / a
    return x.to(model.dtype)


@register_attack("latent_inversion", "image")
class LatentInversion(ImageAttack):
    """Pictures of the concept are traced back to the noise that draws them; the erased prompt then starts from there.

    Between, noise and inverted latent are mixed on the sphere: budget 0 starts from fresh noise, 1 from the latent.
    """

    card = AttackCard(
        "Latent inversion (DDIM)", "Rusanovsky et al. 2024, arXiv 2412.00782; Song et al. 2020, arXiv 2010.02502",
        "weights", "some starting noise still leads the erased prompt to the concept",
    )  # fmt: skip
    unit = "share of the inverted latent in the start"
    budgets = (0, 0.5, 1)

    rounds: int = Field(3, ge=1)  # of fixed-point iteration a step

    def curve(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Curve:
        if max(budgets) > 1:
            raise UnlearnkitError(f"a share of the inverted latent is at most 1, not {max(budgets):g}.")
        plain = shots(problem, self.samples, seed)
        latents, captions, _ = held(problem, len(plain.seeds))
        rows = [k % len(latents) for k in range(len(plain.seeds))]
        steps, _ = drawn_with(problem)
        noise = noise_of(model, plain.seeds)
        with at_rest(model, frozen=True):
            said = [captions[k] for k in rows]
            with torch.no_grad():
                text = model.embed(said)
            found = None
            for budget in budgets:
                if not budget:
                    yield budget, seen(problem, draw(problem, model, said, plain.seeds), plain.ids)
                    continue
                if found is None:
                    found = inverted(model, latents[rows].to(model.device, model.dtype), text, steps, self.rounds)
                start = mixed(noise, found, budget)
                with unguarded(model):
                    images = draw(problem, model, text, plain.seeds, start=start)
                yield budget, seen(problem, images, plain.ids)


def mixed(noise: Tensor, latent: Tensor, share: float) -> Tensor:
    """sin((1−s)π/2)·noise + sin(sπ/2)·latent: of unit variance where both are."""
    angle = torch.tensor(share * torch.pi / 2)
    return angle.cos() * noise + angle.sin() * latent
