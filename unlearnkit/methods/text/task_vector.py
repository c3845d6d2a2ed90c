"""Task arithmetic: fine-tune on the forget set, then subtract what that changed."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from unlearnkit.methods.base import Card, Method, Objectives, StepBatch, register_method
from unlearnkit.text import answer_tokens


@register_method("task_vector")
class TaskVector(Method):
    """θ = θ₀ − a(θ_ft − θ₀): training-free after one fine-tune on f; the retain set is never used."""

    card = Card(
        "Task vector negation",
        "Ilharco et al. 2023, arXiv 2212.04089",
        r"\theta=\theta_0-a(\theta_{\mathrm{ft}}-\theta_0)",
        "a is to be swept (paper); tuned for the built-in world",
        "moves along one straight line: forgetting and damage come together",
    )
    loop = {"lr": 2.9e-3, "steps": 20}
    search = {"a": (0.3, 5.0)}
    needs_start: ClassVar[bool] = True

    a: float = 0.31  # length of the step back

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        (forget,) = answer_tokens(model, batch.forget)
        return Objectives(forget=forget.loss)

    @torch.no_grad()
    def finish(self, model: nn.Module, start: dict[str, Tensor]) -> None:
        for name, parameter in model.named_parameters():
            if ".lora_A." in name:  # the change is B·A, so turning B round is enough
                continue
            if name in start:
                parameter.copy_(start[name] - self.a * (parameter - start[name]))
