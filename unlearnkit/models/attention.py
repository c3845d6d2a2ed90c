"""Cross-attention probabilities of a denoiser, recorded while a forward pass runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.errors import UnlearnkitError


class Recording:
    """An attention processor that computes the probabilities openly and keeps them: (images, heads, pixels, tokens)."""

    def __init__(self, name: str, kept: dict[str, list[Tensor]]) -> None:
        self.name, self.kept = name, kept

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Cross-attention of a transformer block: (images, pixels, width) → the same."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)

        def heads(x: Tensor) -> Tensor:  # (images, n, width) → (images, heads, n, width / heads)
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        q, k, v = heads(query), heads(key), heads(value)
        probabilities = (q @ k.transpose(-1, -2) * attn.scale).softmax(-1, dtype=torch.float32)
        self.kept.setdefault(self.name, []).append(probabilities)
        out = (probabilities.to(v.dtype) @ v).transpose(1, 2).flatten(2)
        out = attn.to_out[1](attn.to_out[0](out))
        return out / attn.rescale_output_factor


@contextmanager
def recorded_attention(unet: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """While open, every cross-attention layer files its probabilities under its name, one tensor a forward pass.

    Raises:
        UnlearnkitError: the denoiser has no cross-attention.
    """
    layers: dict[str, Any] = {n: m for n, m in unet.named_modules() if n.endswith("attn2") and hasattr(m, "to_k")}
    if not layers:
        raise UnlearnkitError(
            "this denoiser has no cross-attention, so there are no attention maps to look at or to erase."
        )
    kept: dict[str, list[Tensor]] = {}
    before = {n: m.processor for n, m in layers.items()}
    for n, m in layers.items():
        m.processor = Recording(n, kept)
    try:
        yield kept
    finally:
        for n, m in layers.items():
            m.processor = before[n]


def word_positions(tokenizer: Any, prompt: str, word: str) -> list[int]:
    """Where the tokens of a word stand in an encoded prompt; empty when they don't."""
    ids = tokenizer(prompt, truncation=True, max_length=tokenizer.model_max_length)["input_ids"]
    wanted = tokenizer(word, add_special_tokens=False)["input_ids"]
    found: list[int] = []
    for start in range(len(ids) - len(wanted) + 1):
        if ids[start : start + len(wanted)] == wanted:
            found += range(start, start + len(wanted))
    return found


def position_mask(tokenizer: Any, prompts: list[str], word: str, tokens: int) -> Tensor:
    """1 at the tokens of `word`: (prompts, tokens)."""
    mask = torch.zeros(len(prompts), tokens)
    for row, prompt in enumerate(prompts):
        mask[row, word_positions(tokenizer, prompt, word)] = 1
    return mask
