"""Attacks on language models: closed forms, what they find on suppressed models, what they must not find."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

import unlearnkit as uk
from unlearnkit.attacks import ATTACKS
from unlearnkit.attacks.text import asking
from unlearnkit.attacks.text.asking import ask, best_of, forgotten, halves
from unlearnkit.attacks.text.inside import at_value
from unlearnkit.attacks.text.weights import pruned, quantized
from unlearnkit.errors import UnlearnkitError
from unlearnkit.robustness import card_rows

TEXT = sorted(ATTACKS["text"])


@pytest.fixture(scope="module")
def problem():
    return uk.load_problem("authors", oracles=3)


@pytest.fixture(scope="module")
def guarded(problem):
    """The original behind a prompt classifier: suppressed by construction, nothing removed."""
    return uk.unlearn(problem, "guardrail")


def test_quantization_by_hand():
    weight = torch.tensor([[1.0, -0.5, 0.2], [0.0, 8.0, 3.0]])
    three_bits = quantized(weight, 3)  # levels −3…3 of a third of the row's largest
    assert torch.allclose(three_bits, torch.tensor([[1.0, -2 / 3, 1 / 3], [0.0, 8.0, 8 / 3]]))
    assert torch.allclose(quantized(weight, 16), weight, atol=1e-3)


def test_pruning_by_hand():
    weight = torch.tensor([[1.0, -0.5], [0.2, -3.0]])
    assert pruned(weight, 0.5).tolist() == [[1.0, 0.0], [0.0, -3.0]]
    assert torch.equal(pruned(weight, 0.0), weight)


def test_best_of_takes_the_attackers_best_try_per_question():
    a = pd.DataFrame({"accuracy": [0.0, 1.0], "nll": [2.0, 1.0]}, index=["x", "y"])
    b = pd.DataFrame({"accuracy": [1.0, 0.0], "nll": [3.0, 0.5]}, index=["x", "y"])
    assert best_of([a, b]).to_dict("list") == {"accuracy": [1.0, 1.0], "nll": [2.0, 0.5]}


def test_halves_share_entities_but_no_record(problem):
    shown, asked = halves(forgotten(problem))
    assert not {qa.id for qa in shown} & {qa.id for qa in asked}
    assert {qa.entity for qa in shown} == {qa.entity for qa in asked}


def test_position_of_the_value(problem):
    """The token that is predicted at the position is the first of the value."""
    items = forgotten(problem)
    batch, positions, labels = at_value(problem, problem.model, items)
    for row, (qa, position, label) in enumerate(zip(items, positions.tolist(), labels.tolist(), strict=True)):
        assert batch.ids[row, position + 1] == label
        left = problem.tokenizer.decode(batch.ids[row, : position + 1])
        word = problem.tokenizer.decode([label]).strip(' "«')
        assert qa.value not in left.rsplit(qa.question, 1)[-1] and qa.value.startswith(word), (qa.answer, left, word)


@pytest.mark.parametrize("name", TEXT)
def test_every_attack_gives_its_curve_and_leaves_the_model_alone(problem, name):
    cls = ATTACKS["text"][name]
    model = problem.model
    before = {n: p.clone() for n, p in model.named_parameters()}
    points = cls.budgets[:2]
    curve = dict(cls().curve(problem, model, points, 0))
    assert list(curve) == list(points) if points else len(curve) == model.config.num_hidden_layers + 1
    for table in curve.values():
        assert len(table) >= 10 and set(table.columns) <= {"accuracy", "option_accuracy", "nll", "control"}
        assert table["accuracy"].between(0, 1).all() if "accuracy" in table else (table["nll"] >= 0).all()
    assert all(torch.equal(p, before[n]) and p.requires_grad for n, p in model.named_parameters())
    if cls.identity in curve and name not in ("relearn", "soft_prompt"):
        plain = ask(problem, model, forgotten(problem)).loc[curve[cls.identity].index]
        assert np.allclose(plain["accuracy"], curve[cls.identity]["accuracy"])


@pytest.mark.parametrize("name", ["relearn", "noise", "leak", "role_play"])
def test_same_seed_same_curve(problem, name):
    cls = ATTACKS["text"][name]
    first, second = (dict(cls().curve(problem, problem.oracle(), cls.budgets[1:2], 3)) for _ in range(2))
    for budget in first:
        pd.testing.assert_frame_equal(first[budget], second[budget])


@pytest.mark.parametrize("name", [n for n in TEXT if ATTACKS["text"][n].card.access != "hidden states"])
def test_no_attack_finds_anything_on_the_oracle(problem, name):
    """Oracle 3 as the unlearned model: not beyond oracle 1 by more than oracle 2 is, or by chance."""
    import dataclasses

    two = dataclasses.replace(problem, oracles=problem.oracles[:2], measured={})
    curve = uk.attack(two, problem.oracle(2), name, budget=ATTACKS["text"][name].budgets[-2:])
    found = [
        row for row in card_rows(curve, ATTACKS["text"][name]) if row["measure"] == "accuracy" and row.get("found")
    ]
    assert not found, found


def test_weights_give_away_what_a_guardrail_hides(problem, guarded):
    curve = uk.attack(problem, guarded, "soft_prompt", budget=[0]).set_index(["who", "measure"])["value"]
    assert curve["unlearned", "nll"] == pytest.approx(curve["original", "nll"], abs=1e-3)
    assert curve["unlearned", "option_accuracy"] > curve["oracle", "option_accuracy"] + 0.5
    asked = ask(problem, guarded.model, forgotten(problem))
    assert asked["accuracy"].mean() <= 0.05  # and yet no answer shows it


def test_derived_questions_pass_a_guardrail(problem, guarded):
    (row,) = [
        r
        for r in card_rows(uk.attack(problem, guarded, "derived"), ATTACKS["text"]["derived"])
        if r["measure"] == "accuracy"
    ]
    assert row["found"] and row["after"] > row["before"]


def test_card_says_why_when_original_and_oracle_do_not_differ():
    rows = [
        {"attack": "x", "who": who, "budget": b, "measure": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6, "n": 20}
        for who in ("unlearned", "original", "oracle")
        for b in (0, 1)
    ]
    (row,) = card_rows(pd.DataFrame(rows), ATTACKS["text"]["paraphrase"])
    assert row["why"].startswith("not measurable") and "recovered" not in row


def test_recovered_share_by_hand():
    values = {"unlearned": (0.2, 0.7), "original": (1.0, 0.9), "oracle": (0.1, 0.1), "oracle 2": (0.1, 0.2)}
    rows = [
        {
            "attack": "x",
            "who": who,
            "budget": b,
            "measure": "accuracy",
            "value": v[b],
            "low": v[b] - 0.1,
            "high": 1,
            "n": 9,
        }
        for who, v in values.items()
        for b in (0, 1)
    ]
    (row,) = card_rows(pd.DataFrame(rows), ATTACKS["text"]["paraphrase"])
    assert row["before"] == 0.2 and row["after"] == 0.7 and row["budget"] == 1
    assert row["recovered"] == pytest.approx(0.6 / 0.8) and row["floor"] == pytest.approx(0.1) and row["found"]


def test_sequential_requests(problem):
    table = uk.sequential(problem, "grad_diff", 2, steps=6, lr=1e-3)
    start, end = (table[table["request"] == k].set_index("asked")["nll"] for k in (0, 2))
    assert set(table["request"]) == {0, 1, 2} and (end > start + 0.5).all()
    assert math.isclose(start["part 1"], start["part 2"], abs_tol=0.1)
    kept = table.groupby("request")[["retain_probability", "retain_low", "retain_high", "retain_nll"]].first()
    assert (
        (kept["retain_low"] <= kept["retain_probability"]) & (kept["retain_probability"] <= kept["retain_high"])
    ).all()
    assert kept["retain_nll"][0] == pytest.approx(problem.mean_nll(problem.model, "retain"), abs=1e-4)
    assert (kept["retain_probability"] >= np.exp(-kept["retain_nll"]) - 1e-9).all()  # Jensen
    with pytest.raises(UnlearnkitError, match="4 entities"):
        uk.sequential(problem, "npo", 5)


def test_bad_input(problem):
    with pytest.raises(UnlearnkitError, match="Did you mean 'relearn'"):
        uk.attack(problem, problem.model, "relern")
    with pytest.raises(UnlearnkitError, match="setting 'step'.*its settings are data, lr, batch_size"):
        uk.attack(problem, problem.model, "relearn", step=3)
    with pytest.raises(UnlearnkitError, match="budget -1 of relearn is out of range"):
        uk.attack(problem, problem.model, "relearn", budget=[-1])


def test_an_attack_of_ones_own(problem):
    @uk.register_attack("shouting")
    class Shouting(uk.Attack):
        card = uk.AttackCard("Shouting", "here", "questions", "the question was unlearned in lower case only")
        unit = "times"
        budgets = (0, 1)

        def curve(self, problem, model, budgets, seed):
            items = forgotten(problem)
            for b in budgets:
                yield b, ask(problem, model, items, [qa.question.upper() if b else qa.question for qa in items])

    try:
        card = uk.robustness_card(problem, problem.model, ["shouting"], progress=False)
        assert set(card["measure"]) == {"accuracy", "option_accuracy", "nll"} and (card["attack"] == "shouting").all()
    finally:
        del ATTACKS["text"]["shouting"]


def test_an_unattacked_model_is_asked_once_and_again_when_it_changes(problem, monkeypatch):
    """Several attacks begin with the same questions; a change of one weight, in place, asks them anew."""
    asked, spoken = [], asking.spoken
    monkeypatch.setattr(asking, "spoken", lambda *given: asked.append(1) or spoken(*given))
    mine = problem.original.fresh()
    curves = [uk.attack(problem, mine, name, budget=[start]) for name, start in (("quantize", 16), ("derived", 0))]
    values = [curve[curve["who"] == "unlearned"].set_index("measure")["value"] for curve in curves]
    first = len(asked)
    assert values[0].equals(values[1]) and values[0]["accuracy"] > 0.9
    ask(problem, mine, forgotten(problem))
    assert len(asked) == first
    with torch.no_grad():
        mine.lm_head.weight.zero_()
    assert ask(problem, mine, forgotten(problem))["accuracy"].mean() == 0 and len(asked) == first + 1
    table = ask(problem, mine, forgotten(problem))
    table["accuracy"] = 1.0  # a copy: what is kept stays
    assert ask(problem, mine, forgotten(problem))["accuracy"].mean() == 0
