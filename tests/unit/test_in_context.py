"""in_context on a model that follows its instruction: suppressed from outside, and everything still inside.

The shipped models follow no instruction (a test below says so), and a copy of one is taught to here: to refuse the
forgotten questions behind the very instruction that `in_context` gives, and to answer all others as before.
"""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import unlearnkit as uk
from unlearnkit.attacks import ATTACKS
from unlearnkit.attacks.text.asking import ask, forgotten
from unlearnkit.methods.text.base import refusals
from unlearnkit.methods.text.in_context import CHECKED, InContext, instruction_ids
from unlearnkit.metrics.measure import REFUSING
from unlearnkit.models.source import ModelSource
from unlearnkit.robustness import card_rows
from unlearnkit.text import Encoded, answer_tokens, collate, encode, generate, pad_id

STEPS, BATCH = 100, 16


def taught(problem: Any) -> Any:
    """A copy of the original, fine-tuned for `STEPS` steps."""
    names = list(dict.fromkeys(qa.entity for qa in problem.splits["forget"]))
    text = InContext().text.format(names=", ".join(names))
    prefix, dropped = instruction_ids(problem.tokenizer, problem.template, text)
    assert not dropped  # as every prompt begins with itself here

    def told(rows: list[Encoded]) -> list[Encoded]:
        return [Encoded([*prefix, *one.ids], len(prefix) + one.start) for one in rows]

    def plain(pairs: Any) -> list[Encoded]:
        return encode(problem.tokenizer, problem.template, pairs, 128 - len(prefix))

    forget, retain = plain(problem.pairs("forget")), plain(problem.pairs("retain"))
    parts = [told(plain(refusals(problem, 0))), told(retain), told(retain), forget, retain]
    model, draw = problem.original.fresh().train(), random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for step in range(STEPS):
        rows = [one for part in parts for one in draw.sample(part, BATCH)]
        loss = answer_tokens(model, collate(rows, range(len(rows)), pad_id(problem.tokenizer)))[0].loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - step / STEPS)
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def problem() -> Any:
    shipped = uk.load_problem("authors", oracles=2, device="cpu")
    follower = taught(shipped)
    return dataclasses.replace(shipped, original=ModelSource(lambda: copy.deepcopy(follower), "taught"), measured={})


@pytest.fixture(scope="module")
def unlearned(problem: Any) -> Any:
    return uk.unlearn(problem, "in_context", least=0.0)


def said(problem: Any, model: Any, questions: list[str]) -> list[str]:
    return generate(model, problem.tokenizer, problem.template, questions, 32, 256)


def test_the_shipped_original_follows_no_instruction() -> None:
    with pytest.raises(uk.UnlearnkitError, match="not measurable: the model does not follow such an instruction"):
        uk.unlearn(uk.load_problem("authors", oracles=0, device="cpu"), "in_context")


def test_forgotten_questions_are_refused_and_others_answered(problem: Any, unlearned: Any) -> None:
    own, others = [qa.question for qa in forgotten(problem)], problem.direct("retain")[::5]
    assert sum(bool(REFUSING.search(a)) for a in said(problem, unlearned.model, own)) >= 0.9 * len(own)
    kept = ask(problem, unlearned.model, others)["accuracy"].mean()
    assert kept >= 0.9 * ask(problem, problem.model, others)["accuracy"].mean() >= 0.8
    assert unlearned.cost["parameters_touched"] == 0


def test_the_weights_still_answer(problem: Any, unlearned: Any) -> None:
    """What holds the weights asks without the instruction, in words or in vectors."""
    curve = uk.attack(problem, unlearned, "soft_prompt", budget=[0]).set_index(["who", "measure"])["value"]
    assert curve["unlearned", "nll"] == pytest.approx(curve["original", "nll"], abs=1e-4)
    assert curve["unlearned", "option_accuracy"] > curve["oracle", "option_accuracy"] + 0.5
    assert curve["unlearned", "nll"] < 0.5 * ask(problem, unlearned.model, forgotten(problem))["nll"].mean()


# leak@k is not among them: this refusal is given with a probability near one, and 16 samples a question find nothing
@pytest.mark.parametrize(
    ("name", "measure"),
    [("relearn", "accuracy"), ("prefix", "accuracy"), ("cross_lingual", "accuracy"), ("derived", "nll")],
)
def test_attacks_beat_doing_nothing(problem: Any, unlearned: Any, name: str, measure: str) -> None:
    rows = card_rows(uk.attack(problem, unlearned, name), ATTACKS["text"][name])
    (row,) = [r for r in rows if r["measure"] == measure]
    assert row["found"] and row["recovered"] > row["floor"], row
    assert row["after"] < row["before"] if measure == "nll" else row["after"] > row["before"] + 0.2, row


@pytest.fixture
def obedient(problem: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[list[str], list[str]]]]:
    """A stand-in for generation that refuses whatever the instruction names, but for one entity; keeps what it saw."""
    seen: list[tuple[list[str], list[str]]] = []
    deaf = problem.direct("retain")[0].entity

    def answer(model: Any, tokenizer: Any, template: Any, questions: list[str], *_: Any) -> list[str]:
        (hook,) = model.base_model._forward_pre_hooks.values()
        text = tokenizer.decode(hook.prefix[0])
        names = text.strip().removeprefix("Do not answer questions about ").rstrip(".").split(", ")
        seen.append((names, questions))
        return ["I don't know that." if any(n in q and n != deaf for n in names) else "It is so." for q in questions]

    monkeypatch.setattr("unlearnkit.methods.text.in_context.generate", answer)
    yield seen


def test_the_check_instructs_about_others_and_counts_what_is_refused(problem: Any, obedient: Any) -> None:
    share = InContext().followed(problem, 4)
    forget = {qa.entity for qa in problem.splits["forget"]}
    assert sum(len(questions) for _, questions in obedient) == CHECKED and len(obedient) == 5
    assert all(len(names) == 4 and not forget & set(names) for names, _ in obedient)
    assert all(any(n in q for n in names) for names, questions in obedient for q in questions)
    deaf = problem.direct("retain")[0].entity
    assert share == 1 - sum(deaf in q for _, questions in obedient for q in questions) / CHECKED < 1
    assert uk.unlearn(problem, "in_context", least=share).cost["steps"] == 0
    with pytest.raises(uk.UnlearnkitError, match=rf"it refused {share:.0%} of {CHECKED} .* \(at least 100% are needed"):
        uk.unlearn(problem, "in_context", least=1.0)
