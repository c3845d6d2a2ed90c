"""Drawing what was erased: the measures every image attack reports, and the sampler of an attacker with the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field
from torch import Tensor

from unlearnkit.attacks.base import Attack
from unlearnkit.attacks.unattacked import once
from unlearnkit.errors import UnlearnkitError
from unlearnkit.metrics.image import evenly
from unlearnkit.metrics.measure_image import REAL, judge_trouble
from unlearnkit.models.diffusion import GUIDANCE, STEPS, sample
from unlearnkit.models.pipeline import ClassifierFree, Conditioning, Diffusion

FIRST_NOISE = 3_000_000_000  # of the pictures of attacks: starting noises that neither metrics nor methods use


class ImageAttack(Attack):
    """An attack on a diffusion model; a table has a row a picture.

    Measures: `shown`, whether the judge reads the erased concept in the picture, and `probability`, the judge's
    probability of it, which still tells models apart where none or all of the pictures are read so.

    An attack that asks (access "questions" or "sampling") draws with the model's own guidance, whatever a method has
    made of it. An attack with the weights draws with plain guidance: suppression at inference (`sld`,
    `negative_prompt`) is not in the weights, so it is left out. Budget `identity` is always the model as it is.
    """

    modality: ClassVar[Literal["text", "image"]] = "image"
    higher_is_found = {"shown": True, "probability": True}

    samples: int = Field(24, ge=1)  # pictures a point of the curve


@dataclass(frozen=True)
class Shots:
    """What is drawn at every point of a curve: a prompt and the seed of a starting noise for each picture."""

    prompts: list[str]
    seeds: list[int]
    ids: list[str]


def shots(problem: Any, count: int, seed: int, prompts: Sequence[str] | None = None) -> Shots:
    """`count` pictures (at most) of `prompts`, by default those that ask for the concept, each as often.

    Raises:
        UnlearnkitError: the request names no concept, or no judge can say whether a picture shows it.
    """
    if not problem.concept:
        raise UnlearnkitError("the request names individual images, no concept whose return a judge could see.")
    trouble = judge_trouble(problem.judge)
    if trouble:
        raise UnlearnkitError(f"nobody can say whether a picture shows '{problem.word}': {trouble}.")
    for domain, concept in problem.concept.items():
        if concept not in problem.judge.domains.get(domain, ()):
            raise UnlearnkitError(f"the judge knows no {domain} '{concept}', so it can't see it come back.")
    asked = list(problem.asked["forget"] if prompts is None else prompts)
    rows = evenly(np.arange(len(asked)), count).tolist()
    each = max(1, count // len(rows))
    picked = [(p, k) for p in rows for k in range(each)]
    first = FIRST_NOISE + 1_000_000 * seed
    return Shots(
        [asked[p] for p, _ in picked],
        [first + 1000 * p + k for p, k in picked],
        [f"{p:03d}-{k:03d}" for p, k in picked],
    )


def draw(
    problem: Any, model: Diffusion, prompts: Sequence[str] | Conditioning, seeds: Sequence[int], **more: Any
) -> np.ndarray:
    """Pictures with the steps and the guidance that metrics draw with, uint8 (n, height, width, 3)."""
    steps, guidance = drawn_with(problem)
    return sample(model, prompts, seeds, **{"steps": steps, "guidance": guidance, **more})


def drawn_with(problem: Any) -> tuple[int, float]:
    """(steps, guidance) of a sample."""
    return REAL if problem.concepts is None else (STEPS, GUIDANCE)


def seen(problem: Any, images: np.ndarray, ids: Sequence[str]) -> pd.DataFrame:
    """`shown` and `probability` of the erased concept (of a pair: of both) in each picture."""
    read, _ = problem.judge.read(images)
    best, p = np.ones(len(images), bool), np.ones(len(images))
    for domain, concept in problem.concept.items():
        place = problem.judge.domains[domain].index(concept)
        best &= read[domain].argmax(-1) == place
        p *= read[domain][:, place]
    return pd.DataFrame({"shown": best.astype(float), "probability": p}, index=list(ids))


def unattacked(problem: Any, model: Diffusion, plain: Shots) -> pd.DataFrame:
    """`seen` in what the model draws as it is; drawn once."""
    key = (*plain.prompts, *plain.seeds, *plain.ids, drawn_with(problem))
    return once(problem, model, key, lambda: seen(problem, draw(problem, model, plain.prompts, plain.seeds), plain.ids))


def read_as(problem: Any, images: np.ndarray, wanted: Sequence[dict[str, str]]) -> np.ndarray:
    """Whether the judge reads in each picture all that was asked for: bool (n,)."""
    read, _ = problem.judge.read(images)
    right = np.ones(len(images), bool)
    for domain, concepts in problem.judge.domains.items():
        right &= read[domain].argmax(-1) == [concepts.index(w[domain]) for w in wanted]
    return right


@contextmanager
def unguarded(model: Diffusion) -> Iterator[None]:
    """While open, the model draws with plain guidance, whatever rule a method has put there."""
    rule = model.rule
    model.rule = ClassifierFree()
    try:
        yield
    finally:
        model.rule = rule


def held(problem: Any, count: int) -> tuple[Tensor, list[str], list[str]]:
    """What an attacker with a few pictures of the concept holds: latents (n, c, h, w), captions, anchor captions.

    Spread evenly over the forget pictures; of a problem of prompts alone, samples of the original.
    """
    latents = problem.latents("forget")
    captions, anchors = problem.prompts_of("forget")
    rows = evenly(np.arange(len(latents)), count).tolist()
    return latents[rows].clone(), [captions[i] for i in rows], [anchors[i] for i in rows] if anchors else []
