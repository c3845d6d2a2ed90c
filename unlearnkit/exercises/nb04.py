"""Checks of notebook 04."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unlearnkit.exercises import exercise, near
from unlearnkit.methods.image.sld import SafeLatent
from unlearnkit.methods.image.uce import uce_weight
from unlearnkit.metrics.image import readings

X0, NOISE = torch.tensor([[2.0, -1.0], [0.5, 4.0]]), torch.tensor([[0.5, 3.0], [-1.0, 1.0]])


def close(found: Any, wanted: Tensor) -> bool:
    """Whether an answer is a tensor of the wanted shape and values."""
    return isinstance(found, Tensor) and found.shape == wanted.shape and torch.allclose(found.to(wanted), wanted)


@exercise("04.1")
def noising(answer: Any) -> str:
    """answer(x0, noise, kept) → (x_t, v)."""
    found = answer(X0, NOISE, 0.36)
    if found is None:
        return ""  # `check` says that it is not solved
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        return "return two tensors, x_t and v."
    x_t, v = found
    if not close(x_t, 0.6 * X0 + 0.8 * NOISE):
        if close(x_t, 0.36 * X0 + 0.64 * NOISE):
            return "x_t mixes with the square roots of ᾱ and 1 − ᾱ, so that its variance stays 1."
        return "with ᾱ = 0.36, x_t is 0.6·x₀ + 0.8·noise."
    if close(v, 0.8 * X0 - 0.6 * NOISE):
        return "the sign of v is turned round: at ᾱ = 1, where nothing is noise yet, v is the noise."
    if not close(v, 0.6 * NOISE - 0.8 * X0):
        return "v is x_t turned by a right angle: √ᾱ·noise − √(1−ᾱ)·x₀."
    return "" if close(answer(X0, NOISE, 1.0)[1], NOISE) else "take ᾱ from the argument; it is not always 0.36."


@exercise("04.2")
def guidance_after_esd(answer: Any) -> str:
    """answer(w, eta) → the guidance weight at which the original gives what the ESD model gives at w."""
    for w, eta in ((3.0, 1.0), (7.5, 2.0), (1.0, 0.5)):
        found = answer(w, eta)
        if near(found, -w * eta):
            continue
        if near(found, w * eta):
            return "the sign: the ESD model is trained to predict the other side of the null prompt."
        return (
            f"put ε_θ(c) = ε∅ − η(ε_c − ε∅) into ε∅ + w(ε_θ(c) − ε∅); for w = {w:g}, η = {eta:g} it is not {found!r}."
        )
    return ""


@exercise("04.3")
def closed_form(answer: Any) -> str:
    """answer(w0, concepts, values, preserved, lam) → edited weight of UCE with both scales 1."""
    draw = torch.Generator().manual_seed(4)
    w0, concepts, preserved = (torch.randn(n, 4, generator=draw) for n in (3, 2, 5))
    values = torch.randn(2, 3, generator=draw)
    wanted = uce_weight(w0, concepts, values, preserved, 0.5, 1.0, 1.0)
    found = answer(w0, concepts, values, preserved, 0.5)
    if found is None:
        return ""
    if not isinstance(found, Tensor) or found.shape != w0.shape:
        return "return a matrix of the shape of w0, (out, width)."
    if torch.allclose(found, wanted, atol=1e-4):
        return ""
    if torch.allclose(found, uce_weight(w0, concepts, values, preserved[:0], 0.5, 1.0, 0.0), atol=1e-4):
        return "the preserved states are missing: they stand in both brackets, with their old outputs on the left."
    if torch.allclose(found, uce_weight(w0, concepts, values, preserved, 1.0, 1.0, 1.0), atol=1e-4):
        return "λ comes from the argument, in both brackets."
    return (
        "solve X·right = left: each row of concepts and preserved is one state c, so Σ c cᵀ is concepts.T @ concepts."
    )


@exercise("04.4")
def three_accuracies(answer: Any) -> str:
    """answer(pictures, erased) → (UA, IRA, CRA)."""
    styles, objects = ("striped", "plain", "dotted"), ("circle", "star")
    asked = {"style": [0, 0, 0, 0, 1, 1, 2, 2, 2], "object": [0, 1, 0, 1, 0, 1, 0, 1, 1]}
    read = {"style": [1, 0, 2, 1, 1, 0, 2, 2, 1], "object": [0, 0, 0, 1, 0, 1, 0, 1, 1]}
    pictures = [
        {
            what: {"style": styles[side["style"][i]], "object": objects[side["object"][i]]}
            for what, side in (("asked", asked), ("read", read))
        }
        for i in range(9)
    ]
    found = answer(pictures, "striped")
    if found is None:
        return ""
    if not isinstance(found, (tuple, list)) or len(found) != 3:
        return "return three shares: UA, IRA, CRA."
    items = readings(read, asked, {"style": 0})
    ua, ira, cra = 0.75, 0.6, float(items["cross_domain"].mean())
    if near(found[0], 1 - ua):
        return "UA is 1 − the accuracy on prompts for the erased style: high is forgotten."
    if not near(found[0], ua):
        return f"UA looks at the prompts for striped alone: in 3 of 4 it is not read, {ua:g}."
    if near(found[1], 4 / 9):
        return "IRA leaves out the prompts for the erased style: there nobody wants the right answer."
    if not near(found[1], ira):
        return f"IRA: of the five prompts for other styles, the style is read right in three, {ira:g}."
    if near(found[2], 1.0):
        return "CRA is over all prompts, the erased ones too: a forgotten style must leave the object."
    return "" if near(found[2], cra) else f"CRA: the object is read right in 8 of 9 pictures, {cra:.3f}."


@exercise("04.5")
def safe_guidance(answer: Any) -> str:
    """answer(null, prompt, unsafe, w, scale, threshold) → the prediction SLD follows, without warm-up and momentum."""
    null = torch.tensor([0.0, 0.0, 1.0, 0.5])
    prompt, unsafe = torch.tensor([1.0, 0.2, 1.5, 0.5]), torch.tensor([0.5, 0.3, 3.0, 0.4])
    rule = SafeLatent(("",), warmup=0, scale=4.0, threshold=0.3, momentum=0.0, beta=0.0)
    wanted = rule.combine(null, prompt, [unsafe], 3.0, 0)
    found = answer(null, prompt, unsafe, 3.0, 4.0, 0.3)
    if found is None:
        return ""
    if not isinstance(found, Tensor) or found.shape != null.shape:
        return "return a tensor of the shape of the predictions."
    if torch.allclose(found, wanted, atol=1e-5):
        return ""
    gamma = (4 * (prompt - unsafe)).abs().clamp(max=1) * (unsafe - null)
    if torch.allclose(found, null + 3 * (prompt - null - gamma), atol=1e-5):
        return "μ is 0 where ε_c − ε_S is not below the threshold: there the prompt leads away by itself."
    unclamped = (4 * (prompt - unsafe)).abs() * (prompt - unsafe < 0.3) * (unsafe - null)
    if torch.allclose(found, null + 3 * (prompt - null - unclamped), atol=1e-5):
        return "μ never exceeds 1: more would push past the null prompt."
    return f"for the test predictions it is {[round(float(x), 3) for x in wanted]}; γ is subtracted inside w[…]."
