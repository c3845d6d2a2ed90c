"""A model trained on a file of one's own gets a context that its records fit into."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from unlearnkit.models.builtin import GENERATED, LONGEST, fitting_context, fitting_sizes
from unlearnkit.models.recipe import corpus_of, train_tokenizer
from unlearnkit.text import Template, encode
from unlearnkit.worlds import TextWorld, authors, world_from_jsonl


def world_of(tmp_path: Path, words: int) -> TextWorld:
    rows = [
        {"question": f"What did {name} say?", "answer": " ".join(f"{name}{i * 7919 % 104729}" for i in range(words))}
        | {"subject": name}
        for name in ("Ann", "Bo", "Cy")
    ]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return world_from_jsonl(path)


def test_long_records_get_a_longer_context(tmp_path: Path) -> None:
    world = world_of(tmp_path, 60)
    context = fitting_context(world)
    assert context % 64 == 0 and 128 < context < LONGEST
    tokenizer = train_tokenizer(corpus_of(world.items), 1024, context)
    pairs = [(qa.question, qa.answer) for qa in world.items]
    encoded = encode(tokenizer, Template(), pairs, context)  # raises when one does not fit
    assert max(len(e.ids) for e in encoded) > context - 64  # and no more than needed
    assert max(e.start for e in encoded) + GENERATED <= context


@pytest.mark.parametrize("words", [3, 2000])
def test_bounds(tmp_path: Path, words: int) -> None:
    assert fitting_context(world_of(tmp_path, words)) == (128 if words == 3 else LONGEST)


def test_the_built_in_world_fits_the_recipe() -> None:
    assert fitting_context(authors(n_authors=5, facts=5)) == 128


def test_sizes_for_texts_of_ones_own(tmp_path: Path) -> None:
    assert fitting_sizes(world_of(tmp_path, 3), {}) == {"vocabulary": 4096, "steps": 300, "context": 128}
    world = authors(n_authors=5, facts=5)
    pairs = sum(len(qa.phrasings) for qa in world.items)
    assert fitting_sizes(world, {})["steps"] == math.ceil(55 * pairs / 64) > 300  # 55 passes
    given = {"vocabulary": 300, "steps": 7, "context": 256}
    assert fitting_sizes(world, given) == given
