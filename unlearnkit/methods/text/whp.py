"""WHP: learn what a model would say that had never been reinforced on the text."""

from __future__ import annotations

import copy
import random
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt
from torch import Tensor, nn

from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.text.base import TextMethod
from unlearnkit.methods.text.reference import Reference, reference
from unlearnkit.text import answer_tokens, collate, shuffled_batches, widen


def generic_logits(baseline: Tensor, reinforced: Tensor, strength: NonNegativeFloat) -> Tensor:
    """z_b − a·ReLU(z_reinforced − z_b): what the reinforced model pushes up is taken down (arXiv 2310.02238, eq. 1)."""
    return baseline - strength * F.relu(reinforced - baseline)


def whp_loss(logits: Tensor, target_logits: Tensor) -> Tensor:
    """CE(softmax(target), p_θ), mean over answer tokens; both (answer tokens, vocabulary) → scalar."""
    return F.cross_entropy(widen(logits), widen(target_logits).softmax(-1))


@register_method("whp")
class WHP(TextMethod):
    """Targets are softmax(generic logits) of the original and a copy fine-tuned further on the forget set."""

    card = Card(
        "Who's Harry Potter (generic targets)",
        "Eldan and Russinovich 2023, arXiv 2310.02238",
        r"F=\mathrm{CE}\!\left(\mathrm{softmax}(z_0-a\,\mathrm{ReLU}(z_{\mathrm{ft}}-z_0)),\,p_\theta\right)",
        "the logit offset alone, without the paper's anchor-term replacement; tuned for the built-in world",
        "where the original is certain already, reinforcing changes little and so does unlearning",
    )
    loop = {"lr": 4.5e-4, "steps": 40}
    search = {"strength": (1.0, 50.0), "reinforce_lr": (1e-4, 3e-3)}

    strength: NonNegativeFloat = 20.0  # a
    reinforce_steps: NonNegativeInt = 20  # of the copy, on the forget set
    reinforce_lr: NonNegativeFloat = 0.00014

    def prepare(self, model: nn.Module, data: Any) -> dict[str, Reference]:
        baseline = reference(model, data, "forget", distributions=True)
        with torch.enable_grad():
            copied = copy.deepcopy(model)
            weights = [p for p in copied.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(weights, lr=self.reinforce_lr, weight_decay=0.0)
            encoded, order = data.encoded["forget"], random.Random(0)
            queue: list[list[int]] = []
            for _ in range(self.reinforce_steps):
                queue = queue or shuffled_batches(encoded, data.batch_size, order)
                (tokens,) = answer_tokens(copied, collate(encoded, queue.pop(), data.pad).to(data.device))
                optimizer.zero_grad()
                tokens.loss.backward()
                optimizer.step()
                torch.clear_autocast_cache()  # else the next pass computes with the weights before this step
        reinforced = reference(copied, data, "forget", distributions=True)
        return {**super().prepare(model, data), "baseline": baseline, "reinforced": reinforced}

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        forget, retain = answer_tokens(model, batch.forget, batch.retain)
        cached = batch.reference
        target = generic_logits(cached["baseline"].logits(forget), cached["reinforced"].logits(forget), self.strength)
        return Objectives(whp_loss(forget.logits, target), self.retain(retain, cached))
