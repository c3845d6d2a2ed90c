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
    """Mean over layers of ‖A_l‖₂/√n_l, A_l the attention to the masked tokens, n_l = images × heads × pixels.

    The authors' code sums the bare norms; divided by √n_l they depend neither on the batch nor on the resolution.

    Args:
        probabilities: a layer's (images, heads, pixels, tokens).
        mask: 1 at the concept's tokens, (images, tokens).
    """
    norms = [(p * mask[:, None, None, :]).square().sum(-1).mean().sqrt() for p in probabilities]
    return torch.stack(norms).mean()


@register_method("forget_me_not", "image")
class ForgetMeNot(ImageMethod):
    """L2 norm of the cross-attention probabilities at the concept's tokens, on its own pictures."""

    card = Card(
        "Forget-Me-Not",
        "Zhang et al. 2023, arXiv 2303.17591",
        r"F=\tfrac1L\sum_{l}\left\|A_l[\,:\,,\mathrm{tokens}(c)]\right\|_2/\sqrt{n_l}",
        "cross-attention (authors' code: 35 steps, lr 2e-6 on Stable Diffusion); retain weight 1; lr and steps tuned "
        "for the built-in world",
        "the concept's meaning is also in the states of the tokens after it, which keep their attention",
    )
    loop = {"lr": 2.9e-3, "steps": 50, "batch_size": 24}

    trained: Trained = "attn2"

    def prepare(self, model: nn.Module, data: Any) -> dict[str, Any]:
        """The concept's tokens in every prompt.

        Raises:
            UnlearnkitError: no concept, or a prompt in which its tokens don't stand.
        """
        word, tokenizer = data.problem.word, parts(model).pipe.tokenizer
        if not word:
            raise UnlearnkitError("forget_me_not erases a word; individual images have none: use grad_ascent.")
        prompts = list(dict.fromkeys(data.prompts["forget"]))
        masks = position_mask(tokenizer, prompts, word, data.states.hidden.shape[1])
        if not masks.any(1).all():
            lost = prompts[int(masks.any(1).logical_not().nonzero()[0])]
            raise UnlearnkitError(
                f"the tokens of '{word}' don't stand in the prompt '{lost}' as the text encoder reads it "
                f"(at most {tokenizer.model_max_length} tokens); shorten the prompt."
            )
        return dict(zip(prompts, masks.to(data.device), strict=True))

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        forget = batch.forget
        mask = torch.stack([batch.reference[p] for p in forget.prompts])  # (images, tokens)
        with recorded_attention(parts(model).unet) as kept:
            model(noised(model, forget), forget.t, forget.text)
        loss = attention_norm([p for layer in kept.values() for p in layer], mask)
        return Objectives(loss, denoising_loss(model, batch.retain) if self.alpha else None)
