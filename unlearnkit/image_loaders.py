"""Where image problems come from: the built-in worlds, a folder of pictures, or prompts for any pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unlearnkit.errors import UnlearnkitError, whole_number
from unlearnkit.image_problem import ImageProblem, Labels
from unlearnkit.models.builtin_image import DEFAULT_FORGET, image_checkpoint, image_recipes, judge_of
from unlearnkit.models.checks import check_pipeline
from unlearnkit.models.judge import load_judge
from unlearnkit.models.load import device_of, load_pipeline
from unlearnkit.models.source import ModelSource
from unlearnkit.worlds.canvas import canvas
from unlearnkit.worlds.digits import digits
from unlearnkit.worlds.imagefolder import imagefolder
from unlearnkit.worlds.pictures import Concepts, ImageWorld, Pictures


def load_canvas(forget: Any, seed: int, **given: Any) -> ImageProblem:
    """The built-in world canvas; options: `images`, `holdout`, and fields of `ImageRecipe`."""
    sizes = {k: given.pop(k) for k in ("images", "holdout") if k in given}
    return from_world(canvas(seed=seed, **sizes), forget or DEFAULT_FORGET["canvas"], seed, **given)


def load_digits(forget: Any, seed: int, **given: Any) -> ImageProblem:
    """Real handwritten digits; options: fields of `ImageRecipe`."""
    return from_world(digits(seed=seed), forget or DEFAULT_FORGET["digits"], seed, **given)


def load_imagefolder(path: Path, forget: Any, seed: int, **given: Any) -> ImageProblem:
    """A folder of one's own with a metadata.jsonl (Hugging Face imagefolder)."""
    if not forget:
        raise UnlearnkitError(f"say what of {path} is to be forgotten: forget='a label' or forget=['name.png', …].")
    return from_world(imagefolder(path), forget, seed, **given)


def from_world(
    world: ImageWorld,
    forget: str | Sequence[str],
    seed: int,
    *,
    model: Any = None,
    oracles: Any = None,
    revision: str | None = None,
    device: str | None = None,
    judge: Any = None,
    anchor: str | None = None,
    **sizes: Any,
) -> ImageProblem:
    """A problem on the pictures of a world; without `model`, tiny pipelines are trained on it, once."""
    request = forget if isinstance(forget, str) else ",".join(forget)
    splits, concept = world.split(forget), world.requested(forget)
    named = {d: str(c) for d, c in concept.items() if d != "images"}
    place = device_of(device)
    if model is None:
        known = {"steps", "batch_size", "lr", "ema", "channels", "text_width", "text_layers"}
        _no_more({k: v for k, v in sizes.items() if k not in known}, known)
        if isinstance(oracles, (list, tuple)):
            raise UnlearnkitError("oracles were named but no model; give both, or the number of oracles to train.")
        count = whole_number("oracles", 2 if oracles is None else oracles)
        recipes = image_recipes(world, splits, request, seed, count, **sizes)
        folders = [image_checkpoint(r, world, p) for r, p in recipes]
    else:
        _no_more(sizes, set())
        if isinstance(oracles, int):
            raise UnlearnkitError("with a model of your own, give oracles by name: oracles=['FOLDER'] or [] for none.")
        folders = [model, *(oracles or [])]
    own = judge is None and world.kind != "imagefolder"
    judge = judge_of(world) if own else judge_from(judge, world.concepts)
    sources = [source(f, revision if k == 0 else None, place) for k, f in enumerate(folders)]
    named, concepts = _side_by_side(named, world.concepts)
    asked, wanted = _questions(concepts, named)
    word = " ".join(named.values())
    return ImageProblem(
        world.name, request, seed, splits, named, word, anchor or _anchor(named, concepts), asked, wanted, sources[0],
        sources[1:], judge, concepts, place,
    )  # fmt: skip


def _side_by_side(named: Labels, concepts: Concepts) -> tuple[Labels, Concepts]:
    """Requested concepts in the order in which prompts have them, and the vocabulary with a wording where they meet."""
    plain = concepts.templates[0]
    named = {d: named[d] for d in sorted(named, key=lambda d: plain.index(f"{{{d}}}"))}
    if " ".join(f"{{{d}}}" for d in named) in plain:
        return named, concepts
    every = [*named, *(d for d in concepts.domains if d not in named)]
    return named, replace(concepts, templates=("a picture of " + " ".join(f"{{{d}}}" for d in every),))


def _anchor(named: Labels, concepts: Concepts) -> str:
    """What takes the place of the requested concepts; of several one is replaced, the style where there is one."""
    part = "style" if "style" in named else next(iter(named), "")
    others = [c for c in (concepts.anchors.get(part, ""), *concepts.domains.get(part, ())) if c != named.get(part)]
    return " ".join(others[0] if d == part else c for d, c in named.items()) if others else ""


def _questions(concepts: Concepts, named: Labels) -> tuple[dict[str, list[str]], dict[str, list[Labels]]]:
    """Every combination of concepts in the plain wording, on the side it belongs to."""
    asked: dict[str, list[str]] = {"forget": [], "retain": []}
    wanted: dict[str, list[Labels]] = {"forget": [], "retain": []}
    domains = concepts.domains
    for labels in product(*domains.values()):
        values = dict(zip(domains, labels, strict=True))
        side = "forget" if named and all(values[d] == c for d, c in named.items()) else "retain"
        asked[side].append(concepts.prompt(values))
        wanted[side].append(values)
    if not named:  # individual images: their own captions
        asked["forget"], wanted["forget"] = [], []
    return asked, wanted


def load_prompts(
    forget: Any,
    seed: int,
    *,
    model: Any = None,
    oracles: Any = None,
    revision: str | None = None,
    device: str | None = None,
    judge: Any = None,
    anchor: str | None = None,
    prompts: Sequence[str] | None = None,
    preserve: Sequence[str] = (),
    **more: Any,
) -> ImageProblem:
    """A concept of any Stable Diffusion-class pipeline, named by a prompt; no dataset is needed.

    Args:
        forget: the concept as it stands in prompts, such as "Van Gogh".
        anchor: what takes its place, such as "painter"; needed by methods that map the concept to something.
        prompts: prompts that contain the concept; default "FORGET", "a picture of FORGET".
        preserve: prompts to keep.
    """
    _no_more(more, {"prompts", "preserve", "anchor", "judge"})
    if not forget or not isinstance(forget, str):
        raise UnlearnkitError("name the concept to forget as it stands in prompts: forget='Van Gogh'.")
    for option, given in (("prompts", prompts), ("preserve", preserve)):
        if isinstance(given, str) or any(not isinstance(p, str) or not p.strip() for p in given or ()):
            raise UnlearnkitError(f"{option} is {given!r}; give a list of prompts: {option}=['a picture of …', …].")
    if isinstance(oracles, int):
        raise UnlearnkitError("oracles of a real pipeline are given by name, not trained here: oracles=['FOLDER'].")
    name = model or "stable-diffusion-v1-5/stable-diffusion-v1-5"
    place = device_of(device)
    asked = {"forget": list(prompts or (forget, f"a picture of {forget}")), "retain": list(preserve)}
    wanted: dict[str, list[Labels]] = {
        "forget": [{"concept": forget}] * len(asked["forget"]),
        "retain": [{} for _ in preserve],
    }
    empty = Pictures(np.empty((0, 1, 1, 3), np.uint8), (), {}, ())
    return ImageProblem(
        "stable-diffusion", forget, seed, {"forget": empty, "retain": empty}, {"concept": forget}, forget, anchor or "",
        asked, wanted, source(name, revision, place), [source(o, None, place) for o in oracles or ()],
        judge_from(judge, None), None, place,
    )  # fmt: skip


def source(name: Any, revision: str | None, place: torch.device) -> ModelSource:
    """A pipeline to be loaded later; raises UnlearnkitError now when it can't be."""
    check_pipeline(name, revision)
    return ModelSource(lambda: load_pipeline(name, revision, place), f"{name}@{revision}" if revision else str(name))


def judge_from(judge: Any, concepts: Concepts | None) -> Any:
    """A judge given as an object, as a folder of `Judge.save`, or as a CLIP checkpoint (zero-shot)."""
    if judge is None or not isinstance(judge, (str, Path)):
        return judge
    if (Path(judge) / "judge.json").is_file():
        return load_judge(judge)
    from unlearnkit.models.clip_judge import ClipJudge

    return ClipJudge(judge, concepts)


def _no_more(options: dict[str, Any], allowed: set[str]) -> None:
    if options:
        raise UnlearnkitError(
            f"option '{next(iter(options))}' is not one of this image problem's; allowed are "
            f"{', '.join(sorted(allowed | {'model', 'oracles', 'revision', 'device', 'judge', 'anchor'}))}."
        )
