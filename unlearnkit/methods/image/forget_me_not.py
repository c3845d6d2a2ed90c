"""Forget-Me-Not: attention to the concept's tokens is steered to zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.data import denoising_loss
from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.image.base import ImageMethod, Trained, noised, parts
from unlearnkit.models.attention import position_mask, recorded_attention


def attention_norm(probabilities: list[Tensor], mask: Tensor) -> Tensor:
    """Mean over layers of the mean over images of ‖A‖², A the attention to the masked tokens, summed over them.

    A layer's probabilities are (images, heads, pixels, tokens), the mask (images, tokens); mean over heads and pixels.
    """
    norms = [(p.square() * mask[:, None, None, :]).sum(-1).mean() for p in probabilities]
    return torch.stack(norms).mean()


@register_method("forget_me_not", "image")
class ForgetMeNot(ImageMethod):
    """Squared L2 norm of the cross-attention probabilities at the concept's tokens, on its own pictures."""

    card = Card(
        "Forget-Me-Not",
        "Zhang et al. 2023, arXiv 2303.17591",
        r"F=\sum_{l}\left\|A_l[\,:\,,\mathrm{tokens}(c)]\right\|^2",
        "cross-attention, 35 steps (authors' code, lr 2e-6 on Stable Diffusion); retain weight 1",
        "the concept's meaning is also in the states of the tokens after it, which keep their attention",
    )
    loop = {"lr": 3e-4, "steps": 35, "batch_size": 24}

    trained: Trained = "attn2"

    def prepare(self, model: nn.Module, data: Any) -> dict[str, Any]:
        word = data.problem.word
        if not word:
            raise UnlearnkitError("forget_me_not erases a word; individual images have none: use grad_ascent.")
        return {"word": word}

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        forget, inner = batch.forget, parts(model)
        tokens = forget.text.hidden.shape[1]
        mask = position_mask(inner.pipe.tokenizer, forget.prompts, batch.reference["word"], tokens)
        with recorded_attention(inner.unet) as kept:
            model(noised(model, forget), forget.t, forget.text)
        loss = attention_norm([p for layer in kept.values() for p in layer], mask.to(forget.latents.device))
        return Objectives(loss, denoising_loss(model, batch.retain) if self.alpha else None)
