"""Checks of notebook 02."""

from __future__ import annotations

from typing import Any

import torch

from unlearnkit.exercises import exercise, near
from unlearnkit.methods.text import kl, npo_loss, undial_loss

UNSOLVED = "not solved yet."
NLL, BEFORE = torch.tensor([3.0, 0.5, 8.0]), torch.tensor([0.2, 0.1, 0.3])


@exercise("02.1")
def npo(answer: Any) -> str:
    """answer(nll, reference_nll, beta) → NPO loss, a scalar."""
    found = answer(NLL, BEFORE, 0.1)
    if found is None:
        return UNSOLVED
    if near(found, float(npo_loss(NLL, BEFORE, 0.1))):
        return ""
    if near(found, float(npo_loss(BEFORE, NLL, 0.1))):
        return "the sign of L_θ − L₀ is turned round: the loss must fall as the answer becomes less likely."
    if near(found, 3 * float(npo_loss(NLL, BEFORE, 0.1))):
        return "take the mean over sequences, not the sum."
    return f"for L = [3, .5, 8], L₀ = [.2, .1, .3], β = .1 the loss is {float(npo_loss(NLL, BEFORE, 0.1)):.4f}."


@exercise("02.2")
def npo_weight(answer: Any) -> str:
    """answer(nll, reference_nll, beta) → what multiplies −∇L_θ in the gradient of NPO."""
    nll = NLL.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(npo_loss(nll, BEFORE, 0.5) * 3, nll)
    answered = answer(NLL, BEFORE, 0.5)
    if answered is None:
        return UNSOLVED
    found = torch.as_tensor(answered)
    if found.shape != NLL.shape:
        return "give one weight a sequence."
    if torch.allclose(found, -gradient, atol=1e-5):
        small = torch.as_tensor(answer(NLL, BEFORE, 1e-6))
        return (
            "" if torch.allclose(small, torch.ones(3), atol=1e-3) else "for β → 0 all weights go to 1: gradient ascent."
        )
    return "differentiate −(2/β) log σ(βd) by d = L_θ − L₀: it is −2σ(−βd), and the weight is its size."


@exercise("02.3")
def retain_kl(answer: Any) -> str:
    """answer(reference_logits, logits) → KL(p₀‖p_θ), mean over tokens."""
    before, now = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 3.0]]), torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    found = answer(before, now)
    if found is None:
        return UNSOLVED
    if near(found, float(kl(before, now))):
        return ""
    if near(found, float(kl(now, before))):
        return "that is KL(p_θ‖p₀); the original's distribution comes first."
    if near(found, 2 * float(kl(before, now))):
        return "take the mean over tokens."
    return f"for the two test tokens it is {float(kl(before, now)):.4f}."


@exercise("02.4")
def undial(answer: Any) -> str:
    """answer(logits, reference_logits, labels, beta) → UNDIAL loss."""
    before, now = torch.tensor([[4.0, 0.0, 1.0], [0.0, 3.0, 0.0]]), torch.tensor([[3.0, 1.0, 1.0], [1.0, 2.0, 0.0]])
    labels = torch.tensor([0, 1])
    wanted = float(undial_loss(now, before, labels, 10.0))
    found = answer(now, before, labels, 10.0)
    if found is None:
        return UNSOLVED
    if near(found, wanted):
        return ""
    if near(found, float(undial_loss(now, now, labels, 10.0))):
        return "the target comes from the original's logits, which don't move."
    return f"for the two test tokens it is {wanted:.4f}; lower only the label's logit, by β, before the softmax."


@exercise("02.5")
def levelled(answer: Any) -> str:
    """answer(nll, lengths, level) → loss with its minimum at a mean NLL of `level`, no steeper than ascent."""
    lengths, level = torch.tensor([2.0, 5.0, 4.0]), 3.0

    if answer(3.0 * lengths, lengths, level) is None:
        return UNSOLVED

    def slope(mean_nll: float) -> torch.Tensor:
        nll = (mean_nll * lengths).requires_grad_(True)
        loss = torch.as_tensor(answer(nll, lengths, level))
        if loss.ndim or not loss.requires_grad:
            raise ValueError("return a scalar tensor made from nll")
        (gradient,) = torch.autograd.grad(loss, nll)
        return gradient * lengths * len(lengths)  # of each sequence with respect to its own mean NLL, ascent: −1

    if (slope(0.1) >= 0).any():
        return f"an answer at 0.1 nats a token, with the level at {level:g}, must be pushed up; yours is not."
    if (slope(12.0) <= 0).any():
        return f"an answer at 12 nats a token, with the level at {level:g}, must be pulled back; yours is not."
    if slope(level).abs().max() > 1e-4:
        return "at the level nothing should pull; is it the mean NLL, nll / lengths, that you compare with it?"
    steepest = max(float(slope(mean).abs().max()) for mean in (0.0, 0.1, 1.0, 6.0, 12.0, 50.0))
    if steepest > 1 + 1e-4:
        return f"far from the level it is {steepest:.1f} times as steep as ascent; an absolute value would not be."
    return ""
