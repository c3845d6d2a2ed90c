"""What attacks on diffusion models aim at and what they count: the teacher, the best wording, both halves of a pair."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from unlearnkit.attacks.image import prompts, showing
from unlearnkit.attacks.image.embeddings import EmbeddingSearch
from unlearnkit.attacks.image.prompts import Paraphrase
from unlearnkit.attacks.image.showing import drawn_with, seen
from unlearnkit.methods.image.esd import trajectory_bank


def test_an_embedding_search_is_taught_by_the_original_not_by_the_attacked_model(small_image_problem: Any) -> None:
    problem, seed = dataclasses.replace(small_image_problem, measured={}), 3
    changed = problem.original.fresh()
    with torch.no_grad():
        for parameter in changed.unet.parameters():
            parameter.mul_(0.5)
    EmbeddingSearch().losses(problem, changed, torch.Generator().manual_seed(seed))
    found = problem.measured["teacher", seed]
    steps, guidance = drawn_with(problem)
    wanted, other = (
        trajectory_bank(model, problem.asked["forget"], -1.0, 2, steps, guidance, seed)
        for model in (problem.model, changed)
    )
    assert torch.equal(found.x, wanted.x) and torch.equal(found.target, wanted.target)
    assert not torch.allclose(found.target, other.target, atol=1e-3)


def test_the_best_of_all_wordings_counts(small_image_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is seen when asked plainly, all with the first further wording, nothing with those that follow."""

    def table(ids: Sequence[str], value: float) -> pd.DataFrame:
        return pd.DataFrame({"shown": value, "probability": value}, index=list(ids))

    values = iter([1.0, 0.0, 0.0])
    monkeypatch.setattr(showing, "judge_trouble", lambda judge: "")  # the judge is not asked here
    monkeypatch.setattr(prompts, "unattacked", lambda problem, model, plain: table(plain.ids, 0.0))
    monkeypatch.setattr(prompts, "draw", lambda problem, model, said, seeds: None)
    monkeypatch.setattr(prompts, "seen", lambda problem, images, ids: table(ids, next(values)))
    monkeypatch.setattr(Paraphrase, "ways", lambda self, problem: [list(problem.asked["forget"])] * 3)
    curve = dict(Paraphrase(samples=6).curve(small_image_problem, None, (0, 1, 3), 0))
    for measure in ("shown", "probability"):
        assert [set(found[measure]) for found in curve.values()] == [{0.0}, {1.0}, {1.0}]
    assert [len(found) for found in curve.values()] == [6, 6, 6]


def test_a_pair_is_shown_where_both_of_its_halves_are() -> None:
    """Read: both right, the object alone, the style alone, neither."""
    read = {
        "object": np.array([[0.1, 0.9], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4]]),
        "style": np.array([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1], [0.3, 0.7]]),
    }
    domains = {"object": ("ring", "star"), "style": ("striped", "plain")}
    judge = SimpleNamespace(domains=domains, read=lambda images: (read, None))
    pair = {"object": "star", "style": "striped"}
    for concept in (pair, dict(reversed(pair.items()))):
        found = seen(SimpleNamespace(judge=judge, concept=concept), np.zeros((4, 2, 2, 3), np.uint8), list("abcd"))
        assert found["shown"].tolist() == [1, 0, 0, 0] and found.index.tolist() == list("abcd")
        assert found["probability"].tolist() == pytest.approx([0.9 * 0.8, 0.8 * 0.4, 0.3 * 0.9, 0.4 * 0.3])
    single = seen(SimpleNamespace(judge=judge, concept={"style": "striped"}), np.zeros((4, 2, 2, 3)), list("abcd"))
    assert single["shown"].tolist() == [1, 0, 1, 0]
