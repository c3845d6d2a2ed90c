"""Data attribution: influence and the linear datamodeling score in closed form; the loop with scores of known skill."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny_models
import torch

import unlearnkit as uk
from unlearnkit.attribution.lds import COLUMNS, SCORES
from unlearnkit.attribution.loop import _recalls, parted, walk
from unlearnkit.attribution.recall import KINDS as RECALL_KINDS
from unlearnkit.attribution.recall import SCORES as RECALL_SCORES
from unlearnkit.attribution.text import influence as influences
from unlearnkit.attribution.text.data import SCORERS, scored
from unlearnkit.attribution.text.influence import Inverse, as_matrix, factors, linear_layers
from unlearnkit.models.recipe import corpus_of
from unlearnkit.paths import data_dir
from unlearnkit.text import answer_tokens, collate, context_length, encode, pad_id
from unlearnkit.worlds.records import QA


def test_linear_datamodeling_score_of_exact_influence_is_one() -> None:
    """Ridge regression on an orthonormal design: what a record adds to a prediction is q·x_i y_i / (1 + λ), exactly."""
    draw = np.random.default_rng(0)
    size, models, ridge = 12, 10, 0.3
    x, y = np.linalg.qr(draw.normal(size=(size, size)))[0], draw.normal(size=size)
    queries = draw.normal(size=(5, size))
    kept = draw.random((models, size)) < 0.5
    predictions = np.array([
        [q @ np.linalg.solve(x[k].T @ x[k] + ridge * np.eye(size), x[k].T @ y[k]) for q in queries] for k in kept
    ])  # fmt: skip
    exact = queries @ np.linalg.solve(x.T @ x + ridge * np.eye(size), x.T * y)  # (queries, records)
    score = uk.linear_datamodeling_score(exact, kept, -predictions)
    assert score == pytest.approx((1, 1, 1))
    assert uk.linear_datamodeling_score(-exact, kept, -predictions) == pytest.approx((-1, -1, -1))
    noise = uk.linear_datamodeling_score(draw.normal(size=(100, size)), kept, draw.normal(size=(models, 100)))
    assert abs(noise[0]) < 0.1 and noise[1] < 0 < noise[2]
    # one query in which the predicted order of four models has one neighbouring pair swapped: 1 − 6·2/(4·15)
    four = np.eye(4, dtype=bool)
    swapped = uk.linear_datamodeling_score(np.array([[1.0, 2, 3, 4]]), four, -np.array([[1.0], [3], [2], [4]]))
    assert swapped[0] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [(((2, 5), (3, 4), (3, 2)), "don't belong together"), (((2, 5), (2, 5), (2, 2)), "retrain at least 3")],
)
def test_what_has_no_score(shapes: Sequence[tuple[int, ...]], message: str) -> None:
    with pytest.raises(uk.UnlearnkitError, match=message):
        uk.linear_datamodeling_score(*(np.ones(shape) for shape in shapes))


def test_the_measured_score_is_on_record() -> None:
    table = pd.read_csv(data_dir() / "measured" / "lds.csv").set_index("score")
    assert list(table.reset_index().columns) == COLUMNS and list(table.index) == list(SCORES)
    assert ((table["low"] <= table["lds"]) & (table["lds"] <= table["high"])).all()
    assert table.loc["random", "low"] < 0 < table.loc["random", "high"]  # chance, or the measurement leaks


def coded_of(problem: Any, items: Sequence[QA]) -> list[Any]:
    return encode(problem.tokenizer, problem.template, [(qa.question, qa.answer) for qa in items], 96)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_influence_is_the_inverse_of_its_factors_and_without_curvature_a_dot_product(
    kind: str, small_problem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [qa for split in small_problem.splits.values() for qa in split]
    tokenizer = tiny_models.tokenizer_of(kind, corpus_of(items))
    model = tiny_models.model_of(kind, tokenizer, 0).eval()
    problem = SimpleNamespace(tokenizer=tokenizer, device=torch.device("cpu"))
    queries, records = (
        encode(tokenizer, small_problem.template, [(qa.question, qa.answer) for qa in part], context_length(model))
        for part in (small_problem.direct("forget")[:2], small_problem.direct("retain")[:4])
    )
    pad, every = pad_id(tokenizer), linear_layers(model)
    name, layer = min(every.items(), key=lambda item: item[1].weight.numel())
    monkeypatch.setattr(influences, "linear_layers", lambda _: {name: layer})

    def gradient(coded: Any) -> np.ndarray:
        (tokens,) = answer_tokens(model, collate([coded], [0], pad))
        (found,) = torch.autograd.grad(tokens.loss, [layer.weight])
        return as_matrix(layer, found).double().numpy()

    q, z = np.mean([gradient(c) for c in queries], axis=0), [gradient(c) for c in records]
    ((a, s),) = factors(model, {name: layer}, records, pad, torch.device("cpu"), 3).values()
    block = np.kron(s.double().numpy(), a.double().numpy())  # of the weight read row by row
    mean = np.diag(block).mean()
    turned = np.linalg.solve(block + 0.1 * mean * np.eye(len(block)), q.ravel())
    wanted = [turned @ x.ravel() for x in z]
    assert influences.influence(problem, model, queries, records, 3) == pytest.approx(
        wanted, rel=2e-2, abs=1e-3 * np.abs(wanted).max()
    )
    # under a huge λ all directions count alike: the dot product of the gradients over λ
    flat = influences.influence(problem, model, queries, records, 3, damping=1e6)
    plain = [(q * x).sum() / (1e6 * mean) for x in z]
    assert flat == pytest.approx(plain, rel=1e-2, abs=1e-3 * np.abs(plain).max())


def test_factors_are_second_moments_and_the_inverse_is_one(small_problem: Any) -> None:
    model = small_problem.original.fresh()
    records = coded_of(small_problem, small_problem.direct("retain")[:3])
    kept = factors(model, linear_layers(model), records, pad_id(small_problem.tokenizer), torch.device("cpu"), 0)
    again = factors(model, linear_layers(model), records, pad_id(small_problem.tokenizer), torch.device("cpu"), 0)
    for name, (a, s) in kept.items():
        assert torch.equal(a, a.T) or torch.allclose(a, a.T, atol=1e-6)
        assert torch.linalg.eigvalsh(a.double()).min() > -1e-5 and torch.equal(a, again[name][0])
        gradient = torch.randn(len(s), len(a))
        inverse = Inverse(a, s, 0.1)
        shift = 0.1 * float(
            (torch.linalg.eigvalsh(s).clamp_min(0)[:, None] * torch.linalg.eigvalsh(a).clamp_min(0)).mean()
        )
        turned = inverse(gradient)
        back = s @ turned @ a + shift * turned
        assert torch.allclose(back, gradient, atol=1e-2 * float(gradient.abs().max()))
    assert all(p.grad is None for p in model.parameters())


@pytest.fixture
def scorers(small_problem: Any) -> Any:
    """Two scorers that know the forgotten author's name: one puts it first, one last."""
    name = small_problem.direct("forget")[0].entity

    def perfect(problem: Any, model: Any, queries: Any, records: Any, seed: int) -> np.ndarray:
        return np.array([float(name in problem.tokenizer.decode(r.ids)) for r in records])

    SCORERS["perfect"] = perfect
    SCORERS["perverse"] = lambda *given: -perfect(*given)
    yield
    del SCORERS["perfect"], SCORERS["perverse"]


def test_the_loop_finds_all_with_a_perfect_score_and_nothing_with_a_perverse_one(
    small_problem: Any, scorers: None
) -> None:
    settings: dict[str, Any] = {"steps": 2, "batch_size": 4, "lr": 1e-3}
    result = uk.attribution_loop(small_problem, "grad_diff", score="perfect", scores=["perverse"], **settings)
    first = result.recall[result.recall["model"] == "original"].set_index("score")
    assert (first.loc["perfect", "recall"], first.loc["perverse", "recall"]) == (1, 0)
    assert set(first.index) == {"perfect", "perverse", "words", "random"}
    whole = {qa.id for qa in small_problem.direct("forget")}
    assert {qa.id for qa in result.problem.splits["forget"]} == whole
    assert not whole & {qa.id for qa in result.problem.splits["retain"]}
    assert (first["k"] == 2).all() and (first["n"] == 2).all() and set(result.recall["model"]) == {"original"}
    assert set(result.relearning["request"]) == {"half", "extended", "full", "original", "oracle"}
    assert set(result.models) == {"half", "extended", "full"}

    worst = uk.attribution_loop(small_problem, "grad_diff", score="perverse", rounds=2, k=3, **settings)
    rounds = worst.recall[(worst.recall["score"] == "perverse") & (worst.recall["model"] == "original")]
    assert rounds["k"].tolist() == [2, 3] and rounds["recall"].tolist() == [0, 0]
    again = worst.recall[worst.recall["model"] == "unlearned"].set_index("score")
    assert (again["n"] == 2).all() and again.loc["perverse", "recall"] == 0  # still to be found
    left = {qa.id for qa in worst.problem.splits["retain"]}
    assert len(whole & left) == 2 and not {qa.id for qa in worst.found} & (whole | left)


def test_a_later_round_asks_with_what_was_found_and_takes_nothing_twice(small_problem: Any) -> None:
    named, pool = small_problem.direct("forget")[:1], small_problem.direct("retain")[:6]
    ways = walk(small_problem, small_problem.model, named, pool, "words", 5, 3, 0)
    assert [len(w) for w in ways] == [2, 3, 5] and len({qa.id for qa in ways[-1]}) == 5
    first = scored(small_problem, small_problem.model, named, pool, "words", 0)
    assert ways[0] == [pool[i] for i in np.argsort(-first, kind="stable")[:2]]
    rest = [qa for qa in pool if qa not in ways[0]]
    second = scored(small_problem, small_problem.model, [*named, *ways[0]], rest, "words", 0)
    assert ways[1][2] == rest[int(np.argmax(second))]


def test_recall_over_entities_by_hand() -> None:
    hidden = [QA(f"h{k}", who, f"q{k}", "a") for k, who in enumerate("AAAB")]
    others = [QA(f"o{k}", "C", f"r{k}", "a") for k in range(6)]
    (row,) = _recalls("original", "x", [[hidden[0], hidden[3], others[0]]], hidden, others, 3, 0)
    assert (row["recall"], row["chance"], row["n"], row["k"], row["records"]) == (0.5, 0.3, 4, 3, 10)
    assert row["low"] == pytest.approx(1 / 3) and row["high"] == 1  # only A drawn, only B drawn


def test_what_a_request_can_leave_out(small_problem: Any) -> None:
    problem = uk.load_problem("authors", oracles=0, device="cpu")  # shipped; its models are not run
    direct = problem.direct("forget")
    named, hidden, others = parted(problem, "records", 0.5, 0)
    assert len(named) == len(hidden) == 20 and {*named, *hidden} == set(direct) and not {*hidden} & {*others}
    for who in {qa.entity for qa in direct}:
        assert sum(qa.entity == who for qa in hidden) == 5
    named, hidden, others = parted(problem, "translated", 0.5, 0)
    assert named == direct and {qa.language for qa in hidden} == {"fr"} and "en" in {qa.language for qa in others}
    named, hidden, others = parted(problem, "derived", 0.5, 0)
    gone, ids = {qa.entity for qa in direct}, {qa.id for qa in direct}
    assert hidden and all(ids & set(qa.sources) for qa in hidden) and not any(ids & set(qa.sources) for qa in others)
    assert not any(who in qa.question + qa.answer for qa in hidden for who in gone)
    for given, message in (
        ({"left_out": "some"}, "left_out = 'some' is not possible"),
        ({"share": 1}, "share = 1 is not possible; give a number between 0 and 1"),
        ({"score": "word"}, "data attribution 'word' is unknown.*Did you mean 'words'"),
        ({"rounds": 0}, "rounds = 0 is not possible"),
    ):
        with pytest.raises(uk.UnlearnkitError, match=message):
            uk.attribution_loop(small_problem, "grad_diff", **given)


def test_measured_recall_is_on_record() -> None:
    """Names give left-out records of a request away; where no record names the forgotten, the words do not."""
    table = pd.read_csv(data_dir() / "measured" / "recall.csv").set_index(["left_out", "score"])
    assert set(table.index) == {(kind, score) for kind in RECALL_KINDS for score in RECALL_SCORES}
    assert ((table["low"] <= table["recall"]) & (table["recall"] <= table["high"])).all()
    assert (table["requests"] == 10).all() and table["chance"].between(0.05, 0.2).all()
    words = table.xs("words", level="score")
    assert words.loc["records", "low"] > 0.9 and words.loc["derived", "low"] < words.loc["derived", "chance"]
