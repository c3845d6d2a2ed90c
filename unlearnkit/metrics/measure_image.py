"""One sampling pass over a problem's prompts, read by its judge: everything the image metrics are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from unlearnkit.metrics import image as metric
from unlearnkit.metrics.measure import Measured
from unlearnkit.models.diffusion import GUIDANCE, STEPS, sample
from unlearnkit.models.judge import LEAST
from unlearnkit.models.pipeline import Diffusion
from unlearnkit.modes import at_rest
from unlearnkit.worlds.pictures import Pictures

REAL = (30, 7.5)  # sampling steps and guidance of pipelines of prompts alone; the tiny ones have their own
PER_CONCEPT = 60  # real pictures a concept whose features are averaged
LOOKS = 10  # timesteps at which a picture's denoising loss is taken
JUDGED = ("correct", "shown", "in_domain", "cross_domain", "alignment", "features", "real_features", "distance")


@dataclass(frozen=True)
class MeasuredImages(Measured):
    """Per-item numbers of one model, and its pictures.

    `items` (index: split, id) has the splits "forget" and "retain", a row a sampled picture with columns prompt, seed,
    weight (prompts of the split / its pictures), picture (uint8, height × width × 3), and, where the judge can be
    trusted, correct, shown, in_domain, cross_domain (see `metrics.image.readings`), alignment, features (the judge's,
    an array), concept (what the prompt asks for in the erased concept's domain), distance (of that concept from the
    erased one), read_DOMAIN, real_features (retain: of a real picture that shows what the prompt asks for); clip_score
    where the judge is a CLIP checkpoint. Requests of individual images: splits "members" (they) and "holdout" with
    column denoising_loss.

    Attributes:
        missing: column or split → why it has no numbers.
    """

    missing: dict[str, str] = field(default_factory=dict)

    def pictures(self, split: str, prompts: int | None = None, seeds: int = 1) -> tuple[list[str], np.ndarray]:
        """The first `seeds` pictures of `prompts` prompts (spread evenly): prompts, uint8 (prompts, seeds, h, w, 3)."""
        known = self.split(split)
        groups = [part["picture"].tolist()[:seeds] for _, part in known.groupby("prompt", sort=False)]
        asked = list(dict.fromkeys(known["prompt"]))
        rows = metric.evenly(np.arange(len(asked)), prompts or len(asked))
        return [asked[i] for i in rows], np.array([groups[i] for i in rows])


@dataclass(frozen=True)
class Question:
    """One picture that is asked of every model."""

    split: str
    id: str
    prompt: str
    wanted: dict[str, str]
    seed: int  # of its starting noise, the same for every model


def questions(problem: Any, limit: int) -> list[Question]:
    """At most `limit` pictures a split: every prompt with as many seeds as fit, or evenly chosen prompts with one."""
    out = []
    for first, split in ((0, "forget"), (10_000_000, "retain")):
        prompts, wanted = problem.asked.get(split, []), problem.wanted.get(split, [])
        rows = metric.evenly(np.arange(len(prompts)), limit)
        for p in rows.tolist():
            for k in range(max(1, limit // len(rows))):
                out.append(Question(split, f"{p:03d}-{k:03d}", prompts[p], wanted[p], first + 10_000 * p + k))
    return out


def judge_trouble(judge: Any) -> str:
    """Why a judge's readings are not to be trusted; empty when they are."""
    if judge is None:
        return "there is no judge; give load_problem(..., judge='a folder or a CLIP checkpoint')"
    accuracy = getattr(judge, "accuracy", None)
    if not accuracy:
        return (
            "the judge's accuracy is not known; set judge.accuracy = {domain: share} from labelled pictures "
            "(of a CLIP judge: judge.calibrate(pictures))"
        )
    if min(accuracy.values()) < LEAST:
        return f"the judge reads {min(accuracy.values()):.0%} of held-out pictures, {LEAST:.0%} are needed"
    return ""


def measure_images(problem: Any, model: Diffusion, limit: int = 100, progress: bool = True) -> MeasuredImages:
    """Ask a model everything the metrics need: one batch of samples, read once.

    Args:
        limit: pictures a split.
    """
    asked = questions(problem, limit)
    missing: dict[str, str] = {}
    parts = []
    with at_rest(model):
        if asked:
            steps, guidance = REAL if problem.concepts is None else (STEPS, GUIDANCE)
            images = sample(
                model, [q.prompt for q in asked], [q.seed for q in asked], steps=steps, guidance=guidance,
                batch_size=_batch(model), progress=progress,
            )  # fmt: skip
            parts.append(_sampled(problem, asked, images, missing))
        parts += _membership(problem, model, limit, missing)
    return MeasuredImages(pd.concat(parts), missing)


def _batch(model: Diffusion) -> int:
    """Pictures at once: 128 of 32×32, at least 8 of large ones."""
    return max(8, 128 * 32**2 // model.image_size**2)


def _sampled(problem: Any, asked: Sequence[Question], images: np.ndarray, missing: dict[str, str]) -> pd.DataFrame:
    table = pd.DataFrame({"prompt": [q.prompt for q in asked], "seed": [float(q.seed) for q in asked]})
    table["picture"] = list(images)
    splits = pd.Series([q.split for q in asked])
    table["weight"] = table["prompt"].groupby(splits).transform("nunique") / splits.groupby(splits).transform("size")
    judge = problem.judge
    if hasattr(judge, "score"):
        table["clip_score"] = judge.score(images, table["prompt"].tolist()).astype(float)
    trouble = judge_trouble(judge) or _unknown(problem, asked)
    if trouble:
        missing |= dict.fromkeys(JUDGED, trouble)
    else:
        probabilities, features = judge.read(images)
        table["features"] = list(features.astype(float))
        table["real_features"] = _real(problem, asked)
        missing["real_features"] = "there are no real pictures to compare with"
        read = {d: p.argmax(-1) for d, p in probabilities.items()}
        place = {d: {c: i for i, c in enumerate(concepts)} for d, concepts in judge.domains.items()}
        wanted = {d: [place[d].get(q.wanted.get(d, ""), -1) for q in asked] for d in place}
        erased = {d: place[d][c] for d, c in problem.concept.items()}
        for column, values in metric.readings(read, wanted, erased).items():
            table[column] = values
        table["alignment"] = metric.alignment(probabilities, wanted)
        table["concept"] = [" ".join(q.wanted.get(d, "") for d in problem.concept) for q in asked]
        table["distance"] = table["concept"].map(distances(problem)).astype(float)
        for d, concepts in judge.domains.items():
            table[f"read_{d}"] = [concepts[i] for i in read[d]]
        if not problem.concept:
            missing |= dict.fromkeys(("shown", "in_domain", "cross_domain", "distance"), "the request names no concept")
        else:
            missing |= dict.fromkeys(("correct", "in_domain", "alignment"), "no prompt says what it asks for")
            missing |= {"cross_domain": "there is no other domain", "distance": "no real pictures carry labels"}
    table.index = pd.MultiIndex.from_tuples([(q.split, q.id) for q in asked], names=["split", "id"])
    return table


def _unknown(problem: Any, asked: Sequence[Question]) -> str:
    """The first concept the judge can't tell, as a reason; empty when it knows them all."""
    for labels in (problem.concept, *(q.wanted for q in asked)):
        for domain, concept in labels.items():
            if concept not in problem.judge.domains.get(domain, ()):
                return f"the judge knows no {domain} '{concept}'"
    return ""


def shown_in(pictures: Pictures, concept: dict[str, str]) -> list[str]:
    """What each picture shows in the domains of the erased concept."""
    return [" ".join(labels) for labels in zip(*(pictures.labels[d] for d in concept), strict=True)]


def distances(problem: Any) -> dict[str, float]:
    """Retained concept → distance from the erased one; empty without labelled real pictures."""
    if "distances" not in problem.measured:
        kept, gone = problem.splits["retain"], problem.splits["forget"]
        found: dict[str, float] = {}
        if problem.concept and all(d in side.labels for side in (kept, gone) for d in problem.concept):
            features, shown = [], []
            for side in (kept, gone):
                own = np.array(shown_in(side, problem.concept))
                for c in dict.fromkeys(own):
                    rows = metric.evenly(np.flatnonzero(own == c), PER_CONCEPT)
                    features.append(problem.judge.read(side.images[rows])[1].astype(float))
                    shown += [str(c)] * len(rows)
            erased = " ".join(problem.concept.values())
            found = metric.concept_distances(np.concatenate(features), shown, erased)
        problem.measured["distances"] = found
    return problem.measured["distances"]


def _real(problem: Any, asked: Sequence[Question]) -> Any:
    """For each retained prompt the features of a real picture that shows what it asks for, as far as there are any."""
    key = ("real", tuple(q.id for q in asked))
    if key not in problem.measured:
        kept = problem.splits["retain"]
        shown: dict[tuple[str, ...], list[int]] = {}
        for i, labels in enumerate(zip(*kept.labels.values(), strict=True) if kept.labels else [()] * len(kept)):
            shown.setdefault(labels, []).append(i)
        used: dict[tuple[str, ...], int] = {}
        rows: list[int | None] = []
        for q in asked:
            wanted = tuple(q.wanted.get(d, "") for d in kept.labels)
            number = used[wanted] = used.get(wanted, -1) + 1
            known = shown.get(wanted) if q.split == "retain" else None
            rows.append(known[number % len(known)] if known else None)
        found = [i for i in rows if i is not None]
        problem.measured[key] = np.nan
        if found:
            features = problem.judge.read(kept.images[found])[1].astype(float)
            nothing, given = np.full(features.shape[1], np.nan), iter(features)
            problem.measured[key] = [nothing if i is None else next(given) for i in rows]
    return problem.measured[key]


def _membership(problem: Any, model: Diffusion, limit: int, missing: dict[str, str]) -> list[pd.DataFrame]:
    """Denoising losses of the forgotten pictures and of unseen ones that show the same."""
    forget, unseen = problem.splits["forget"], problem.splits.get("holdout")
    if problem.concept or not len(forget) or unseen is None or not len(unseen):
        why = "the request is a concept, not individual images" if problem.concept else "there are no unseen pictures"
        missing |= {"members": why, "holdout": why}
        return []
    same = set(zip(*forget.labels.values(), strict=True)) if forget.labels else set()
    alike = [i for i, shown in enumerate(zip(*unseen.labels.values(), strict=True)) if shown in same]
    out = []
    for split, name, rows in (
        ("members", "forget", np.arange(len(forget))),
        ("holdout", "holdout", np.array(alike or range(len(unseen)))),
    ):
        rows = metric.evenly(rows, limit)
        index = pd.MultiIndex.from_product([[split], [problem.splits[name].ids[i] for i in rows]])
        out.append(pd.DataFrame({"denoising_loss": denoising_losses(problem, model, name, rows)}, index=index))
    return out


@torch.inference_mode()
def denoising_losses(problem: Any, model: Diffusion, split: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Mean squared error of the prediction, of each picture with its own caption: (pictures,).

    At `LOOKS` evenly spaced timesteps, each with one noise that is the same for every picture and model.
    """
    pictures, latents = problem.pictures(split), problem.latents(split)
    draw = torch.Generator().manual_seed(0)
    noises = torch.randn((LOOKS, *latents.shape[1:]), generator=draw)
    times = ((torch.arange(LOOKS) + 0.5) / LOOKS * model.timesteps).long()
    losses = []
    for begin in range(0, len(rows), _batch(model)):
        part = [int(i) for i in rows[begin : begin + _batch(model)]]
        x = latents[part].to(model.device, model.dtype)
        text = model.embed([pictures.captions[i] for i in part])
        total = torch.zeros(len(part), device=x.device)
        for one, t in zip(noises, times, strict=True):
            noise, at = one.to(x).expand_as(x), t.to(x.device).expand(len(x))
            found = model(model.noisy(x, noise, at), at, text).float()
            total += (found - model.target(x, noise, at).float()).square().mean((1, 2, 3))
        losses.append(total / LOOKS)
    return torch.cat(losses).cpu().numpy().astype(float)
