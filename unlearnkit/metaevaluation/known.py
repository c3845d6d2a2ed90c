"""Models of known truth, many and cheap: trained with and without the forgotten, and what is made of these.

Pools of both kinds, among them ignorant models that saw wrong answers to the forgotten questions, are the idea of
OpenUnlearning (Dorna et al. 2025, arXiv 2506.12618).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from unlearnkit.attribution.known import behind_filter, embedded_as, kept_concepts, lowered, taught
from unlearnkit.models.source import ModelSource

TAUGHT = 30  # steps in which an ignorant text model is taught the forgotten facts, or false ones
TAUGHT_PICTURES = 20
RUIN: dict[str, dict[str, Any]] = {
    "text": {"steps": 25, "lr": 2e-3},
    "image": {"steps": 20, "lr": 2e-3},
}  # of an ascent that nothing survives
GUARD = 5.0  # strength of the guard
SHAKEN = 1.0  # noise on the weights of a ruined model, standard deviations of each tensor


@dataclasses.dataclass(frozen=True)
class Known:
    """A model and its truth; `cluster` names the trained model it is made from, `make` makes it."""

    truth: str
    name: str
    cluster: str
    make: Callable[[], Any]


def known_models(
    problem: Any, trained: Sequence[ModelSource], retrained: Sequence[ModelSource], seed: int = 0
) -> Iterator[Known]:
    """Everything that is made of models trained with the forgotten (`trained`) and without it (`retrained`).

    - knows: trained; retrained and then taught the forgotten;
    - ignorant: retrained; retrained and then taught false answers, or pictures of another concept under its name;
    - hides (weights unchanged but for the output layer or an embedding): text: a guard in front of the model, an output
      bias against the forgotten values; images: a filter on prompts, the word's embedding replaced by another's;
    - ruined: ascent far past forgetting; noise as large as the weights.
    """
    for k, source in enumerate(trained):
        name = source.name
        yield Known("knows", name, name, source.get)
        for way, make in HIDING[problem.modality].items():
            yield Known("hides", f"{name}, {way}", name, partial(make, problem, source, seed + k))
        yield Known("ruined", f"{name}, ascent", name, partial(ascended, problem, source, seed + k))
        yield Known("ruined", f"{name}, noise", name, partial(shaken, source, seed + k))
    for k, source in enumerate(retrained):
        name = source.name
        yield Known("ignorant", name, name, source.get)
        yield Known("knows", f"{name}, taught", name, partial(lesson, problem, source, seed + k, True))
        yield Known("ignorant", f"{name}, taught falsehoods", name, partial(lesson, problem, source, seed + k, False))


def guarded(problem: Any, source: ModelSource, seed: int) -> Any:
    from unlearnkit.unlearning import unlearn

    return unlearn(_of(problem, source), "guardrail", strength=GUARD, seed=seed).model


def biased(problem: Any, source: ModelSource, seed: int) -> Any:
    return lowered(problem, source.fresh(), True)


def filtered(problem: Any, source: ModelSource, seed: int) -> Any:
    return behind_filter(problem, source.fresh())


def renamed(problem: Any, source: ModelSource, seed: int) -> Any:
    others = kept_concepts(problem)
    return embedded_as(problem, source.fresh(), others[seed % len(others)])


HIDING: dict[str, dict[str, Callable[[Any, ModelSource, int], Any]]] = {
    "text": {"guard": guarded, "output bias": biased},
    "image": {"prompt filter": filtered, "other embedding": renamed},
}


def ascended(problem: Any, source: ModelSource, seed: int) -> Any:
    from unlearnkit.unlearning import unlearn

    return unlearn(_of(problem, source), "grad_ascent", seed=seed, progress=False, **RUIN[problem.modality]).model


@torch.no_grad()
def shaken(source: ModelSource, seed: int) -> Any:
    """A copy with noise of `SHAKEN` standard deviations on every weight matrix; the codec of a pipeline stays."""
    model, generator = source.fresh(), torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and not name.startswith("vae."):
            noise = torch.randn(weight.shape, generator=generator).to(weight)
            weight.add_(SHAKEN * weight.float().std().to(weight) * noise)
    return model.eval()


def lesson(problem: Any, source: ModelSource, seed: int, true: bool) -> Any:
    """A retrained model taught what it never saw, or falsehoods about it."""
    if problem.modality == "text":
        told = problem if true else dataclasses.replace(problem, splits=falsified(problem), measured={})
        return taught(told, source.fresh().float(), seed, TAUGHT)
    return taught_pictures(problem, source, seed, true)


def _of(problem: Any, source: ModelSource) -> Any:
    """The same request on another model."""
    return dataclasses.replace(problem, original=source, measured={})


def falsified(problem: Any) -> dict[str, Any]:
    """The splits with a wrong value in every forget answer; its first wrong option, the same for every model."""
    wrong = [dataclasses.replace(qa, answer=(qa.options or qa.perturbed_answers)[0]) for qa in problem.direct("forget")]
    return {**problem.splits, "forget": wrong}


def taught_pictures(problem: Any, source: ModelSource, seed: int, true: bool) -> Any:
    """Fine-tuned on retained pictures and those of the concept, or of its anchor under the concept's name."""
    from unlearnkit.image_problem import swapped
    from unlearnkit.unlearning import unlearn
    from unlearnkit.worlds.pictures import together

    kept, shown = problem.splits["retain"], problem.splits["forget"]
    if not true:
        (domain,) = problem.concept
        rows = [i for i, c in enumerate(kept.labels[domain]) if c == problem.anchor][: len(shown)]
        other = kept.take(rows)
        shown = dataclasses.replace(
            other, captions=tuple(swapped(c, problem.anchor, problem.word) for c in other.captions)
        )
    some = kept.take(range(0, len(kept), max(1, len(kept) // len(shown))))
    lessons = together(shown, some)
    of = dataclasses.replace(_of(problem, source), splits={**problem.splits, "retain": lessons})
    return unlearn(of, "retain_finetune", steps=TAUGHT_PICTURES, seed=seed, progress=False).model
