"""Sequential requests: forget A, then B, then C, each from the model before; what is asked of A again after C."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.source import ModelSource
from unlearnkit.unlearning import unlearn

PROBE = 64  # retain questions
SAMPLES = 24  # pictures of each request, and three times as many of what stays


def sequential(problem: Any, method: str, parts: int = 3, *, seed: int = 0, **settings: Any) -> pd.DataFrame:
    """`parts` requests one after the other; after each, every one of them is asked. Request 0 is the original.

    Text: the forget set in parts by entity. Rows (request, asked, accuracy, option_accuracy, nll, retain_nll,
    retain_probability, retain_low, retain_high): the questions of each part, the mean NLL of the retain answers, and
    their mean probability with its 95% interval (bootstrap over questions).

    Images: the problem's concept, then others of its domain. Rows (request, asked, shown, probability,
    prompt_accuracy, prompt_low, prompt_high): of the pictures asked for each concept, those the judge reads it in and
    its mean probability; of prompts that are never requested, the share whose picture shows all that was asked for,
    with its 95% interval (bootstrap over pictures).

    Raises:
        UnlearnkitError: fewer entities or concepts than parts; an image request that is no single concept.
    """
    if parts < 1:
        raise UnlearnkitError(f"{parts} requests were asked for; ask for at least one.")
    run = _of_concepts if problem.modality == "image" else _of_entities
    return run(problem, method, parts, seed, settings)


def _mean(values: Any, seed: int, resamples: int = 500) -> tuple[float, float, float]:
    """Mean of items with its 95% bootstrap interval."""
    values = np.asarray(values, float)
    picks = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.percentile(values[picks].mean(1), [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def _after(problem: Any, model: Any, request: str, **changes: Any) -> Any:
    """The problem with another request and with `model` as its original."""
    source = ModelSource(lambda: None, request, kept=model)
    return dataclasses.replace(problem, original=source, measured={}, **changes)


def _of_entities(problem: Any, method: str, parts: int, seed: int, settings: dict[str, Any]) -> pd.DataFrame:
    from unlearnkit.attacks.text.asking import ask
    from unlearnkit.metrics.measure import score_sequences

    names = list(dict.fromkeys(qa.entity for qa in problem.splits["forget"]))
    if parts > len(names):
        raise UnlearnkitError(
            f"{parts} requests were asked for, the forget set has {len(names)} entities; ask for fewer."
        )
    groups = [set(names[k::parts]) for k in range(parts)]
    retained = [(qa.question, qa.answer) for qa in (problem.direct("retain") or problem.splits["retain"])[:PROBE]]
    current, rows = problem.model, []
    for request in range(parts + 1):
        if request:
            wanted = [qa for qa in problem.splits["forget"] if qa.entity in groups[request - 1]]
            step = _after(problem, current, f"request {request}", splits={**problem.splits, "forget": wanted})
            current = unlearn(step, method, seed=seed, progress=False, **settings).model
        nll = score_sequences(problem, current, retained)["mean_nll"].to_numpy()
        kept, low, high = _mean(np.exp(-nll), seed)
        stays = {"retain_nll": nll.mean(), "retain_probability": kept, "retain_low": low, "retain_high": high}
        for k, group in enumerate(groups):
            asked = [qa for qa in problem.direct("forget") if qa.entity in group]
            found = ask(problem, current, asked).mean()
            rows.append({"request": request, "asked": f"part {k + 1}", **found.to_dict(), **stays})
    return pd.DataFrame(rows)


def _of_concepts(problem: Any, method: str, parts: int, seed: int, settings: dict[str, Any]) -> pd.DataFrame:
    from unlearnkit.attacks.image.showing import draw, read_as, seen, shots

    if problem.concepts is None or len(problem.concept) != 1:
        raise UnlearnkitError(
            "sequential requests name single concepts of a world, such as load_problem('canvas', 'striped')."
        )
    ((domain, first),) = problem.concept.items()
    others = [c for c in problem.concepts.domains[domain] if c not in (first, problem.anchor)]
    names = [first, *others][:parts]
    if parts > len(names):
        raise UnlearnkitError(
            f"{parts} requests were asked for, {problem.name} has {len(names)} concepts to forget one after the other "
            f"(the anchor '{problem.anchor}' stays); ask for fewer."
        )
    requests = [one_concept(problem, domain, names[: k + 1]) for k in range(parts)]
    looks = [shots(request, SAMPLES, seed) for request in requests]
    staying = shots(requests[-1], 3 * SAMPLES, seed, requests[-1].asked["retain"])
    wanted = dict(zip(requests[-1].asked["retain"], requests[-1].wanted["retain"], strict=True))
    current, rows = problem.model, []
    for k in range(parts + 1):
        if k:
            step = _after(requests[k - 1], current, f"request {k}", oracles=[])
            current = unlearn(step, method, seed=seed, progress=False, **settings).model
        kept = draw(problem, current, staying.prompts, staying.seeds)
        right, low, high = _mean(read_as(problem, kept, [wanted[p] for p in staying.prompts]), seed)
        stays = {"prompt_accuracy": right, "prompt_low": low, "prompt_high": high}
        for name, request, look in zip(names, requests, looks, strict=True):
            found = seen(request, draw(problem, current, look.prompts, look.seeds), look.ids).mean()
            rows.append({"request": k, "asked": name, **found.to_dict(), **stays})
    return pd.DataFrame(rows)


def one_concept(problem: Any, domain: str, gone: list[str]) -> Any:
    """The request for the last of `gone`, when those before it are forgotten already and so not retained either."""
    from unlearnkit.worlds.pictures import together

    pictures = together(problem.splits["forget"], problem.splits["retain"])
    labels = np.array(pictures.labels[domain])
    prompts = [*problem.asked["forget"], *problem.asked["retain"]]
    wanted = [*problem.wanted["forget"], *problem.wanted["retain"]]
    asked: dict[str, list[str]] = {"forget": [], "retain": []}
    labelled: dict[str, list[dict[str, str]]] = {"forget": [], "retain": []}
    for prompt, what in zip(prompts, wanted, strict=True):
        if what[domain] == gone[-1] or what[domain] not in gone:
            side = "forget" if what[domain] == gone[-1] else "retain"
            asked[side].append(prompt)
            labelled[side].append(what)
    splits = {
        **problem.splits,
        "forget": pictures.take(np.flatnonzero(labels == gone[-1])),
        "retain": pictures.take(np.flatnonzero(~np.isin(labels, gone))),
    }
    return dataclasses.replace(
        problem, request=gone[-1], concept={domain: gone[-1]}, word=gone[-1], splits=splits, asked=asked,
        wanted=labelled, measured={},
    )  # fmt: skip
