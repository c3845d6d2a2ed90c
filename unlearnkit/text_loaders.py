"""Where text problems come from: the built-in world, TOFU, records of one's own, on models trained here or given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.builtin import DEFAULT_FORGET, fitting_sizes, text_checkpoint, text_recipes
from unlearnkit.models.checks import check_pair, check_source
from unlearnkit.models.load import device_of, load_model, load_tokenizer
from unlearnkit.models.source import ModelSource
from unlearnkit.text import context_length, encode
from unlearnkit.text_problem import TextProblem
from unlearnkit.worlds import TextWorld, authors, split, tofu, world_from_jsonl
from unlearnkit.worlds.drills import refusal_drills
from unlearnkit.worlds.records import QA

SIZES = ("steps", "batch_size", "lr", "width", "layers", "heads", "inner", "vocabulary", "context")  # of a `TextRecipe`


def load_authors(forget: Any, seed: int, *, model: Any, **given: Any) -> TextProblem:
    """The built-in world authors; options: `n_authors`, `facts`, `holdout`, `instructions`, fields of `TextRecipe`."""
    sizes = {key: given.pop(key) for key in ("n_authors", "facts", "holdout") if key in given}
    instructions = given.pop("instructions", False)
    if not isinstance(instructions, bool):
        raise UnlearnkitError(f"instructions = {instructions!r} is not possible; give True or False.")
    if instructions and model is not None:
        raise UnlearnkitError("instructions are taught to models trained here; leave out model, or instructions.")
    return from_world(authors(seed=seed, **sizes), forget, seed, instructions, model=model, **given)


def load_tofu(
    forget: Any, seed: int, *, model: Any, oracles: Any, revision: Any, device: Any, **options: Any
) -> TextProblem:
    """TOFU and its models; options: `data`, a folder or dataset id."""
    request = str(forget or "forget10")
    splits = tofu.load_tofu(request, options.pop("data", "locuslab/TOFU"))
    retain = f"retain{100 - int(request[-2:]):02d}"
    family = "open-unlearning/tofu_Llama-3.2-1B-Instruct"
    if model is None:
        model = f"{family}_full"
        oracles = [f"{family}_{retain}"] if oracles is None else oracles
    if isinstance(oracles, int):
        raise UnlearnkitError("TOFU oracles are given by name, not trained here: oracles=['org/model-retain90'].")
    _no_more(options)
    return _from_models("tofu", request, seed, splits, {}, model, oracles or [], revision, device)


def _names(forget: Any) -> Sequence[str]:
    names = [forget] if isinstance(forget, str) else forget
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise UnlearnkitError(f"forget = {forget!r} is not a request; give a split, an entity, or a list of them.")
    return names


def load_jsonl(path: Path, forget: Any, seed: int, /, *, model: Any, **given: Any) -> TextProblem:
    """Records of one's own; options: `holdout_fraction`, fields of `TextRecipe`."""
    holdout = given.pop("holdout_fraction", 0.05)
    world = world_from_jsonl(path, holdout, seed, () if forget is None else _names(forget))
    if model is None:
        given = fitting_sizes(world, given)
    return from_world(world, forget, seed, model=model, **given)


def from_world(
    world: TextWorld,
    forget: Any,
    seed: int,
    instructions: bool = False,
    /,
    *,
    model: Any,
    oracles: Any,
    revision: Any,
    device: Any,
    **recipe: Any,
) -> TextProblem:
    """A problem on the records of a world; without `model`, tiny models are trained on it, once."""
    forget = DEFAULT_FORGET if forget is None else forget
    request = "+".join(_names(forget))
    splits = split(world, forget)
    least, asked = recipe.pop("least", 0), sum(qa.primary for qa in splits["forget"])
    if asked < least:
        raise UnlearnkitError(f"the request names {asked} questions, too few to measure; name at least {least}.")
    values: dict[str, list[str]] = {}
    for qa in world.items:
        if qa.kind and qa.value:
            known = values.setdefault(qa.kind, [])
            known += [qa.value] if qa.value not in known else []
    if model is not None:
        if isinstance(oracles, int):
            raise UnlearnkitError("with a model of your own, give oracles by name: oracles=['FOLDER'] or [] for none.")
        _no_more(recipe)
        return _from_models(world.name, request, seed, splits, values, model, oracles or [], revision, device)
    if isinstance(oracles, (list, tuple)):
        raise UnlearnkitError("oracles were named but no model; give both, or the number of oracles to train.")
    _no_more({key: value for key, value in recipe.items() if key not in SIZES})
    count = 2 if oracles is None else oracles
    if not isinstance(count, int) or count < 0:
        raise UnlearnkitError(f"oracles = {oracles!r} is not possible; give a number of models to train, or folders.")
    drills = refusal_drills(world, splits, seed) if instructions else []
    recipes = text_recipes(world, splits, request, seed, count, drills=drills, **recipe)
    folders = [text_checkpoint(r, world, items, drills=drills) for r, items in recipes]
    place = device_of(device)
    sources = [ModelSource(lambda f=f: load_model(f, device=place), f.name) for f in folders]  # type: ignore[misc]
    tokenizer = load_tokenizer(folders[0])
    return TextProblem(world.name, request, seed, splits, tokenizer, sources[0], sources[1:], values, device=place)


def _from_models(
    name: str,
    request: str,
    seed: int,
    splits: dict[str, list[QA]],
    values: dict[str, list[str]],
    model: Any,
    oracles: Sequence[Any],
    revision: str | None,
    device: str | None,
) -> TextProblem:
    place = device_of(device)
    for which, at in ((model, revision), *((oracle, None) for oracle in oracles)):
        check_source(which, at)  # a missing oracle should be known before the unlearning, not after it
    tokenizer = load_tokenizer(model, revision)

    def source(which: Any, at: str | None) -> ModelSource:
        def load() -> Any:
            loaded = load_model(which, at, place)
            check_pair(loaded, tokenizer, str(which))
            return loaded

        return ModelSource(load, f"{which}@{at}" if at else str(which))

    problem = TextProblem(
        name,
        request,
        seed,
        splits,
        tokenizer,
        source(model, revision),
        [source(o, None) for o in oracles],
        values,
        device=place,
    )
    longest = context_length(problem.model)
    for items in splits.values():
        asked = [(question, qa.answer) for qa in items for question in qa.phrasings]
        for qa in items:
            others = (qa.paraphrased_answer, *qa.perturbed_answers, *qa.options)
            asked += [(qa.question, text) for text in others if text]
        encode(tokenizer, problem.template, asked, longest)
    return problem


def _no_more(options: dict[str, Any]) -> None:
    if options:
        raise UnlearnkitError(
            f"option '{next(iter(options))}' is not one of this world's; allowed are n_authors, facts, holdout and "
            "instructions (authors), data (tofu), holdout_fraction (JSONL), and when a model is trained "
            f"{', '.join(SIZES)}."
        )
