"""Readings of the inside and what is measured with them: closed forms, bounds, and which records a model saw."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import unlearnkit.metrics.measure
import unlearnkit.models.recipe
import unlearnkit.problem
from unlearnkit.attribution import lds, recall
from unlearnkit.attribution.image.inside import denoising
from unlearnkit.attribution.lds import linear_datamodeling_score, measure_lds
from unlearnkit.attribution.recall import GROUP, SEARCHED, measure_recall
from unlearnkit.attribution.text import data, inside, sensitivity
from unlearnkit.attribution.text.sensitivity import coded_prompts, prompt_sets
from unlearnkit.models.pipeline import Diffusion
from unlearnkit.models.source import ModelSource
from unlearnkit.text import pad_id
from unlearnkit.worlds.records import QA


def test_a_changed_text_encoder_changes_no_agreement(small_image_problem: Any) -> None:
    """Both denoisers are told the original's text states, whatever the pipeline makes of a prompt itself."""
    whole, encoder, denoiser, both = (Diffusion(small_image_problem.original.fresh().pipe).eval() for _ in range(4))
    with torch.no_grad():
        for model in (encoder, both):
            for parameter in model.pipe.text_encoder.parameters():
                parameter.mul_(0.5)
        for model in (denoiser, both):
            for parameter in model.unet.parameters():
                parameter.mul_(0.8)
        told = [model.embed(["a striped circle"]).hidden for model in (whole, encoder)]
    assert not torch.allclose(*told, atol=1e-3)
    apart = {k: denoising(small_image_problem, m, 0)[0] for k, m in enumerate((whole, encoder, denoiser, both))}
    assert (apart[0] == 0).all() and (apart[1] == 0).all()
    assert (apart[2] > 0).all() and apart[3].tolist() == apart[2].tolist()  # to the last bit


def test_a_lens_finds_at_least_what_each_reader_alone_finds(small_problem: Any) -> None:
    original, model = small_problem.model, small_problem.oracle(0)
    alone = dataclasses.replace(small_problem, original=ModelSource(lambda: model, "its own", kept=model))
    own = inside.lens(alone, model, 0)
    read = copy.deepcopy(model)  # the same inner states, behind the original's norm and output embedding
    read.model.norm = original.model.norm
    read.set_output_embeddings(original.get_output_embeddings())
    others = inside.lens(small_problem, read, 0)
    found = inside.lens(small_problem, model, 0)
    assert not np.allclose(own, others, atol=1e-3)
    assert (found >= np.maximum(own, others) - 1e-5).all() and (found <= 0).all()


def test_depth_counts_each_layer_between_none_and_all(small_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two layers, three items: 1 − (min(3, 1) + 0) / 2, 1 − (max(−1, 0) + 0.5) / 2 and 1 − (0.5 + 1.5) / (1 + 3)."""
    drops = {
        "oracle": torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 3.0]]),
        "model": torch.tensor([[3.0, -1.0, 0.5], [0.0, 0.5, 1.5]]),
    }
    oracle = small_problem.oracle(0)

    def patching_drops(original: Any, source: Any, batch: Any) -> Tensor:
        return drops["oracle" if source is oracle else "model"]

    monkeypatch.setattr(inside, "patching_drops", patching_drops)
    assert inside.depth(small_problem, small_problem.model, 0).tolist() == [0.5, 0.75, 0.5]
    assert inside.depth(small_problem, oracle, 0).tolist() == [0, 0, 0]


def test_a_perturbation_has_its_radius_at_the_prompt_and_nothing_elsewhere(
    small_problem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    radius, given = 0.3, []
    following = sensitivity._following

    def spied(model: Any, x: Tensor, labels: Tensor) -> Tensor:
        given.append(x.detach())
        return following(model, x, labels)

    monkeypatch.setattr(sensitivity, "_following", spied)
    prompts = prompt_sets(small_problem, small_problem.direct("forget"), 96, 0)
    coded = coded_prompts(small_problem, prompts, "I don't know that.", 96)
    monkeypatch.setattr(sensitivity, "by_length", lambda items, size: [list(range(len(items)))])
    sensitivity.sensitivity(small_problem.model, coded, pad_id(small_problem.tokenizer), radius, 5, 0)
    x, *moved = given
    assert len(moved) == 5 and len(x) == len(coded)
    starts = torch.tensor([c.start for c in coded])
    prompt = torch.arange(x.shape[1]) < starts[:, None]  # (sequences, tokens)
    share = torch.stack([(m - x).norm(dim=2) / x.norm(dim=2) for m in moved])
    assert share[:, prompt].square().mean().sqrt().item() == pytest.approx(radius, rel=0.1)
    assert share[:, ~prompt].abs().max() == 0


def test_the_interval_of_a_datamodeling_score_covers_the_draw_of_models() -> None:
    """Queries that are all one leave nothing else to draw."""
    draw = np.random.default_rng(0)
    scores, kept = draw.normal(size=12), draw.random((10, 12)) < 0.5
    losses = -(kept @ scores) + draw.normal(size=10)
    value, low, high = linear_datamodeling_score(np.tile(scores, (6, 1)), kept, np.tile(losses[:, None], 6))
    once = linear_datamodeling_score(scores[None], kept, losses[:, None])
    assert value == pytest.approx(once[0]) and low < value < high and high - low > 0.1


def test_models_of_a_datamodeling_score_are_trained_on_the_records_they_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[list[tuple[str, str]]] = []
    asked: list[tuple[Any, list[tuple[str, str]]]] = []
    among: list[list[QA]] = []
    judged: list[tuple[Any, Any]] = []

    def train_text(recipe: Any, pairs: list[tuple[str, str]], *more: Any) -> int:
        trained.append(pairs)
        return len(trained) - 1  # stands for the model

    def score_sequences(problem: Any, model: Any, pairs: list[tuple[str, str]]) -> pd.DataFrame:
        asked.append((model, pairs))
        return pd.DataFrame({"mean_nll": np.full(len(pairs), float(model))})

    def scored(problem: Any, model: Any, named: Any, records: list[QA], score: str, seed: int) -> Any:
        assert model == 0  # the one that was trained on everything
        among.append(records)
        return np.zeros(len(records))

    def judge(scores: Any, kept: Any, losses: Any, *, seed: int) -> tuple[float, float, float]:
        judged.append((kept, losses))
        return 0.0, -1.0, 1.0

    monkeypatch.setattr(unlearnkit.models.recipe, "train_tokenizer", lambda *arguments: None)
    monkeypatch.setattr(unlearnkit.models.recipe, "train_text", train_text)
    monkeypatch.setattr(unlearnkit.metrics.measure, "score_sequences", score_sequences)
    monkeypatch.setattr(data, "scored", scored)
    monkeypatch.setattr(lds, "linear_datamodeling_score", judge)
    table = measure_lds(("words",), models=4, queries=5)
    records, ((kept, losses),) = among[0], judged
    texts = [(qa.question, qa.answer) for qa in records]
    assert trained[0] == texts and len(trained) == 5
    for row, pairs in zip(kept, trained[1:], strict=True):
        assert row.sum() == len(records) // 2
        assert pairs == [text for text, inside_it in zip(texts, row, strict=True) if inside_it]
    assert losses.tolist() == [[k] * 5 for k in (1, 2, 3, 4)] and [model for model, _ in asked] == [1, 2, 3, 4]
    for _, pairs in asked:  # the facts of records, in words that no model was trained on
        assert {answer for _, answer in pairs} <= {answer for _, answer in texts} and not {*pairs} & {*texts}
    assert table[["queries", "models", "records"]].to_numpy().tolist() == [[5, 4, len(records)]]


def test_recall_counts_the_records_that_a_request_left_out(small_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stubs that take what the request left out, and what it did not, have a recall of 1 and 0."""
    walks: list[tuple[list[QA], list[QA], int]] = []

    def walk(
        problem: Any, model: Any, named: Sequence[QA], pool: Sequence[QA], score: str, k: int, rounds: int, seed: int
    ) -> list[list[QA]]:
        walks.append((list(named), list(pool), k))
        whose = {qa.entity for qa in named}
        assert whose == {qa.entity for qa in problem.direct("forget")} and len(whose) == GROUP
        return [sorted(pool, key=lambda qa: (qa.entity in whose) != (score == "all"))[:k]]

    monkeypatch.setattr(unlearnkit.problem, "load_problem", lambda *arguments, **settings: small_problem)
    monkeypatch.setattr(recall, "walk", walk)
    table = measure_recall(("records",), ("all", "none"), requests=3).set_index("score")
    assert table.loc["all", ["recall", "low", "high"]].tolist() == [1, 1, 1]
    assert table.loc["none", ["recall", "low", "high"]].tolist() == [0, 0, 0]
    sizes = [(k, len(pool)) for _, pool, k in walks[::2]]
    assert (table["n"] == sum(k for k, _ in sizes)).all() and (table["requests"] == len(sizes)).all()
    assert table["chance"].tolist() == pytest.approx([sum(k * k / n for k, n in sizes) / sum(k for k, _ in sizes)] * 2)
    for named, pool, k in walks:
        left_out = [qa for qa in pool if qa.entity in {n.entity for n in named}]
        assert len(left_out) == k and len(pool) == k + SEARCHED and not {*named} & {*pool}
    groups = [{qa.entity for qa in named} for named, _, _ in walks[::2]]
    assert len(set.union(*groups)) == 3 * GROUP  # no author is in two requests
