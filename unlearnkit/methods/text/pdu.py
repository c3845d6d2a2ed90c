"""PDU: flat logits on the forget answers, with the retain loss held at a level by a multiplier."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.text.base import TextMethod
from unlearnkit.text import answer_tokens, widen


def pdu_loss(logits: Tensor) -> Tensor:
    """mean_t (max_v z − mean_v z)²; (answer tokens, vocabulary) → scalar (arXiv 2506.05314)."""
    z = widen(logits)
    return (z.amax(-1) - z.mean(-1)).square().mean()


@register_method("pdu")
class PDU(TextMethod):
    """γF + λ(R − ε), λ ← max(0, λ + η(R − ε)) after every step, ε = (1 + slack)·R(θ₀); λ is in the trace."""

    card = Card(
        "Primal-dual unlearning (PDU)",
        "Entesari et al. 2025, arXiv 2506.05314",
        r"F=\mathbb{E}_t\left(\max_v z_v-\bar z\right)^2,\quad \lambda\leftarrow[\lambda+\eta(R-\varepsilon)]_+",
        "lambda 1, eta 1 at the start (open-unlearning); here tuned for the built-in world",
        "flat logits are no model's answer: the forget loss ends far from the oracle's",
    )
    loop = {"lr": 3.8e-4, "steps": 20}
    search = {"gamma": (0.001, 0.1), "slack": [0.1, 1.0, 5.0]}

    gamma: float = 0.007
    retain_loss: Literal["nll"] = "nll"  # KL is 0 at θ₀, so that no level ε would follow from it
    multiplier: NonNegativeFloat = 1.0  # λ at the start
    rate: NonNegativeFloat = 1.0  # η
    slack: NonNegativeFloat = 5.0  # a in ε = (1 + a)·R(θ₀)

    @torch.no_grad()
    def prepare(self, model: nn.Module, data: Any) -> dict[str, Any]:
        level = torch.stack(list(data.losses(model, "retain", 8))).mean()
        state = {"multiplier": self.multiplier, "level": (1 + self.slack) * float(level), "step": 0, "seen": []}
        return {"state": state}

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        forget, retain = answer_tokens(model, batch.forget, batch.retain)
        state = batch.reference["state"]
        if batch.step != state["step"]:  # the mean R of the last step's micro-batches moves λ, once
            violation = sum(state["seen"]) / len(state["seen"]) - state["level"]
            state |= {
                "multiplier": max(0.0, state["multiplier"] + self.rate * violation),
                "step": batch.step,
                "seen": [],
            }
        state["seen"].append(float(retain.loss.detach()))
        multiplier = state["multiplier"]
        return Objectives(
            pdu_loss(forget.logits), multiplier * (retain.loss - state["level"]), {"multiplier": multiplier}
        )
