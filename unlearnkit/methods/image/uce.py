"""UCE: cross-attention keys and values edited in closed form."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods.base import Card, register_method
from unlearnkit.methods.image.base import ImageMethod

SINGULAR = 1e12  # condition number from which the system is regularised


def uce_weight(
    weight: Tensor, concepts: Tensor, values: Tensor, preserved: Tensor, lam: float, erase: float, preserve: float
) -> Tensor:
    """W = (λW₀ + s_eΣ v*cᵀ + s_pΣ W₀c_pc_pᵀ)(λI + s_eΣccᵀ + s_pΣc_pc_pᵀ)⁻¹, in float64 (arXiv 2308.14761, eq. 7).

    Args:
        weight: W₀ (out, width); concepts: c (n, width); values: v* (n, out); preserved: c_p (m, width).

    Raises:
        UnlearnkitError: something is not finite. A singular system is regularised, with a warning that says so.
    """
    w0, c, v, p = (x.detach().cpu().double() for x in (weight, concepts, values, preserved))
    one = torch.eye(w0.shape[1], dtype=torch.float64)
    left = lam * w0 + erase * v.T @ c + preserve * (w0 @ p.T) @ p
    right = lam * one + erase * c.T @ c + preserve * p.T @ p  # symmetric, no eigenvalue below λ
    if not (torch.isfinite(left).all() and torch.isfinite(right).all()):
        raise UnlearnkitError(
            "uce: the weights or text states are not finite (NaN or infinite); load the pipeline in float32."
        )
    eigenvalues = torch.linalg.eigvalsh(right)
    if eigenvalues[0] * SINGULAR <= eigenvalues[-1]:
        ridge = float(right.diagonal().mean()) * 1e-8 or 1e-8
        warnings.warn(
            f"uce: the system is singular (lam = {lam:g} and {len(c) + len(p)} states for width {len(one)}); "
            f"regularised with lam = {lam + ridge:.1e}.",
            stacklevel=2,
        )
        left, right = left + ridge * w0, right + ridge * one
    return torch.linalg.solve(right, left.T).T.to(weight)


@register_method("uce", "image")
class UCE(ImageMethod):
    """Keys and values of the concept become those of the anchor; preserved prompts hold the rest."""

    card = Card(
        "Unified Concept Editing (UCE)",
        "Gandikota et al. 2024, arXiv 2308.14761",
        r"W=\left(\lambda W_0+s_e\sum v^*c^\top+s_p\sum W_0c_pc_p^\top\right)"
        r"\left(\lambda I+s_e\sum cc^\top+s_p\sum c_pc_p^\top\right)^{-1},\ v^*=W_0c_{\mathrm{anchor}}",
        "lambda 0.5, both scales 1 (the authors' code); tuned for the built-in world: lambda 1, erase scale 2",
        "only the prompt's keys and values change: another embedding reaches the concept, which is still there",
    )
    needs: ClassVar[tuple[str, ...]] = ()
    search = {"lam": [0.05, 0.1, 0.5, 1.0], "erase_scale": [1.0, 2.0, 5.0], "preserve_scale": [0.1, 0.3, 1.0]}

    trained: Literal["attn2_kv"] = "attn2_kv"
    lam: float = Field(1.0, ge=0)  # λ
    erase_scale: float = Field(2.0, ge=0)  # s_e
    preserve_scale: float = Field(1.0, ge=0)  # s_p

    def apply(self, problem: Any, seed: int) -> nn.Module:
        """A copy of the original with edited `attn2.to_k` and `attn2.to_v`.

        W is linear in W₀, so it is W₀·T with one T for all layers: the formula with the identity in W₀'s place.

        Raises:
            UnlearnkitError: no cross-attention, no anchor, or nothing to preserve.
        """
        if not problem.word or not problem.anchor:
            raise UnlearnkitError("uce maps a concept to an anchor; give load_problem(..., anchor='what replaces it').")
        if self.preserve_scale and not problem.asked["retain"]:
            raise UnlearnkitError(
                "uce needs prompts to preserve; give load_problem(..., preserve=['…', …]) or set preserve_scale=0."
            )
        model = problem.original.fresh()
        names = [n for n in self.trainable(model) if n.endswith(".weight")]
        pairs = [aligned_states(model, p, problem.replaced(p)) for p in problem.asked["forget"]]
        concepts, anchors = (torch.cat(side).double() for side in zip(*pairs, strict=True))
        with torch.no_grad():
            preserved = [model.embed(part).hidden for part in batches(problem.asked["retain"], 64)]
        kept = torch.cat([concepts[:0], *(p.flatten(0, 1).double() for p in preserved)])  # (prompts × tokens, width)
        one = torch.eye(concepts.shape[1], dtype=torch.float64)
        change = uce_weight(one, concepts, anchors, kept, self.lam, self.erase_scale, self.preserve_scale)
        weights = dict(model.named_parameters())
        with torch.no_grad():
            for name in names:
                w0 = weights[name]
                w0.copy_(w0.cpu().double() @ change)
        return model


def batches(prompts: list[str], size: int) -> list[list[str]]:
    """Prompts in lists of at most `size`."""
    return [prompts[k : k + size] for k in range(0, len(prompts), size)]


@torch.no_grad()
def aligned_states(model: Any, prompt: str, anchor: str) -> tuple[Tensor, Tensor]:
    """Text states of prompt and anchor prompt at matching positions: (n, width) each.

    From the last token in which they differ to the end of the text encoder's context, as far as both reach: the states
    after a word carry it too. Where one is the other with a word more, the words next to it are matched.

    Raises:
        UnlearnkitError: both have the same tokens.
    """
    tokenizer = model.pipe.tokenizer
    ids = [tokenizer(t, truncation=True, max_length=tokenizer.model_max_length)["input_ids"] for t in (prompt, anchor)]
    if ids[0] == ids[1]:
        raise UnlearnkitError(f"prompt and anchor prompt are the same to the text encoder: '{prompt}' and '{anchor}'.")
    short = min(map(len, ids))
    before = 0  # tokens in common at the beginning; of each prompt one word and the end token are left over
    while before < short - 2 and ids[0][before] == ids[1][before]:
        before += 1
    after = 0  # tokens in common at the end
    while after < short - before - 1 and ids[0][-after - 1] == ids[1][-after - 1]:
        after += 1
    states = model.embed([prompt, anchor]).hidden  # (2, tokens, width)
    first = [len(i) - after - 1 for i in ids]
    count = states.shape[1] - max(first)
    return states[0, first[0] : first[0] + count], states[1, first[1] : first[1] + count]
