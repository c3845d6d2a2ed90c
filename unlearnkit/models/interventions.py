"""Interventions on a pipeline: another prompt at some tokens, in some layers, at some steps; parts of another model.

Told only at one place and the concept appears: that place is sufficient. Told everywhere else and it vanishes: that
place is necessary. After Basu et al. 2023, arXiv 2310.13730, and Meng et al. 2022, arXiv 2202.05262.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.attention import position_mask
from unlearnkit.models.diffusion import GUIDANCE, STEPS, denoise, sample
from unlearnkit.models.pipeline import Conditioning, Diffusion


def token_groups(tokenizer: Any, prompts: Sequence[str], word: str) -> dict[str, Tensor]:
    """Where a word's own tokens, what follows them, the end token and the padding stand: bool (prompts, tokens) each.

    Raises:
        UnlearnkitError: a prompt without the word.
    """
    ids = tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    place = torch.arange(ids.shape[1])
    own = position_mask(tokenizer, list(prompts), word, ids.shape[1]).bool()
    if not own.any(1).all():
        lost = prompts[int(own.any(1).logical_not().nonzero()[0])]
        raise UnlearnkitError(f"the tokens of '{word}' don't stand in the prompt '{lost}'; give prompts that name it.")
    end = (ids == tokenizer.eos_token_id).int().argmax(1, keepdim=True)  # the first one: padding may look the same
    last = (own * place).amax(1, keepdim=True)
    groups = {"its own word": own, "words after it": (place > last) & (place < end), "end token": place == end}
    groups["padding"] = place > end
    return {name: mask for name, mask in groups.items() if mask.any()}


def attention_blocks(unet: nn.Module) -> dict[str, str]:
    """Label → prefix of the names of the blocks with cross-attention, in the order of the denoiser."""
    names = (n for n, _ in unet.named_modules() if n.endswith("attn2"))
    found = dict.fromkeys(".".join(n.split(".")[:2]) for n in names)
    order = sorted(found, key=lambda n: ("down_blocks", "mid_block", "up_blocks").index(n.split(".")[0]))
    return {n.replace("_blocks.", " ").replace("mid_block.attentions", "middle"): n for n in order}


@contextmanager
def hearing(model: Diffusion, blocks: str | tuple[str, ...], text: Conditioning) -> Iterator[None]:
    """While open, the cross-attention layers whose names begin so hear `text`, whatever the prompt.

    `text` has a row a sample of the batch; the null half of a guided batch stays what it is.

    Raises:
        UnlearnkitError: no such layer.
    """

    def instead(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        states = kwargs["encoder_hidden_states"].clone()
        states[-len(text.hidden) :] = text.hidden
        return args, kwargs | {"encoder_hidden_states": states}

    layers = [m for n, m in model.unet.named_modules() if n.endswith("attn2") and n.startswith(blocks)]
    if not layers:
        raise UnlearnkitError(
            f"no cross-attention layer's name begins with {blocks!r}; this denoiser has "
            f"{', '.join(attention_blocks(model.unet).values()) or 'none'}."
        )
    hooks = [layer.register_forward_pre_hook(instead, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def told(
    model: Diffusion,
    here: Conditioning,
    elsewhere: Conditioning,
    seeds: Sequence[int],
    *,
    tokens: Tensor | None = None,
    blocks: str | tuple[str, ...] | None = None,
    steps: tuple[int, int] | None = None,
    guidance: float = GUIDANCE,
) -> np.ndarray:
    """Pictures drawn with one prompt at some place and with another everywhere else: uint8 (n, height, width, 3).

    Args:
        here, elsewhere: a row a seed each, and no more than `Diffusion.batch` of them.
        tokens: bool (n, tokens), where `here` speaks; or
        blocks: prefixes of the names of the cross-attention layers that hear `here`; or
        steps: (first, last), the sampling steps first…last − 1 at which `here` speaks.

    Raises:
        UnlearnkitError: not exactly one place, or too many samples.
    """
    if sum(place is not None for place in (tokens, blocks, steps)) != 1:
        raise UnlearnkitError("say at which tokens, in which blocks or at which steps the prompt is told: one of them.")
    if len(seeds) > model.batch:
        raise UnlearnkitError(f"{len(seeds)} samples are more than one batch of this model; give up to {model.batch}.")
    if tokens is not None:
        mask = tokens[:, :, None].to(model.device)
        states = torch.where(mask, here.hidden, elsewhere.hidden)  # (n, tokens, width)
        return sample(model, Conditioning(states, elsewhere.pooled), seeds, guidance=guidance)
    if blocks is not None:
        with hearing(model, blocks, here):
            return sample(model, elsewhere, seeds, guidance=guidance)
    assert steps is not None
    first, last = steps
    x = None
    for text, begin, end in ((elsewhere, 0, first), (here, first, last), (elsewhere, last, STEPS)):
        if begin < end:
            x = denoise(model, text, seeds, guidance=guidance, start=x, first_step=begin, last_step=end)
    assert x is not None
    return model.decode(x)


@torch.no_grad()
def transplant(body: nn.Module, donor: nn.Module, wanted: Callable[[str], bool]) -> Any:
    """A copy of `body` in which the weights with a `wanted` name are those of `donor`, a model of the same shape."""
    mixed = copy.deepcopy(body)
    theirs = dict(donor.named_parameters())
    for name, weight in mixed.named_parameters():
        if wanted(name):
            weight.copy_(theirs[name])
    return mixed
