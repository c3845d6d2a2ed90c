"""Every loss of every text method on a toy: its value by a formula of plain Python, its gradient by finite differences.

A method that is registered without a formula here fails `test_every_method_has_a_closed_form`.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import toy
from toy import END, FORGET, REFUSAL, RETAIN, VIEWS, Plain, ce, log_sigmoid, mean, soft_ce, softmax, summed, token_mean

from unlearnkit.data import TextData
from unlearnkit.methods import METHODS, StepBatch
from unlearnkit.text import Encoded, collate

# What a loss may use: θ as it moves, θ as it stood when the weights were taken (equal to θ, but without gradient),
# θ₀, and the method with its settings.
Loss = Callable[[Plain, Plain, Plain, Any], float]


def npo(now: Plain, frozen: Plain, before: Plain, m: Any) -> float:
    pairs = zip(summed(now, FORGET), summed(before, FORGET), strict=True)
    return -2 / m.beta * mean([log_sigmoid(m.beta * (loss - start)) for loss, start in pairs])


def simnpo(now: Plain, frozen: Plain, before: Plain, m: Any) -> float:
    lengths = [len(ids) - start for ids, start in FORGET]
    return (
        -2
        / m.beta
        * mean([log_sigmoid(m.beta * (nll / n - m.delta)) for nll, n in zip(summed(now, FORGET), lengths, strict=True)])
    )


def dpo(now: Plain, frozen: Plain, before: Plain, m: Any) -> float:
    margins = [
        (w0 - w) - (l0 - ll)
        for w, w0, ll, l0 in zip(
            summed(now, REFUSAL), summed(before, REFUSAL), summed(now, FORGET), summed(before, FORGET), strict=True
        )
    ]
    return -2 / m.beta * mean([log_sigmoid(m.beta * margin) for margin in margins])


def rmu(now: Plain, frozen: Plain, before: Plain, m: Any) -> float:
    u = torch.rand(toy.VOCABULARY, generator=torch.Generator().manual_seed(m.direction_seed)).tolist()
    size = math.sqrt(sum(x * x for x in u))
    norms = [math.sqrt(sum(x * x for x in h)) for h in before.hidden(FORGET)]
    c = m.scale * mean(norms) if m.c is None else m.c
    return mean([(x - c * d / size) ** 2 for h in now.hidden(FORGET) for x, d in zip(h, u, strict=True)])


def undial(now: Plain, frozen: Plain, before: Plain, m: Any) -> float:
    losses = []
    for (z, y), (z0, _) in zip(now.tokens(FORGET), before.tokens(FORGET), strict=True):
        losses.append(soft_ce(softmax([v - m.beta * (k == y) for k, v in enumerate(z0)]), z))
    return mean(losses)


def ceu(now: Plain, frozen: Plain, before: Plain, m: Any) -> float:
    losses = []
    for answer, fixed in zip(now.answers(FORGET), frozen.answers(FORGET), strict=True):
        for (z, y), (target, _) in list(zip(answer, fixed, strict=True))[1:]:  # not the first token
            p = softmax(target)
            losses.append(soft_ce([0.0 if k == y else q / (1 - p[y]) for k, q in enumerate(p)], z))
    return mean(losses)


def weighted(weight: Callable[[float, Any], float]) -> Loss:
    def loss(now: Plain, frozen: Plain, before: Plain, m: Any) -> float:
        pairs = zip(now.tokens(FORGET), frozen.tokens(FORGET), strict=True)
        return -mean([weight(softmax(fixed)[y], m) * ce(z, y) for (z, y), (fixed, _) in pairs])

    return loss


def reinforced(before: Plain, lr: float) -> Plain:
    """θ₀ after one step of Adam on ℓ_f: θ₀ − lr·g/(|g| + 1e-8)."""
    stepped = copy.deepcopy(before)
    slopes = toy.gradient(lambda at: token_mean(at, FORGET), copy.deepcopy(before))
    for rows, slope in ((stepped.table, slopes[0]), (stepped.head, slopes[1])):
        rows[:] = (torch.tensor(rows, dtype=torch.float64) - lr * slope / (slope.abs() + 1e-8)).tolist()
    return stepped


def whp(now: Plain, frozen: Plain, before: Plain, m: Any) -> float:
    if not hasattr(before, "stepped"):
        before.stepped = reinforced(before, m.reinforce_lr)  # type: ignore[attr-defined]
    losses = []
    for (z, _), (z0, _), (zr, _) in zip(
        now.tokens(FORGET), before.tokens(FORGET), before.stepped.tokens(FORGET), strict=True
    ):
        target = [a - m.strength * max(0.0, b - a) for a, b in zip(z0, zr, strict=True)]
        losses.append(soft_ce(softmax(target), z))
    return mean(losses)


FORGET_LOSS: dict[str, tuple[Loss | None, dict[str, Any]]] = {
    "retain_finetune": (None, {}),
    "grad_ascent": (lambda now, frozen, before, m: -token_mean(now, FORGET), {}),
    "grad_diff": (lambda now, frozen, before, m: -token_mean(now, FORGET), {}),
    "npo": (npo, {"beta": 0.7}),
    "simnpo": (simnpo, {"beta": 2.5, "delta": 0.4}),
    "dpo": (dpo, {"beta": 0.6}),
    "idk_nll": (lambda now, frozen, before, m: token_mean(now, REFUSAL), {}),
    "rmu": (rmu, {"layer": 1, "scale": 3.0}),
    "undial": (undial, {"beta": 1.5}),
    "ceu": (ceu, {}),
    "wga": (weighted(lambda p, m: p**m.beta), {"beta": 0.8}),
    "satimp": (weighted(lambda p, m: p**m.beta1 * (1 - p) ** m.beta2), {"beta1": 1.6, "beta2": 0.7}),
    "pdu": (
        lambda now, frozen, before, m: mean([(max(z) - mean(z)) ** 2 for z, _ in now.tokens(FORGET)]),
        {"multiplier": 1.3, "slack": 0.5},
    ),
    "task_vector": (lambda now, frozen, before, m: token_mean(now, FORGET), {}),
    "whp": (whp, {"strength": 2.0, "reinforce_steps": 1, "reinforce_lr": 0.1}),
}


def retain_nll(now: Plain, frozen: Plain, before: Plain, m: Any) -> float:
    return token_mean(now, RETAIN)


def retain_kl(now: Plain, frozen: Plain, before: Plain, m: Any) -> float:
    parts = []
    for (z, _), (z0, _) in zip(now.tokens(RETAIN), before.tokens(RETAIN), strict=True):
        p = softmax(z0)
        parts.append(sum(p[k] * (math.log(p[k]) - math.log(softmax(z)[k])) for k in range(len(p))))
    return mean(parts)


def retain_hidden(now: Plain, frozen: Plain, before: Plain, m: Any) -> float:
    pairs = zip(now.hidden(RETAIN), before.hidden(RETAIN), strict=True)
    return mean([(a - b) ** 2 for h, h0 in pairs for a, b in zip(h, h0, strict=True)])


def retain_held(now: Plain, frozen: Plain, before: Plain, m: Any) -> float:
    """λ(R − ε), ε = (1 + slack)·R(θ₀)."""
    return m.multiplier * (token_mean(now, RETAIN) - (1 + m.slack) * token_mean(before, RETAIN))


RETAIN_LOSS: dict[str, Loss | None] = {
    "grad_ascent": None,
    "task_vector": None,
    "rmu": retain_hidden,
    "pdu": retain_held,
}
GRADIENT = sorted(name for name, cls in METHODS["text"].items() if not hasattr(cls, "apply"))


def test_every_method_has_a_closed_form() -> None:
    assert set(FORGET_LOSS) == set(GRADIENT), "a method without its formula: add it to FORGET_LOSS above"


def with_kl(name: str) -> bool:
    field = METHODS["text"][name].model_fields.get("retain_loss")
    return field is not None and "kl" in str(field.annotation)


def on_the_toy(name: str, **settings: Any) -> tuple[Any, toy.Toy, Plain, StepBatch]:
    """A method prepared at θ₀, the toy moved to θ, and one batch of everything: padding is the end token."""
    method = METHODS["text"][name](**{**FORGET_LOSS[name][1], **settings})
    model = toy.original()
    before = Plain.of(model)
    encoded = {view: [Encoded(ids, start) for ids, start in rows] for view, rows in VIEWS.items()}
    data = TextData(encoded, END, torch.device("cpu"), 2, random.Random(0))
    reference = method.prepare(model, data)
    toy.move(model)
    views = {view: collate(rows, [0, 1], END) for view, rows in encoded.items()}
    return method, model, before, StepBatch(views, reference, 0)


CASES: list[tuple[str, str, dict[str, Any]]] = [
    *((name, "nll", {}) for name in GRADIENT),
    *((name, "kl", {}) for name in GRADIENT if with_kl(name)),
    *(("dpo", retain, {"preferred": "alternates"}) for retain in ("nll", "kl")),
]


@pytest.mark.parametrize(("name", "retain", "option"), CASES)
def test_value_and_gradient(name: str, retain: str, option: dict[str, Any]) -> None:
    settings = {"retain_loss": retain} if "retain_loss" in METHODS["text"][name].model_fields else {}
    method, model, before, batch = on_the_toy(name, **settings, **option)
    losses = method.objectives(model, batch)
    frozen = Plain.of(model)
    formulas = {
        "forget": FORGET_LOSS[name][0],
        "retain": RETAIN_LOSS.get(name, retain_kl if retain == "kl" else retain_nll),
    }
    for kind, formula in formulas.items():
        loss = getattr(losses, kind)
        if formula is None:
            assert loss is None
            continue
        assert loss.dtype == torch.float64 and loss.shape == ()
        tolerance = 1e-6 if name == "rmu" else 1e-9  # its direction u is drawn in float32
        assert loss.item() == pytest.approx(formula(frozen, frozen, before, method), rel=tolerance)
        found = torch.autograd.grad(loss, [model.table, model.head.weight], retain_graph=True, allow_unused=True)
        wanted = toy.gradient(lambda at, formula=formula: formula(at, frozen, before, method), copy.deepcopy(frozen))
        for mine, difference in zip(found, wanted, strict=True):
            mine = torch.zeros_like(difference) if mine is None else mine
            torch.testing.assert_close(mine, difference, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("name", "weighted_by"), [("wga", "p^β"), ("satimp", "p^β1 (1−p)^β2"), ("ceu", "the target")])
def test_weights_are_detached(name: str, weighted_by: str) -> None:
    """The gradient is not that of the loss with its weights moving along."""
    method, model, before, batch = on_the_toy(name)
    loss = method.objectives(model, batch).forget
    formula = FORGET_LOSS[name][0]
    assert formula is not None
    (found,) = torch.autograd.grad(loss, [model.table])
    moving, _ = toy.gradient(lambda at: formula(at, at, before, method), Plain.of(model))
    assert (found - moving).abs().max() > 1e-2


@pytest.mark.parametrize("name", GRADIENT)
def test_prompt_and_padding_have_no_part_in_any_loss(name: str) -> None:
    """No gradient where only prompt or padding stands, and other prompt tokens change no value.

    (The last prompt token stands where the first answer token is predicted, so it counts; in the toy, no other does.)
    """
    method, model, _, batch = on_the_toy(name)
    losses = method.objectives(model, batch)
    parts = [x for x in (losses.forget, losses.retain) if x is not None]
    (slope,) = torch.autograd.grad(torch.stack(parts).sum(), [model.table])
    counts = torch.zeros_like(slope, dtype=torch.bool)
    for rows in VIEWS.values():
        for ids, start in rows:
            for t in range(start - 1, len(ids)):
                counts[t, ids[t]] = True
    assert slope[~counts].abs().max() == 0 and slope[counts].abs().max() > 0

    for view, rows in VIEWS.items():
        for k, (_, start) in enumerate(rows):
            batch.views[view].ids[k, : start - 1] = (batch.views[view].ids[k, : start - 1] + 1) % 4
    again = method.objectives(model, batch)
    for kind in ("forget", "retain"):
        a, b = getattr(losses, kind), getattr(again, kind)
        assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize("name", GRADIENT)
def test_a_wider_batch_changes_nothing(name: str) -> None:
    """Three more columns of padding, of a token that is none of the answers'."""
    method, model, _, batch = on_the_toy(name)
    losses = method.objectives(model, batch)
    for b in batch.views.values():
        width = toy.POSITIONS - b.ids.shape[1]
        b.ids = torch.nn.functional.pad(b.ids, (0, width), value=1)
        b.labels = torch.nn.functional.pad(b.labels, (0, width), value=-100)
    again = method.objectives(model, batch)
    for kind in ("forget", "retain"):
        a, b = getattr(losses, kind), getattr(again, kind)
        assert (a is None and b is None) or a.item() == pytest.approx(b.item(), rel=1e-12)


@pytest.mark.parametrize("name", ["npo", "dpo", "undial", "whp", "pdu", "rmu"])
def test_the_reference_is_the_original_whatever_becomes_of_the_model(name: str) -> None:
    """At θ = θ₀ the losses are those of an untrained copy, and stay a function of θ₀ when θ moves on."""
    method, model, before, batch = on_the_toy(name)
    first = method.objectives(model, batch).forget
    toy.move(model)
    method.objectives(model, batch)
    with torch.no_grad():
        model.table.copy_(torch.tensor(before.table, dtype=torch.float64))
        model.head.weight.copy_(torch.tensor(before.head, dtype=torch.float64))
    toy.move(model)
    assert method.objectives(model, batch).forget.item() == pytest.approx(first.item(), rel=1e-12)
