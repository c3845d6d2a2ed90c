"""Alternate answers for DPO: the original's own words, plausible, never true and never the evaluation's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import unlearnkit as uk
from unlearnkit.methods import METHODS
from unlearnkit.methods.text import dpo
from unlearnkit.text import answer_tokens, collate, encode
from unlearnkit.worlds.records import QA


@pytest.fixture(scope="module")
def shipped() -> Any:
    return uk.load_problem("authors", oracles=0, device="cpu")


def test_each_forget_question_gets_another_answer_of_the_right_kind(shipped: Any) -> None:
    """Of the built-in world's, at least four in five name another value of the same kind, in the answer's own form."""
    found = METHODS["text"]["dpo"](preferred="alternates").views(shipped, 0)["preferred"]
    records = [qa for qa in shipped.splits["forget"] for _ in qa.phrasings]
    assert [q for q, _ in found] == [q for q, _ in shipped.pairs("forget")]
    assert not any(qa.value.casefold() in text.casefold() for (_, text), qa in zip(found, records, strict=True))
    kinds = [
        any(value in text for value in shipped.values[qa.kind]) for (_, text), qa in zip(found, records, strict=True)
    ]
    assert sum(kinds) >= 0.8 * len(kinds)
    held_out = {text for qa in records for text in qa.perturbed_answers}
    assert not held_out & {text for _, text in found}  # whose wording the model was never trained on


def test_same_seed_same_answers(small_problem: Any) -> None:
    first, again, other = (dpo.alternates(small_problem, seed, 4, 1.0) for seed in (1, 1, 2))
    assert first == again != other


def test_the_likeliest_of_the_samples_is_taken(small_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By summed NLL under the original, among those that don't hold the value."""
    qa = small_problem.splits["forget"][0]
    one = [dataclasses.replace(qa, phrasings=(qa.question,))]
    problem = dataclasses.replace(small_problem, splits={**small_problem.splits, "forget": one}, measured={})
    start = qa.answer[: qa.answer.index(qa.value)]
    words = ["Oslo.", "in Madrid, they say."]
    drawn = [f"{qa.value}.", words[0], f"{qa.value.upper()}.", "", "\ufffd\ufffd", words[1], "so " * 200]
    known = [start + w for w in words]

    def goes_on(*given: Any, starts: list[str]) -> list[str]:
        assert starts == [start.rstrip()] and given[3] == [qa.question]
        return list(drawn)

    monkeypatch.setattr(dpo, "generate", goes_on)
    ((question, text),) = dpo.alternates(problem, 0, len(drawn), 1.0)
    encoded = encode(problem.tokenizer, problem.template, [(qa.question, a) for a in known], 96)
    with torch.no_grad():
        (tokens,) = answer_tokens(problem.model, collate(encoded, [0, 1], 0))
    assert question == qa.question and text == known[int(tokens.nll.argmin())]
    heats: list[float] = []

    @contextmanager
    def watched(model: Any, temperature: float) -> Iterator[None]:
        heats.append(temperature)
        yield

    def stubborn(*given: Any, starts: list[str]) -> list[str]:
        return [qa.value if len(heats) < 3 else "Rome."] * len(drawn)

    monkeypatch.setattr(dpo, "first_token_at", watched)

    monkeypatch.setattr(dpo, "generate", stubborn)
    assert dpo.alternates(problem, 0, len(drawn), 0.8) == [(qa.question, start + "Rome.")]
    assert heats == pytest.approx([dpo.FIRST * heat for heat in (0.8, 1.0, 1.25)])
    monkeypatch.setattr(dpo, "generate", lambda *given, starts: [qa.value] * len(drawn))
    with pytest.raises(
        uk.UnlearnkitError, match="to 1 forget questions the original gave no other answer in 8 times 7"
    ):
        dpo.alternates(problem, 0, len(drawn), 1.0)


def test_without_a_value_any_other_answer_will_do(small_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    record = QA("x", "e", "Who is that?", "A sailor.")
    problem = dataclasses.replace(small_problem, splits={**small_problem.splits, "forget": [record]}, measured={})
    monkeypatch.setattr(dpo, "generate", lambda *given, starts: ["A sailor.", "A poet."] if starts == [""] else [])
    assert dpo.alternates(problem, 0, 2, 1.0) == [("Who is that?", "A poet.")]


def test_the_first_token_is_drawn_hot_and_the_rest_cool(small_problem: Any) -> None:
    """The logits that generation is given, against the model's own; afterwards everything is as it was."""
    model = small_problem.model
    ids = torch.tensor([small_problem.tokenizer(small_problem.template.prompt("Who is that?"))["input_ids"]])
    with torch.no_grad():
        plain = model(ids, use_cache=True)
        following = model(ids[:, -1:], past_key_values=plain.past_key_values).logits
        with dpo.first_token_at(model, 1.5):
            out = model(ids, use_cache=True)
            rank = (plain.logits[..., None, :] > plain.logits[..., :, None]).sum(-1)
            kept = plain.logits * (dpo.COOL / 1.5)
            torch.testing.assert_close(out.logits, kept.masked_fill(rank >= dpo.CHOICES, -torch.inf))
            again = model(input_ids=ids[:, -1:], past_key_values=out.past_key_values).logits
        torch.testing.assert_close(again, following)
        assert torch.equal(model(ids).logits, plain.logits)
