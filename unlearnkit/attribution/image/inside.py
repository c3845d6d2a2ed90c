"""What a pipeline draws of the erased concept, and what its weights still hold: the readings behind a verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from unlearnkit.attacks.base import Attack
from unlearnkit.attacks.image.embeddings import ConceptInversion
from unlearnkit.attacks.image.latents import Completion
from unlearnkit.attacks.image.relearn import Relearn
from unlearnkit.attacks.image.showing import held, shots, unattacked
from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.pipeline import Diffusion

KINDS = {
    "shown": "output", "probability": "output",
    "agreement": "white box", "loss": "white box", "completion": "white box", "inversion": "white box",
    "relearn": "white box",
}  # fmt: skip
PICTURES = 24  # drawn a measure unless a limit is given
ATTACKS: dict[str, tuple[Attack, float]] = {  # with their budget
    "completion": (Completion.model_validate({}), 0.5),  # share of noise
    "inversion": (ConceptInversion.model_validate({}), 30),  # steps
    "relearn": (Relearn.model_validate({}), 10),
}
NOISED = 48  # states of noised pictures of the concept that the denoiser is asked about
Reading = dict[str, "np.ndarray | str"]


def read(problem: Any, model: Diffusion, seed: int, limit: int | None) -> Reading:
    """Measure → a value a picture, or why there is none.

    `shown` and `probability` (the judge's) of the concept in what the model draws when asked for it. Of the weights
    alone, on noised pictures of the concept: `agreement`, the mean squared distance of the denoiser's prediction from
    the original's, both told the original's text states, and `loss`, its own denoising loss when told nothing; the
    judge's probability of the concept in pictures completed from half noise (`completion`), drawn with a newly learned
    embedding of the word (`inversion`), and after a few steps on other prompts' pictures (`relearn`).
    """
    count = limit or PICTURES
    plain = shots(problem, count, seed)
    said = unattacked(problem, model, plain)
    out: Reading = {"shown": said["shown"].to_numpy(), "probability": said["probability"].to_numpy()}
    bare = Diffusion(model.pipe).eval()  # the same weights without rules, filters, and what else stood before them
    out["agreement"], out["loss"] = denoising(problem, bare, seed)
    for name, (attack, budget) in ATTACKS.items():
        try:
            ((_, table),) = attack.model_copy(update={"samples": count}).curve(problem, bare, [budget], seed)
            out[name] = table["probability"].to_numpy()
        except UnlearnkitError as reason:
            out[name] = str(reason).rstrip(".")
    return out


@torch.no_grad()
def denoising(problem: Any, model: Diffusion, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(distance from the original's prediction, loss without a prompt) of noised pictures of the concept: (n,) each."""
    latents, captions, _ = held(problem, NOISED)
    generator = torch.Generator().manual_seed(seed)
    x = latents.to(model.device, model.dtype)
    noise = torch.randn(x.shape, generator=generator).to(x)
    t = torch.linspace(0.1, 0.9, len(x)).mul(model.timesteps).long()[torch.randperm(len(x), generator=generator)]
    t = t.to(x.device)
    noisy, text = model.noisy(x, noise, t), problem.model.embed(captions)
    apart = model(noisy, t, text).float() - problem.model(noisy, t, text).float()
    wrong = model(noisy, t, model.embed([""]).repeat(len(x))).float() - model.target(x, noise, t)
    first, second = (e.square().flatten(1).mean(1).cpu().numpy() for e in (apart, wrong))
    return first, second
