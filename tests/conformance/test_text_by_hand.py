"""The pure losses on numbers that fit on paper."""

from __future__ import annotations

import math

import pytest
import torch

from unlearnkit.methods.text import (
    ceu_loss,
    dpo_loss,
    generic_logits,
    kl,
    npo_loss,
    pdu_loss,
    rmu_loss,
    satimp_loss,
    simnpo_loss,
    undial_loss,
    wga_loss,
)
from unlearnkit.methods.text.ceu import after_first
from unlearnkit.methods.text.guardrail import bag_of_tokens_classifier, common_end
from unlearnkit.text import AnswerTokens

LN2, LN4, LN8 = math.log(2), math.log(4), math.log(8)


def t(*values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(loss: torch.Tensor, value: float) -> None:
    assert loss.item() == pytest.approx(value, rel=1e-9)


def test_npo() -> None:
    close(npo_loss(t(LN4), t(LN2), 1.0), 0.8109302162163288)  # −2 log σ(ln 2) = −2 log(2/3)
    close(npo_loss(t(5.0, 7.0), t(5.0, 7.0), 0.1), 13.862943611198906)  # at θ₀: (2/β) ln 2
    nll = t(3.0, 4.0).requires_grad_()
    (slope,) = torch.autograd.grad(npo_loss(nll, t(3.0, 4.0), 0.3), nll)
    assert slope.tolist() == pytest.approx([-0.5, -0.5])  # at θ₀ it is gradient ascent, whatever β
    far = t(90.0, 90.0).requires_grad_()
    (slope,) = torch.autograd.grad(npo_loss(far, t(3.0, 4.0), 0.3), far)
    assert slope.abs().max() < 1e-9  # and it fades once L_θ ≫ L₀


def test_simnpo() -> None:
    close(simnpo_loss(t(2 * LN4), t(2.0), 1.0, 0.0), 0.44628710262841953)  # −2 log(4/5)
    close(simnpo_loss(t(2 * LN4), t(2.0), 2.0, LN4), LN2)  # at the margin: (2/β) ln 2 with β = 2


def test_dpo() -> None:
    close(dpo_loss(t(LN2), t(LN4), t(LN8), t(LN4), 1.0), 0.44628710262841953)  # margin ln 2 + ln 2: −2 log(4/5)
    close(dpo_loss(t(1.0), t(1.0), t(2.0), t(2.0), 0.1), 13.862943611198906)


def test_undial() -> None:
    # target softmax(0, 0), model (3/4, 1/4): ½ ln(4/3) + ½ ln 4
    close(undial_loss(t([math.log(3), 0.0]), t([LN8, 0.0]), torch.tensor([0]), LN8), 0.8369882167858358)


def test_ceu() -> None:
    close(ceu_loss(t([LN2, 0.0, 0.0]), torch.tensor([0])), LN4)  # (0, ½, ½) against (½, ¼, ¼)
    z = t([LN2, 0.0, 0.0]).requires_grad_()
    (slope,) = torch.autograd.grad(ceu_loss(z, torch.tensor([0])), z)
    assert slope[0].tolist() == pytest.approx([0.5, -0.25, -0.25])  # p − target: the target is held still


def test_after_first_token_of_each_sequence() -> None:
    sequence = torch.tensor([0, 0, 0, 1, 2, 2])
    empty = torch.empty(0)
    tokens = AnswerTokens(empty, empty, sequence, empty, torch.arange(3))
    assert after_first(tokens).tolist() == [False, True, True, False, False, True]


def test_wga_and_satimp() -> None:
    close(wga_loss(t(LN2), 1.0), -0.34657359027997264)  # −½ ln 2
    close(satimp_loss(t(LN4), 1.0, 2.0), -0.1949476445324846)  # −¼ (¾)² ln 4
    close(satimp_loss(t(LN4), 2.0, 1.0), -0.0649825481774949)  # −(¼)² ¾ ln 4: β₁ belongs to p, β₂ to 1 − p
    nll = t(LN4).requires_grad_()
    assert torch.autograd.grad(wga_loss(nll, 1.0), nll)[0].tolist() == pytest.approx([-0.25])  # −p, no more
    assert torch.autograd.grad(satimp_loss(nll, 1.0, 2.0), nll)[0].tolist() == pytest.approx([-0.140625])


def test_pdu() -> None:
    close(pdu_loss(t([3.0, 0.0, 0.0])), 4.0)
    close(pdu_loss(t([3.0, 0.0, 0.0], [1.0, 1.0, 1.0])), 2.0)


def test_rmu() -> None:
    close(rmu_loss(t([1.0, 0.0]), t(0.0, 1.0), 2.0), 2.5)  # (1² + 2²)/2


def test_whp_targets() -> None:
    assert generic_logits(t(1.0, 0.0), t(3.0, -1.0), 2.0).tolist() == [-3.0, 0.0]  # only what was pushed up comes down


def test_kl() -> None:
    close(kl(t([0.0, 0.0]), t([math.log(3), 0.0])), 0.14384103622589042)  # ½ ln(2/3) + ½ ln 2
    close(kl(t([1.0, 2.0]), t([1.0, 2.0])), 0.0)


def test_guardrail_classifier() -> None:
    """Tokens 1 and 2 tell the classes apart, token 0 does not, token 3 never occurs."""
    weights, bias = bag_of_tokens_classifier([[0, 1], [1, 0]], [[0, 2], [0, 2], [2, 0]], 4, 0.01)
    assert weights[1] > 0.5 and weights[2] < -0.5
    assert weights[3] == 0
    assert weights[1] + weights[0] + bias > 0 > weights[2] + weights[0] + bias
    # the optimum: penalty · w = Σ share · y · σ(−margin) · count, both classes weighing the same
    margin_f, margin_o = weights[0] + weights[1] + bias, -(weights[0] + weights[2] + bias)
    assert 0.01 * float(weights[1]) == pytest.approx(float(0.5 * torch.sigmoid(-margin_f)), abs=1e-4)
    assert 0.01 * float(weights[2]) == pytest.approx(float(-0.5 * torch.sigmoid(-margin_o)), abs=1e-4)


def test_common_end_of_prompts() -> None:
    assert common_end([[1, 2, 8, 9], [8, 9], [5, 8, 9]]) == [8, 9]
    assert common_end([[1], [2]]) == []
