"""Text states of prompts in which the input embeddings of some tokens are free: what adversaries optimise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.pipeline import Conditioning, Diffusion

Places = Callable[[Any, str], list[int]]  # (tokenizer, prompt) → the positions of its free tokens


def encoders(model: Diffusion) -> list[tuple[Any, nn.Embedding]]:
    """(tokenizer, table of input embeddings) of each text encoder."""
    pairs: list[tuple[Any, Any]] = [(model.pipe.tokenizer, model.text_encoder)]
    if model.xl:
        pairs.append((model.pipe.tokenizer_2, model.text_encoder_2))
    return [(tokenizer, encoder.get_input_embeddings()) for tokenizer, encoder in pairs]


def all_tokens(tokenizer: Any, prompt: str) -> list[int]:
    """Every token of a prompt but start and end: a choice of `Places`."""
    return list(range(1, len(encoded(tokenizer, [prompt])[0]) - 1))


def encoded(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of each prompt, start and end token included, cut to the encoder's length."""
    found = tokenizer(list(prompts), truncation=True, max_length=tokenizer.model_max_length)
    return list(found["input_ids"])


@dataclass
class Free:
    """Which token of which prompt is free: (places,) each; `slot` says by which vector it is filled."""

    row: Tensor
    column: Tensor
    slot: Tensor


def free_tokens(model: Diffusion, prompts: Sequence[str], places: Places, shared: bool) -> list[Free]:
    """The free tokens of prompts, for each text encoder.

    Args:
        shared: the k-th free token of every prompt is one vector; otherwise each is one of its own.

    Raises:
        UnlearnkitError: a prompt has none, or another number of them than the others share.
    """
    out = []
    for tokenizer, table in encoders(model):
        at = [places(tokenizer, prompt) for prompt in prompts]
        for prompt, found, ids in zip(prompts, at, encoded(tokenizer, prompts), strict=True):
            if not found or (shared and len(found) != len(at[0])) or found[-1] >= len(ids) - 1:
                raise UnlearnkitError(
                    f"the prompt '{prompt}' has not the {len(at[0]) or 1} tokens that are to be replaced, within the "
                    f"{tokenizer.model_max_length} that the text encoder reads; ask in shorter prompts."
                )
        device = table.weight.device
        rows = [r for r, found in enumerate(at) for _ in found]
        columns = [c for found in at for c in found]
        slots = [k for found in at for k in range(len(found))] if shared else range(len(rows))
        out.append(Free(*(torch.tensor(list(x), device=device) for x in (rows, columns, slots))))
    return out


def own_tokens(model: Diffusion, prompts: Sequence[str], free: Sequence[Free]) -> list[Tensor]:
    """The token that stands in each slot (of several prompts, in the first), for each text encoder: (slots,)."""
    out = []
    for (tokenizer, table), f in zip(encoders(model), free, strict=True):
        ids = encoded(tokenizer, prompts)
        places = list(zip(f.row.tolist(), f.column.tolist(), f.slot.tolist(), strict=True))
        first = {slot: ids[row][column] for row, column, slot in reversed(places)}
        out.append(torch.tensor([first[k] for k in range(len(first))], device=table.weight.device))
    return out


def at_start(model: Diffusion, prompts: Sequence[str], free: Sequence[Free]) -> list[Tensor]:
    """The embeddings of those tokens, for each text encoder: (slots, width), float32."""
    tokens = own_tokens(model, prompts, free)
    return [t.weight.detach()[ids].float().clone() for (_, t), ids in zip(encoders(model), tokens, strict=True)]


def table_sizes(model: Diffusion) -> list[float]:
    """Root mean square of each text encoder's embedding table: the unit of steps in it."""
    return [float(table.weight.detach().float().square().mean().sqrt()) for _, table in encoders(model)]


def embed_with(
    model: Diffusion, prompts: Sequence[str], free: Sequence[Free], vectors: Sequence[Tensor]
) -> Conditioning:
    """Text states of prompts whose free tokens are embedded as `vectors`; gradients go to the vectors."""

    def put(f: Free, vector: Tensor) -> Callable[..., Tensor]:
        def hook(module: nn.Module, given: Any, looked_up: Tensor) -> Tensor:  # (prompts, tokens, width)
            return looked_up.index_put((f.row, f.column), vector[f.slot].to(looked_up.dtype))

        return hook

    with ExitStack() as hooks:
        for (_, table), f, vector in zip(encoders(model), free, vectors, strict=True):
            hooks.callback(table.register_forward_hook(put(f, vector)).remove)
        return model.embed(prompts)
