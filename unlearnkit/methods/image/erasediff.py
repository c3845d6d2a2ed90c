"""EraseDiff: a bi-level problem, solved to first order with an adaptive multiplier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.data import ImageBatch
from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.image.base import ImageMethod, noised, with_retain


def multiplier(retain: Sequence[Tensor], constraint: Sequence[Tensor], eta: float) -> float:
    """λ = max(η − cos(∇L_r, ∇q), 0) of two gradients (arXiv 2401.05779, eq. 9, in the cosine form)."""
    dot = sum(float((a * b).sum()) for a, b in zip(retain, constraint, strict=True))
    sizes = [sum(float(g.square().sum()) for g in side) ** 0.5 for side in (retain, constraint)]
    return max(eta - dot / max(sizes[0] * sizes[1], 1e-30), 0.0)


@register_method("erasediff", "image")
class EraseDiff(ImageMethod):
    """L_f is the error to uniform noise on the forgotten pictures; K inner steps say how low it could be."""

    card = Card(
        "EraseDiff",
        "Wu et al. 2024, arXiv 2401.05779",
        r"\min_\theta L_r+\lambda\,(L_f(\theta)-\bar L_f),\quad \lambda=\max(\eta-\cos(\nabla L_r,\nabla q),0)",
        "K 2, eta 0.1 (authors' code, whose fixed lambda is 0.1); lr and steps tuned for the built-in world",
        "the prompts' pictures become noise where the oracle draws something else; to first order the inner steps are "
        "a constant without a gradient: they say how far the constraint is from met and cost most of a step",
    )
    loop = {"lr": 2.1e-4, "steps": 100, "batch_size": 24}

    inner_steps: int = Field(2, ge=0)  # K
    inner_lr: float = Field(1e-2, ge=0)  # of the inner gradient steps
    eta: float = 0.1  # η
    adaptive: bool = True  # False: the multiplier stays at `fixed`
    fixed: float = 0.1  # λ when it is not adaptive

    def views_needed(self) -> tuple[str, ...]:
        """Both, whatever alpha is: the multiplier looks at the retain gradient."""
        return self.needs

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        forget = batch.forget
        # uniform noise, scaled to the variance of the Gaussian one: what a forgotten picture should look like
        wanted = (torch.rand_like(forget.noise) - 0.5) * 12**0.5
        reachable = self._reachable(model, forget, wanted)  # first: it moves the weights and puts them back
        asked = (noised(model, forget), forget.t, forget.text)
        (found,), retain = with_retain(model, batch.retain, asked)
        assert retain is not None
        q = F.mse_loss(found, wanted) - reachable
        used = self.fixed
        if self.adaptive:
            weights = [p for p in model.parameters() if p.requires_grad]
            slopes = [
                torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True, materialize_grads=True)
                for part in (retain, q)
            ]
            used = multiplier(slopes[0], slopes[1], self.eta)
        return Objectives(used * q, retain, {"multiplier": used, "constraint": float(q.detach())})

    def _reachable(self, model: nn.Module, forget: ImageBatch, wanted: Tensor) -> Tensor:
        """L̄_f: the forget loss after K plain gradient steps from here; the weights come back unchanged."""
        weights = [p for p in model.parameters() if p.requires_grad]
        before = [p.detach().clone() for p in weights]
        asked = (noised(model, forget), forget.t, forget.text)
        loss = torch.zeros(())
        for k in range(self.inner_steps + 1):
            with torch.set_grad_enabled(k < self.inner_steps):
                (found,), _ = with_retain(model, None, asked)
                loss = F.mse_loss(found, wanted)
            if k < self.inner_steps:
                gradients = torch.autograd.grad(loss, weights, allow_unused=True)
                with torch.no_grad():
                    for p, g in zip(weights, gradients, strict=True):
                        if g is not None:
                            p.sub_(self.inner_lr * g)
        with torch.no_grad():
            for p, b in zip(weights, before, strict=True):
                p.copy_(b)
        return loss.detach()
