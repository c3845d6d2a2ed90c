"""UCE: cross-attention keys and values edited in closed form."""

from __future__ import annotations

import copy
import warnings
from typing import Any, ClassVar

import torch
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
    """
    w0, c, v, p = (x.double() for x in (weight, concepts, values, preserved))
    width = w0.shape[1]
    left = lam * w0 + erase * v.T @ c + preserve * (w0 @ p.T) @ p
    right = lam * torch.eye(width, dtype=torch.float64, device=w0.device) + erase * c.T @ c + preserve * p.T @ p
    if torch.linalg.cond(right) > SINGULAR:
        ridge = float(right.diagonal().mean()) * 1e-8 or 1e-8
        warnings.warn(
            f"uce: the system is singular (lam = {lam:g} and {len(c) + len(p)} states for width {width}); "
            f"regularised with {ridge:.1e}.",
            stacklevel=2,
        )
        right = right + ridge * torch.eye(width, dtype=torch.float64, device=w0.device)
        left = left + ridge * w0
    return torch.linalg.solve(right, left.T).T.to(weight.dtype)


@register_method("uce", "image")
class UCE(ImageMethod):
    """Keys and values of the concept become those of the anchor; preserved prompts hold the rest."""

    card = Card(
        "Unified Concept Editing (UCE)",
        "Gandikota et al. 2024, arXiv 2308.14761",
        r"W=\left(\lambda W_0+s_e\sum v^*c^\top+s_p\sum W_0c_pc_p^\top\right)"
        r"\left(\lambda I+s_e\sum cc^\top+s_p\sum c_pc_p^\top\right)^{-1},\ v^*=W_0c_{\mathrm{anchor}}",
        "lambda 0.5, both scales 1 (the authors' code)",
        "only the prompt's keys and values change: another embedding reaches the concept, which is still there",
    )
    needs: ClassVar[tuple[str, ...]] = ()

    lam: float = 0.5  # λ
    erase_scale: float = 1.0  # s_e
    preserve_scale: float = 1.0  # s_p

    def apply(self, problem: Any, seed: int) -> nn.Module:
        """A copy of the original with edited `attn2.to_k` and `attn2.to_v`.

        Raises:
            UnlearnkitError: no cross-attention, no anchor, or nothing to preserve.
        """
        if not problem.word or not problem.anchor:
            raise UnlearnkitError("uce maps a concept to an anchor; give load_problem(..., anchor='what replaces it').")
        if not problem.asked["retain"]:
            raise UnlearnkitError("uce needs prompts to preserve; give load_problem(..., preserve=['…', …]).")
        model = copy.deepcopy(problem.model)
        names = ImageMethod.trainable(self.model_copy(update={"trained": "attn2_kv"}), model)
        pairs = [aligned_states(model, p, problem.replaced(p)) for p in problem.asked["forget"]]
        concepts, anchors = torch.cat([c for c, _ in pairs]), torch.cat([a for _, a in pairs])
        kept = model.embed(problem.asked["retain"]).hidden
        kept = kept.reshape(-1, kept.shape[-1])  # (prompts × tokens, width)
        weights = dict(model.named_parameters())
        for name in names:
            if not name.endswith(".weight"):
                continue
            w0 = weights[name]
            values = anchors.to(w0.dtype) @ w0.detach().T
            edited = uce_weight(w0.detach(), concepts, values, kept, self.lam, self.erase_scale, self.preserve_scale)
            with torch.no_grad():
                w0.copy_(edited)
        return model


@torch.no_grad()
def aligned_states(model: Any, prompt: str, anchor: str) -> tuple[Tensor, Tensor]:
    """Text states of prompt and anchor prompt at matching positions, from the first token in which they differ.

    When the two have different lengths, they are aligned at their ends, as far as both reach: (n, width) each.
    """
    tokenizer = model.pipe.tokenizer
    longest = tokenizer.model_max_length
    ids = [tokenizer(t, truncation=True, max_length=longest)["input_ids"] for t in (prompt, anchor)]
    states = model.embed([prompt, anchor]).hidden  # (2, tokens, width)
    same = 0
    while same < min(map(len, ids)) and ids[0][same] == ids[1][same]:
        same += 1
    if same == min(map(len, ids)):
        raise UnlearnkitError(f"prompt and anchor prompt are the same to the text encoder: '{prompt}' and '{anchor}'.")
    back = 1
    while back < min(map(len, ids)) - same and ids[0][-back] == ids[1][-back]:
        back += 1
    # the last differing token of each, then everything after it
    first = [max(same, len(i) - back) for i in ids]
    count = min(longest - f for f in first)
    return states[0, first[0] : first[0] + count], states[1, first[1] : first[1] + count]
