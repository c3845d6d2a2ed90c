"""Cross-attention probabilities of a denoiser, recorded while a forward pass runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
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


@torch.no_grad()
def attention_maps(model: Any, prompt: str, seeds: list[int]) -> tuple[Any, Tensor]:
    """Pictures of a prompt, and where each token is heard while they are drawn.

    Mean over layers, heads and three moments of the sampling (after a quarter, a half, three quarters of the steps).

    Returns:
        uint8 (seeds, height, width, 3), and (seeds, tokens, height, width): at every place the tokens sum to 1.

    Raises:
        UnlearnkitError: the denoiser has no cross-attention.
    """
    from unlearnkit.models.diffusion import denoise

    path: list[Any] = []
    latents = denoise(model, [prompt] * len(seeds), seeds, batch_size=len(seeds), path=path)
    text = model.embed([prompt]).repeat(len(seeds))
    with recorded_attention(model.unet) as recorded:
        for state in (path[len(path) * k // 4] for k in (1, 2, 3)):
            model(state.x, state.t.expand(len(seeds)), text)
    _, height, width = model.latent_shape
    total, count = torch.zeros(()), 0
    for layer in recorded.values():
        for p in layer:  # (seeds, heads, pixels, tokens)
            scale = round((height * width / p.shape[2]) ** 0.5)
            small = p.float().mean(1).transpose(1, 2).unflatten(-1, (height // scale, width // scale))
            large = F.interpolate(small, size=(model.image_size,) * 2, mode="bilinear")  # (seeds, tokens, h, w)
            total, count = total.to(large) + large, count + 1
    return model.decode(latents), total / count


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
