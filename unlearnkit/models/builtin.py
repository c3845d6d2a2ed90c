"""The tiny models of the built-in worlds: which recipes there are, and how a checkpoint is made of one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from unlearnkit.errors import UnlearnkitError
from unlearnkit.models import store
from unlearnkit.models.load import quiet
from unlearnkit.models.recipe import (
    InstructedRecipe,
    TextRecipe,
    corpus_of,
    digest_of,
    train_text,
    train_tokenizer,
    training_pairs,
)
from unlearnkit.text import Template
from unlearnkit.worlds import TextWorld, authors, split, training_items
from unlearnkit.worlds.drills import INSTRUCTION, REFUSAL, Drill
from unlearnkit.worlds.records import QA

DEFAULT_FORGET = "forget10"
SHIPPED_ORACLES = 3
LONGEST = 1024  # tokens of context that a tiny model is given at most
OWN_VOCABULARY = 4096  # BPE tokens, upper bound, for texts of one's own
OWN_STEPS, OWN_PASSES = 300, 55  # at least so many steps, and so many passes over the records
TOLD, SPELT = 400, 60  # times the tokenizer reads the instruction and the refusal, and each part of a drilled name
GENERATED = 32  # tokens of an answer that metrics ask for


def text_recipe(
    world: TextWorld, items: Sequence[QA], note: str, seed: int, drills: Sequence[Drill] = (), **sizes: Any
) -> TextRecipe:
    """The recipe of the tiny Llama on `items` and `drills`; `sizes` are fields of `TextRecipe`."""
    kind: Any = TextRecipe
    given = dict(sizes)
    if drills:
        kind, given["drills"] = InstructedRecipe, digest_of([list(p) for p in drill_pairs(drills)])
    try:
        return kind(
            data=digest_of([list(p) for p in training_pairs(items)]),
            corpus=digest_of(tokenizer_texts(world, drills)),
            note=note,
            seed=seed,
            **given,
        )
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        what = (
            f"'{first['loc'][0]}' of a tiny model can't be {sizes.get(str(first['loc'][0]))!r}" if first["loc"] else ""
        )
        raise UnlearnkitError(f"{what or 'a tiny model can not have these sizes'}: {said}.") from error


def tokenizer_texts(world: TextWorld, drills: Sequence[Drill]) -> list[str]:
    """What the tokenizer is trained on: the world's texts, and what drills are worded with, as often as it takes.

    Every part of a name is then one token, as those of the world are: a model compares two tokens, not spellings.
    """
    parts = sorted({part for drill in drills for name in drill.names for part in name.split()})
    told = TOLD * [f"{INSTRUCTION.format(names='')} {REFUSAL}"] if drills else []
    return corpus_of(world.items) + told + SPELT * [f"a {part}, a" for part in parts]


def drill_pairs(drills: Sequence[Drill]) -> list[tuple[str, str]]:
    """(instruction and question as the model reads them, answer)."""
    ask = f"{INSTRUCTION}\n{Template().before_question}"
    return [(ask.format(names=", ".join(drill.names)) + drill.question, drill.answer) for drill in drills]


def text_recipes(
    world: TextWorld, splits: dict[str, list[QA]], request: str, seed: int, oracles: int, **given: Any
) -> list[tuple[TextRecipe, list[QA]]]:
    """Original first, then `oracles` retrained ones of different seeds; each with the records it is trained on.

    `given` are `drills` and fields of `TextRecipe`.
    """
    everything, without = training_items(splits, oracle=False), training_items(splits, oracle=True)
    original = text_recipe(world, everything, f"{world.name}: original", 1000 * seed, **given)
    return [
        (original, everything),
        *(
            (text_recipe(world, without, f"{world.name}: oracle of {request}", 1000 * seed + k, **given), without)
            for k in range(1, oracles + 1)
        ),
    ]


def fitting_sizes(world: TextWorld, given: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of the recipe that suit a file of texts, beside the `given` ones.

    More tokens in the vocabulary and so shorter sequences, a context that holds them, and steps enough to learn them by
    heart (300 TOFU records: NLL 0.2 after 55 passes).
    """
    sizes = {"vocabulary": OWN_VOCABULARY, **given}
    batch = sizes.get("batch_size", TextRecipe.model_fields["batch_size"].default)
    pairs = sum(len(qa.phrasings) for qa in world.items)
    if isinstance(batch, int) and batch > 0:
        sizes.setdefault("steps", max(OWN_STEPS, math.ceil(OWN_PASSES * pairs / batch)))
    if "context" not in sizes:
        sizes["context"] = fitting_context(world, sizes["vocabulary"])
    return sizes


def fitting_context(world: TextWorld, vocabulary: Any = TextRecipe.model_fields["vocabulary"].default) -> int:
    """Tokens of context that hold every record of a world: a multiple of 64 from 128 to 1024."""
    if not isinstance(vocabulary, int) or not 1 <= vocabulary <= 2**18:
        return LONGEST  # the recipe will refuse it
    tokenizer, template = train_tokenizer(corpus_of(world.items), vocabulary, LONGEST), Template()

    def longest(texts: Sequence[str]) -> int:
        return max((len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]), default=0) if texts else 0

    needed = 0
    for qa in world.items:
        prompts = longest([template.prompt(q) for q in (*qa.phrasings, *qa.paraphrased_questions)])
        texts = [t for t in (qa.answer, qa.paraphrased_answer, *qa.perturbed_answers, *qa.options) if t]
        needed = max(needed, prompts + max(longest([template.answer_prefix + t for t in texts]) + 1, GENERATED))
    return min(LONGEST, max(TextRecipe.model_fields["context"].default, 64 * math.ceil(needed / 64)))


def text_checkpoint(
    recipe: TextRecipe,
    world: TextWorld,
    items: Sequence[QA],
    root: Path | None = None,
    force: bool = False,
    drills: Sequence[Drill] = (),
) -> Path:
    """Folder of the recipe's model (float16 safetensors) and tokenizer, trained on first use."""

    def build(folder: Path) -> None:
        tokenizer = train_tokenizer(tokenizer_texts(world, drills), recipe.vocabulary, recipe.context)
        label = f"training {recipe.note}"
        model = train_text(recipe, training_pairs(items), tokenizer, label=label, drills=drill_pairs(drills))
        with quiet():
            model.half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return store.fetch(recipe, build, root, force)


@lru_cache(maxsize=1)
def _default_text() -> tuple[TextWorld, list[tuple[TextRecipe, list[QA]]]]:
    world = authors()
    splits = split(world, DEFAULT_FORGET)
    return world, text_recipes(world, splits, DEFAULT_FORGET, 0, SHIPPED_ORACLES)


def builtin_recipes() -> list[tuple[TextRecipe, Callable[[Path, bool], Path]]]:
    """(recipe, build(root, force)) of the text checkpoints that ship in data/models."""
    world, recipes = _default_text()
    return [(recipe, partial(text_checkpoint, recipe, world, items)) for recipe, items in recipes]
