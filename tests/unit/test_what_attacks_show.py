"""What attacks on language models are told and what they count: halves, starts, examples, controls, best tries."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from unlearnkit.attacks.text import inside, questions, sampling, soft_prompt
from unlearnkit.attacks.text.asking import forgotten
from unlearnkit.attacks.text.inside import LogitLens, Probe
from unlearnkit.attacks.text.questions import ManyShot, answer_start
from unlearnkit.attacks.text.relearn import Relearn
from unlearnkit.attacks.text.sampling import Leak
from unlearnkit.attacks.text.soft_prompt import SoftPrompt
from unlearnkit.worlds.records import QA


def owners(problem: Any, pairs: Sequence[tuple[str, str]]) -> set[str]:
    """Ids of the forgotten records that the questions are about."""
    known = {question: qa.id for qa in forgotten(problem) for question in qa.phrasings}
    return {known[question] for question, _ in pairs}


def test_relearning_asks_none_of_the_facts_it_is_shown(small_problem: Any) -> None:
    shown = owners(small_problem, Relearn().shown(small_problem))
    ((_, table),) = Relearn().curve(small_problem, small_problem.model, [0], 0)
    assert shown and len(table) and shown.isdisjoint(table.index)
    assert shown | set(table.index) == {qa.id for qa in forgotten(small_problem)}


def test_a_soft_prompt_is_judged_on_none_of_the_facts_it_is_optimised_on(
    small_problem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[tuple[list[tuple[str, str]], Any]] = []
    trained: list[Any] = []
    encode, shuffled = soft_prompt.encode, soft_prompt.shuffled_batches

    def seen(tokenizer: Any, template: Any, pairs: list[tuple[str, str]], longest: int) -> Any:
        encoded.append((pairs, encode(tokenizer, template, pairs, longest)))
        return encoded[-1][1]

    def drawn(data: Any, *more: Any) -> Any:
        trained.append(data)
        return shuffled(data, *more)

    monkeypatch.setattr(soft_prompt, "encode", seen)
    monkeypatch.setattr(soft_prompt, "shuffled_batches", drawn)
    ((_, table),) = SoftPrompt().curve(small_problem, small_problem.model, [1], 0)
    (optimised,) = [pairs for pairs, data in encoded if data is trained[0]]
    shown = owners(small_problem, optimised)
    assert shown and len(table) and shown.isdisjoint(table.index)
    assert shown | set(table.index) == {qa.id for qa in forgotten(small_problem)}


def test_the_start_of_an_answer_ends_before_the_value(small_problem: Any) -> None:
    answer = "He was born in the old city of Porto Alegre, long ago."
    qa = QA("x", "He", "Where was he born?", answer, "city", "Porto Alegre")
    starts = [answer_start(qa, share) for share in (0, 0.25, 0.5, 1)]
    assert starts == ["", "He was", "He was born in", "He was born in the old city of"]
    assert answer_start(QA("y", "He", "Where?", "Porto it was.", "city", "Porto"), 1.0) == ""
    for record in forgotten(small_problem):
        start = answer_start(record, 1.0)
        assert record.value not in start and record.answer.startswith(start)
        assert record.answer.removeprefix(start).strip().startswith(record.value)


def test_examples_before_a_question_give_no_forgotten_answer_away(
    small_problem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def ask(problem: Any, model: Any, items: Sequence[QA], wording: list[str]) -> pd.DataFrame:
        asked.append(wording)
        return pd.DataFrame(index=[qa.id for qa in items])

    monkeypatch.setattr(questions, "ask", ask)
    monkeypatch.setattr(questions, "context_length", lambda model: 10_000)
    budgets = [budget for budget, _ in ManyShot().curve(small_problem, small_problem.model, (0, 1, 4), 0)]
    assert budgets == [0, 1, 4] and len(asked) == 3
    forget, retain = forgotten(small_problem), small_problem.direct("retain")
    for budget, wording in zip(budgets, asked, strict=True):
        for qa, question in zip(forget, wording, strict=True):
            assert question.endswith(qa.question)
            assert not [other.id for other in forget if other.answer in question]
            assert sum(f"{r.question} {r.answer} " in question for r in retain) == budget


def test_a_probe_reads_separable_values_and_its_control_only_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """States that are the value itself, as a one-hot vector: fitted on shuffled values nothing is left of it."""
    kinds, values, layers = ("city", "year", "genre", "award"), ("oak", "elm", "fir", "ash", "yew"), 8

    def records(split: str, each: int) -> list[QA]:
        return [
            QA(f"{split}.{kind}.{value}.{k}", split, "Which?", f"It is {value}.", kind, value)
            for kind in kinds
            for value in values
            for k in range(each)
        ]

    splits = {"forget": records("forget", 3), "retain": records("retain", 9)}

    def states(model: Any, items: Sequence[QA], positions: Any) -> Tensor:
        return torch.eye(len(values))[[values.index(qa.value) for qa in items]].expand(layers, -1, -1)

    monkeypatch.setattr(inside, "at_value", lambda problem, model, items: (items, None, None))
    monkeypatch.setattr(inside, "hidden_states", states)
    problem = SimpleNamespace(direct=lambda name: splits[name])
    curve = dict(Probe().curve(problem, None, (), 0))
    assert list(curve) == list(range(layers))
    assert all((table["accuracy"] == 1).all() for table in curve.values())
    control = np.mean([table["control"].mean() for table in curve.values()])
    assert control == pytest.approx(1 / len(values), abs=0.1)


@pytest.mark.parametrize(("place", "expected"), [(0, [1, 1, 1, 1]), (2, [0, 0, 1, 1])])
def test_one_slip_among_k_answers_is_a_leak(
    small_problem: Any, monkeypatch: pytest.MonkeyPatch, place: int, expected: list[float]
) -> None:
    items = forgotten(small_problem)
    said = [f"It is {qa.value}." if k == place else "Nobody knows." for qa in items for k in range(4)]
    monkeypatch.setattr(sampling, "generate", lambda *arguments: said)
    curve = dict(Leak().curve(small_problem, None, (1, 2, 3, 4), 0))
    assert [table["accuracy"].tolist() for table in curve.values()] == [[e] * len(items) for e in expected]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_lens_finds_what_is_among_the_k_likeliest(
    small_problem: Any, monkeypatch: pytest.MonkeyPatch, k: int
) -> None:
    """Three values that are the likeliest, the second and the third token of a vocabulary of four."""
    logits, labels = torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([0, 1, 2])
    head = nn.Linear(4, 4, bias=False)
    head.weight.data = torch.eye(4)
    model = SimpleNamespace(norm=nn.Identity(), get_output_embeddings=lambda: head)
    monkeypatch.setattr(inside, "at_value", lambda problem, model, items: (None, None, labels[: len(items)]))
    monkeypatch.setattr(inside, "hidden_states", lambda *arguments: logits.expand(2, len(labels), 4))
    assert len(forgotten(small_problem)) == len(labels)
    for table in dict(LogitLens(k=k).curve(small_problem, model, (), 0)).values():
        assert table["accuracy"].tolist() == [float(rank < k) for rank in range(3)]
        if k == 1:
            assert table["accuracy"].tolist() == (logits.argmax() == labels).float().tolist()
        assert table["nll"].tolist() == pytest.approx((-logits.log_softmax(0)[labels]).tolist())
