"""Direct preference optimisation with a refusal as the preferred answer (IdkDPO)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor, nn

from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.text.base import TextMethod, refusals
from unlearnkit.methods.text.reference import Reference, reference
from unlearnkit.text import answer_tokens


def dpo_loss(chosen: Tensor, chosen_0: Tensor, rejected: Tensor, rejected_0: Tensor, beta: float) -> Tensor:
    """−(2/β)·mean log σ(β[(L₀−L_θ)(y_w) − (L₀−L_θ)(y_l)]); summed NLLs, (sequences,) → scalar (arXiv 2305.18290)."""
    return -2 / beta * F.logsigmoid(beta * ((chosen_0 - chosen) - (rejected_0 - rejected))).mean()


@register_method("dpo")
class DPO(TextMethod):
    """y_w = a refusal, y_l = the answer to forget."""

    card = Card(
        "DPO with refusals (IdkDPO)",
        "Rafailov et al. 2023, arXiv 2305.18290; for unlearning in Maini et al. 2024, arXiv 2401.06121",
        r"F=-\tfrac{2}{\beta}\,\mathbb{E}_f\left[\log\sigma\!\left(\beta[(L_0-L_\theta)(y_w)-(L_0-L_\theta)(y_l)]\right)\right]",
        "beta 0.1 (open-unlearning); here tuned for the built-in world",
        "learns to refuse, which the oracle does not do; retained questions are refused as well",
    )
    loop = {"lr": 8.7e-4, "steps": 40}
    search = {"beta": (0.05, 1.0), "alpha": [1.0, 2.0, 5.0]}

    beta: PositiveFloat = 0.06  # β

    def views(self, problem: Any, seed: int) -> dict[str, list[tuple[str, str]]]:
        return {"refusal": refusals(problem, seed)}

    def prepare(self, model: nn.Module, data: Any) -> dict[str, Reference]:
        own = {view: reference(model, data, view) for view in ("forget", "refusal")}
        return {**super().prepare(model, data), **own}

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        refusal, forget, retain = answer_tokens(model, batch.views["refusal"], batch.forget, batch.retain)
        before = batch.reference
        loss = dpo_loss(
            refusal.nll,
            before["refusal"].nll[refusal.rows],
            forget.nll,
            before["forget"].nll[forget.rows],
            self.beta,
        )
        return Objectives(loss, self.retain(retain, before))
