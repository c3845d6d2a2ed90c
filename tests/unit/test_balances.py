"""Balances against their formulas, and weight masks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearnkit.balances import (
    BALANCES,
    TORCHJD,
    PrimalDual,
    balance,
    forget_first,
    munba,
    ngdiff,
    retain_first,
    weighted_sum,
)
from unlearnkit.errors import UnlearnkitError
from unlearnkit.gradients import weights
from unlearnkit.masks import MASKS, _top
from unlearnkit.methods import METHODS
from unlearnkit.unlearning import configure_method, unlearn

SLOW = {"nashmtl", "cagrad"}  # a convex program a step
NAMED = {"sum", "retain_first", "forget_first", "ngdiff", "munba", "primal_dual", *TORCHJD}  # METHODS.md, "Balances"
pair = st.lists(st.floats(-2, 2), min_size=6, max_size=6).map(lambda x: torch.tensor(x, dtype=torch.float64).view(2, 3))


def both(f, r):
    return torch.tensor(f, dtype=torch.float64), torch.tensor(r, dtype=torch.float64)


def test_conflict_by_hand():
    f, r = both([1.0, -1.0], [0.0, 2.0])  # f·r = −2
    assert retain_first(f, r).tolist() == [1.0, 2.0]  # g_f without its part against g_r: [1, 0] + [0, 2]
    assert forget_first(f, r).tolist() == [2.0, 0.0]  # g_r without its part along g_f: [1, −1] + [1, 1]
    assert ngdiff(f, r).tolist() == pytest.approx([1 / math.sqrt(2), 1 - 1 / math.sqrt(2)])


def test_without_conflict_retain_first_is_the_sum():
    f, r = both([1.0, 1.0], [0.0, 2.0])
    assert torch.equal(retain_first(f, r), f + r)


@given(pair)
def test_retain_first_never_harms_retain_to_first_order(g):
    f, r = g
    assert float(retain_first(f, r) @ r) >= float(r @ r) - 1e-9
    if float(f @ f) > 1e-12:
        assert float(forget_first(f, r) @ f) == pytest.approx(float(f @ f), abs=1e-6)


def test_munba_is_the_nash_bargaining_point():
    """At the bargaining point both gains, weighted by their share, are equal: α ∘ (Gα) = 1."""
    f, r = both([1.0, -0.5, 0.2], [0.3, 2.0, -1.0])
    combined = munba(f, r)
    system = torch.stack([r, f], 1)
    alpha = torch.linalg.lstsq(system, combined[:, None]).solution[:, 0]
    gram = system.T @ system
    assert (alpha * (gram @ alpha)).tolist() == pytest.approx([1.0, 1.0], abs=1e-6)
    assert (alpha > 0).all()


def test_mgda_is_the_shortest_vector_between_the_two():
    f, r = both([1.0, -1.0], [0.0, 2.0])
    combined, _ = balance("mgda")(f, r, 0.0)
    share = float(((r - f) @ r / (f - r).square().sum()).clamp(0, 1))
    assert combined.tolist() == pytest.approx((share * f + (1 - share) * r).tolist(), abs=1e-4)
    assert weights(f, r, combined) == pytest.approx({"weight_forget": share, "weight_retain": 1 - share}, abs=1e-4)


def test_primal_dual_raises_the_multiplier_while_retain_is_above_its_level():
    rule = PrimalDual(multiplier=1.0, rate=0.5, slack=1.0)
    f, r = both([1.0, 0.0], [0.0, 1.0])
    seen = [rule(f, r, loss)[1]["multiplier"] for loss in (1.0, 4.0, 0.0, 0.0, 0.0)]
    assert seen == [1.0, 0.5, 1.5, 0.5, 0.0]  # ε = 2: λ moves by 0.5·(R − 2), never below 0
    assert rule(f, r, 0.0)[0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("name", sorted(NAMED - {"sum"}))
def test_matched_norm(name):
    f, r = both([1.0, -1.0, 0.5], [0.2, 2.0, -1.0])
    combined, _ = balance(name, match_norm=True)(f.float(), r.float(), 1.0)
    assert float(combined.norm()) == pytest.approx(float((f + r).norm()), rel=1e-4)


def test_weights_by_hand():
    f, r = both([1.0, 0.0, 2.0], [1.0, 3.0, 0.0])
    assert weights(f, r, 0.25 * f - 2 * r) == pytest.approx({"weight_forget": 0.25, "weight_retain": -2.0})
    assert weights(f, 2 * f, f) == pytest.approx({"weight_forget": 0.2, "weight_retain": 0.4})  # parallel: the smallest


class Quadratics:
    """F = ½(x−a)ᵀA(x−a) and R = ½(x−b)ᵀB(x−b) in the plane; their Pareto set is a curve from a to b."""

    a, b = torch.tensor([1.0, 0.5], dtype=torch.float64), torch.tensor([-1.0, 0.0], dtype=torch.float64)
    A = torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    B = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)

    def slopes(self, x):
        return self.A @ (x - self.a), self.B @ (x - self.b)

    def retain_loss(self, x):
        return float(0.5 * (x - self.b) @ self.B @ (x - self.b))

    def distance(self, x):
        """Norm of the shortest vector in the convex hull of both gradients: 0 where x is Pareto-stationary."""
        f, r = self.slopes(x)
        share = ((r - f) @ r / (f - r).square().sum()).clamp(0, 1)
        return float((share * f + (1 - share) * r).norm())

    def descend(self, combine, steps=1000):
        """Steps of combine(f, r, R) at a rate that falls to 0."""
        x = torch.tensor([-0.5, 2.0], dtype=torch.float64)
        for step in range(steps):
            f, r = self.slopes(x)
            x = x - 0.2 * (1 - step / steps) ** 2 * combine(f, r, self.retain_loss(x))
        return x


@pytest.mark.parametrize("name", sorted(NAMED))
def test_where_a_balance_ends_no_step_helps_both(name):
    """Pareto-stationary: at convergence 0 lies in the convex hull of the two gradients."""
    toy = Quadratics()
    assert toy.distance(torch.tensor([-0.5, 2.0], dtype=torch.float64)) > 1
    rule = balance(name) or (lambda f, r, loss: (weighted_sum(f, r), {}))
    end = toy.descend(lambda f, r, loss: rule(f, r, loss)[0], 50 if name in SLOW else 1000)
    assert toy.distance(end) < 0.02, (end.tolist(), [g.tolist() for g in toy.slopes(end)])


def test_a_rule_that_promises_nothing_is_told_apart():
    toy = Quadratics()
    assert toy.distance(toy.descend(lambda f, r, loss: f + r + torch.tensor([1.0, 1.0]))) > 0.1
    assert toy.distance(toy.descend(lambda f, r, loss: torch.where(f * r > 0, f + r, 0.0))) > 0.1  # GradDrop, made sure


def test_who_comes_first_ends_at_its_own_optimum():
    """retain_first never gives up retain for forget, forget_first never forget for retain."""
    toy = Quadratics()
    for name, optimum in (("retain_first", toy.b), ("forget_first", toy.a)):
        rule = balance(name)
        end = toy.descend(lambda f, r, loss, rule=rule: rule(f, r, loss)[0])
        assert end.tolist() == pytest.approx(optimum.tolist(), abs=0.05), name


ONE_LOSS = {"text": {"grad_ascent", "retain_finetune", "task_vector"}, "image": {"retain_finetune", "grad_ascent"}}
GRADIENT = [(kind, name) for kind in METHODS for name, cls in METHODS[kind].items() if not hasattr(cls, "apply")]


@pytest.mark.parametrize(("kind", "name"), GRADIENT)
def test_every_gradient_method_takes_a_balance_at_matched_norm(kind, name, request):
    """The first step of any balance is as long as that of the sum, and another one; a single loss is refused."""
    problem = request.getfixturevalue({"text": "small_problem", "image": "small_image_problem"}[kind])
    once = {"steps": 1, "batch_size": 4, "trace_every": 1, "progress": False, "mask": ""}
    if name in ONE_LOSS[kind]:
        with pytest.raises(UnlearnkitError, match="a balance combines two gradients"):
            unlearn(problem, name, balance="ngdiff", **once)
        return
    (plain, matched) = (unlearn(problem, name, balance=b, match_norm=True, **once).trace for b in ("sum", "ngdiff"))
    assert matched["grad_norm"][0] == pytest.approx(plain["grad_norm"][0], rel=1e-3)
    conflict = ["cosine", "norm_ratio", *(c for c in plain if str(c).startswith(("cosine_", "norm_ratio_")))]
    assert len(conflict) > 3 and plain[conflict].equals(matched[conflict])
    method = configure_method(kind, name, {})[0]
    pull = [matched["weight_forget"][0] * method.gamma, matched["weight_retain"][0] * method.alpha]
    sizes = [abs(pull[k]) * matched[f"{side}_grad_norm"][0] for k, side in enumerate(("forget", "retain"))]
    ratio = matched["norm_ratio"][0] * (method.gamma / method.alpha if method.alpha else 1.0)
    if 1e-4 < ratio < 1e4:
        assert sizes[0] == pytest.approx(sizes[1], rel=1e-2)  # ngdiff: both sides pull alike
    elif not 1e-6 < ratio < 1e6:  # a retain loss at its minimum, a multiplier at 0: what is only rounding pulls not
        assert min(sizes) < 1e-4 * max(sizes)


@pytest.mark.parametrize("name", ["ngdiff", "munba"])
def test_rounding_is_not_blown_up_to_a_direction(name):
    f = torch.tensor([3.0, 0.0])
    for noise in ([0.0, 1e-7], [0.0, 0.0]):
        combined, _ = balance(name, match_norm=True)(f, torch.tensor(noise), 0.0)
        assert combined.tolist() == pytest.approx([3.0, 0.0], abs=1e-6)
        combined, _ = balance(name, match_norm=True)(torch.tensor(noise), f, 0.0)
        assert combined.tolist() == pytest.approx([3.0, 0.0], abs=1e-6)
    assert balance("ngdiff")(torch.zeros(2), torch.zeros(2), 0.0)[0].tolist() == [0.0, 0.0]


def test_names():
    assert set(BALANCES) == NAMED
    assert balance("sum") is None
    with pytest.raises(UnlearnkitError, match="Did you mean 'mgda'"):
        balance("mgd")


def test_top_share_of_scores():
    scores = {"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([[2.0, 0.0]])}
    kept = _top(scores, 0.5)
    assert kept["a"].tolist() == [1.0, 0.0] and kept["b"].tolist() == [[1.0, 0.0]]


class OneBatch:
    """Two weights; the forget loss depends on the first, the retain loss on the second."""

    def losses(self, model, view, batches):
        for _ in range(batches):
            yield (model.weight[0, 0] if view == "forget" else model.weight[0, 1]) * 3.0


def test_salun_and_wagle_find_the_weight_that_matters():
    model = torch.nn.Linear(2, 1, bias=False)
    parameters = dict(model.named_parameters())
    for name in ("salun", "wagle"):
        mask = MASKS[name](model, parameters, OneBatch(), 0.5, 0)
        assert mask["weight"].tolist() == [[1.0, 0.0]], name
    random = MASKS["random"](model, parameters, OneBatch(), 0.5, 0)
    assert float(random["weight"].sum()) == 1.0


class Linear:
    """Losses linear in the weights, so that these are their gradients in every batch."""

    forget, retain = torch.tensor([[1.0, -3.0, 0.5, 0.0]]), torch.tensor([[4e-6, 1e-6, -2e-6, 9.0]])

    def losses(self, model, view, batches):
        for _ in range(batches):
            yield (getattr(self, view) * model.weight).sum()


def test_wagle_scores_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """S = |(θ − g_r/μ) ⊙ g_f|, μ = 1e-6; a weight that matters to retain as well can overtake a larger |g_f|."""
    seen = {}

    def watched(scores, share):
        seen.update(scores=scores["weight"], share=share)
        return _top(scores, share)

    monkeypatch.setattr("unlearnkit.masks._top", watched)
    model = torch.nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.5, 2.0, 1.0, 7.0]]))
    parameters = dict(model.named_parameters())
    mask = MASKS["wagle"](model, parameters, Linear(), 0.25, 0)
    wanted = [abs((0.5 - 4) * 1.0), abs((2.0 - 1) * -3.0), abs((1.0 + 2) * 0.5), 0.0]
    assert seen["scores"].tolist()[0] == pytest.approx(wanted, rel=1e-5) and mask["weight"].tolist() == [[1, 0, 0, 0]]
    assert MASKS["salun"](model, parameters, Linear(), 0.25, 0)["weight"].tolist() == [[0, 1, 0, 0]]
    drawn = [MASKS["random"](model, parameters, None, 0.5, seed)["weight"].tolist() for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1] and any(d != drawn[0] for d in drawn) and all(sum(d[0]) == 2 for d in drawn)
