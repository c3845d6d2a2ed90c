"""The forget request as data: splits, the original model, and the models that never saw the forget set."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from unlearnkit.data import TextData
from unlearnkit.errors import UnlearnkitError, whole_number
from unlearnkit.models.builtin import DEFAULT_FORGET, fitting_sizes, text_checkpoint, text_recipes
from unlearnkit.models.load import check_pair, check_source, device_of, load_model, load_tokenizer
from unlearnkit.models.source import ModelSource
from unlearnkit.registry import Registry
from unlearnkit.text import Template, answer_tokens, by_length, collate, context_length, encode, pad_id, template_of
from unlearnkit.worlds import TextWorld, authors, split, world_from_jsonl
from unlearnkit.worlds.drills import refusal_drills
from unlearnkit.worlds.records import QA
from unlearnkit.worlds.tofu import load_tofu

PROBE = 64  # records a probe reads

WORLDS: Registry[Callable[..., Any]] = Registry("world")


@dataclass
class TextProblem:
    """A forget request on a language model.

    Attributes:
        splits: name → records. A method is given `forget` and `retain` only; `neighbours`, `general`,
            `forget_derived` and `forget_translated` are trained in the original and measure side effects;
            `holdout` is never trained.
        original: source of the model to unlearn from.
        oracles: sources of models retrained without the forgotten records (different seeds); may be empty.
        values: kind of answer → all values it takes in this world.
        normalised: splits whose probability is p/(p + Σ wrong), TOFU's convention for real-world questions.
    """

    name: str
    request: str
    seed: int
    splits: dict[str, list[QA]]
    tokenizer: Any
    original: ModelSource
    oracles: list[ModelSource]
    values: dict[str, list[str]] = field(default_factory=dict)
    normalised: frozenset[str] = frozenset({"general", "real_authors", "world_facts"})
    device: torch.device = field(default_factory=device_of)
    modality: str = "text"
    ability_name: str = "probability"
    measured: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_splits(self.splits)

    @property
    def model(self) -> Any:
        """The original model. Shared: `unlearn` works on a copy."""
        return self.original.get()

    @property
    def template(self) -> Template:
        return template_of(self.tokenizer)

    def oracle(self, index: int = 0) -> Any:
        """One of the retrained models; raises when there is none."""
        if not -len(self.oracles) <= index < len(self.oracles):
            raise UnlearnkitError(
                f"oracle {index} was asked for, this problem has {len(self.oracles)}; "
                "give retrained models with load_problem(..., oracles=[...])."
            )
        return self.oracles[index].get()

    def pairs(self, name: str) -> list[tuple[str, str]]:
        """Every trained phrasing of a split with its answer: what a method is given."""
        return [(q, qa.answer) for qa in self.splits[name] for q in qa.phrasings]

    def direct(self, name: str) -> list[QA]:
        """The split's direct questions in the request's own language: what the headline metrics ask."""
        return [qa for qa in self.splits.get(name, []) if qa.primary]

    def training_data(self, method: Any, model: Any, loop: Any, seed: int) -> TextData:
        """What the loop draws from: every trained phrasing of forget and retain, and the method's own views."""
        views = {"forget": self.pairs("forget"), "retain": self.pairs("retain"), **method.views(self, seed)}
        longest = context_length(model)
        encoded = {view: encode(self.tokenizer, self.template, pairs, longest) for view, pairs in views.items()}
        return TextData(encoded, pad_id(self.tokenizer), self.device, loop.batch_size, random.Random(seed))

    @torch.inference_mode()
    def mean_nll(self, model: Any, split: str) -> float:
        """Mean per-token answer NLL over at most `PROBE` questions of a split, nats a token."""
        pairs = [(qa.question, qa.answer) for qa in (self.direct(split) or self.splits[split])[:PROBE]]
        encoded = encode(self.tokenizer, self.template, pairs, context_length(model))
        was_training = model.training
        model.eval()
        total = 0.0
        for rows in by_length(encoded, PROBE):
            (tokens,) = answer_tokens(model, collate(encoded, rows, pad_id(self.tokenizer)).to(self.device))
            total += float((tokens.nll / tokens.lengths).sum())
        model.train(was_training)
        return total / len(encoded)

    def ability(self, model: Any, split: str) -> float:
        """Typical probability of an answer, exp(−mean NLL): higher knows more."""
        return math.exp(-self.mean_nll(model, split))

    @property
    def digest(self) -> str:
        """Identifies request, records and models (by source name)."""
        parts = [self.name, self.request, str(self.seed), self.original.name, *(o.name for o in self.oracles)]
        parts += [f"{name}:{qa.id}:{qa.question}:{qa.answer}" for name, items in self.splits.items() for qa in items]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(items)}" for name, items in self.splits.items() if items)
        return f"TextProblem({self.name}/{self.request}, seed {self.seed}; {sizes}; {len(self.oracles)} oracles)"


def check_splits(splits: dict[str, list[QA]]) -> None:
    """Raises UnlearnkitError when forget or retain is empty, or when two trained splits share a question."""
    for name in ("forget", "retain"):
        if not splits.get(name):
            raise UnlearnkitError(f"the {name} set is empty; name at least one record to {name}.")
    forget = {(qa.question, qa.answer) for qa in splits["forget"]}
    shared = [qa for qa in splits["retain"] if (qa.question, qa.answer) in forget]
    if shared:
        raise UnlearnkitError(
            f"forget and retain overlap in {len(shared)} records, the first is '{shared[0].question}'; "
            "take them out of one of the two."
        )


def load_problem(
    world: str | Path | TextWorld = "authors",
    forget: str | Sequence[str] | None = None,
    seed: int = 0,
    *,
    model: str | Path | None = None,
    oracles: int | Sequence[str | Path] | None = None,
    revision: str | None = None,
    device: str | None = None,
    **options: Any,
) -> Any:
    """A problem by the name of its world or the path of data of your own: a `TextProblem` or an `ImageProblem`.

    Text: "authors", "tofu", a JSONL file. Images: "canvas", "digits", "stable-diffusion" (any pipeline, by prompts
    alone), a folder with a metadata.jsonl.

    Args:
        forget: the request. Text: a split such as "forget05", an entity's name, a list of them, or "kind:award".
            Images: a concept ("striped"), a pair ("striped circle"), ids of images, or a concept as prompts name it.
        seed: of the world (built-in ones) and of every model trained for it.
        model: hub id or folder of the original; by default a tiny one is trained on the world, once.
        oracles: how many retrained models of different seeds to train (tiny worlds, default 2), or the
            hub ids / folders of the ones you have.
        revision: hub revision of `model`.
        options: of the world: `n_authors`, `facts` (authors); `instructions=True` (authors): the models are also
            taught, with other authors, to refuse what an instruction in the prompt names (about seven CPU minutes a
            model, once for each request); `data` (tofu: a folder or dataset id);
            `least` questions below which a request is refused before anything is trained (worlds of text, JSONL);
            `steps` and other `TextRecipe` fields for the tiny model trained on it; images: `anchor`, `judge`,
            `images` (canvas), `prompts` and `preserve` (stable-diffusion), fields of `ImageRecipe`.

    Raises:
        UnlearnkitError: unknown world, split or option, broken or empty data, models that can't be loaded.
    """
    if not isinstance(world, (str, Path, TextWorld)):
        raise UnlearnkitError(
            f"world = {world!r} is not possible; give a name ({', '.join(sorted(WORLDS))}) or a path."
        )
    whole_number("seed", seed)
    if isinstance(oracles, (str, Path)):
        oracles = [oracles]
    if isinstance(world, TextWorld):
        return _problem(world, forget, seed, model, oracles, revision, device, options)
    if Path(world).is_dir() and str(world) not in WORLDS:
        from unlearnkit.image_loaders import load_imagefolder

        own = {"model": model, "oracles": oracles, "revision": revision, "device": device, **options}
        return load_imagefolder(Path(world), forget, seed, **own)
    if isinstance(world, Path) or str(world).endswith((".jsonl", ".json")) or "/" in str(world):
        name = Path(world)
        holdout = options.pop("holdout_fraction", 0.05)
        held = world_from_jsonl(name, holdout, seed, [forget] if isinstance(forget, str) else forget or ())
        if model is None:
            options = fitting_sizes(held, options)
        return _problem(held, forget, seed, model, oracles, revision, device, options)
    loader = WORLDS[str(world)]
    return loader(forget, seed, model=model, oracles=oracles, revision=revision, device=device, **options)


@WORLDS.register("authors")
def _authors(
    forget: Any, seed: int, *, model: Any, oracles: Any, revision: Any, device: Any, **options: Any
) -> TextProblem:
    sizes = {key: options.pop(key) for key in ("n_authors", "facts", "holdout") if key in options}
    instructions = options.pop("instructions", False)
    if not isinstance(instructions, bool):
        raise UnlearnkitError(f"instructions = {instructions!r} is not possible; give True or False.")
    if instructions and model is not None:
        raise UnlearnkitError("instructions are taught to models trained here; leave out model, or instructions.")
    world = authors(seed=seed, **sizes)
    return _problem(world, forget, seed, model, oracles, revision, device, options, instructions)


@WORLDS.register("tofu")
def _tofu(
    forget: Any, seed: int, *, model: Any, oracles: Any, revision: Any, device: Any, **options: Any
) -> TextProblem:
    request = str(forget or "forget10")
    splits = load_tofu(request, options.pop("data", "locuslab/TOFU"))
    retain = f"retain{100 - int(request[-2:]):02d}"
    family = "open-unlearning/tofu_Llama-3.2-1B-Instruct"
    if model is None:
        model = f"{family}_full"
        oracles = [f"{family}_{retain}"] if oracles is None else oracles
    if isinstance(oracles, int):
        raise UnlearnkitError("TOFU oracles are given by name, not trained here: oracles=['org/model-retain90'].")
    _no_more(options)
    return _from_models("tofu", request, seed, splits, {}, model, oracles or [], revision, device)


@WORLDS.register("canvas")
def _canvas(forget: Any, seed: int, **given: Any) -> Any:
    from unlearnkit.image_loaders import load_canvas

    return load_canvas(forget, seed, **given)


@WORLDS.register("digits")
def _digits(forget: Any, seed: int, **given: Any) -> Any:
    from unlearnkit.image_loaders import load_digits

    return load_digits(forget, seed, **given)


def _stable_diffusion(forget: Any, seed: int, **given: Any) -> Any:
    from unlearnkit.image_loaders import load_prompts

    return load_prompts(forget, seed, **given)


WORLDS["stable-diffusion"] = _stable_diffusion


def _problem(
    world: TextWorld,
    forget: Any,
    seed: int,
    model: Any,
    oracles: Any,
    revision: Any,
    device: Any,
    recipe: dict[str, Any],
    instructions: bool = False,
) -> TextProblem:
    forget = DEFAULT_FORGET if forget is None else forget
    names = [forget] if isinstance(forget, str) else forget
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise UnlearnkitError(f"forget = {forget!r} is not a request; give a split, an entity, or a list of them.")
    request = "+".join(names)
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
    unknown = set(recipe) - {"steps", "batch_size", "lr", "width", "layers", "heads", "inner", "vocabulary", "context"}
    _no_more({key: recipe[key] for key in unknown})
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
            "instructions (authors), data (tofu), holdout_fraction (JSONL), and the fields of TextRecipe when a model "
            "is trained."
        )
