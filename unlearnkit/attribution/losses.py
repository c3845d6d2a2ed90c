"""The loss of a split as a function of a model, on fixed records or pictures: what landscapes are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unlearnkit.data import ImageBatch, denoising_loss
from unlearnkit.text import answer_tokens, collate, context_length, encode, pad_id

Loss = Callable[[Any], Tensor]
LIMITS = {"text": 16, "image": 8}  # records or pictures a split, unless something else is asked for


def loss_of(problem: Any, split: str, limit: int | None = None) -> Loss:
    """loss(model) → scalar, differentiable, of at most `limit` records or pictures taken evenly from a split.

    Without a limit they are as many as `LIMITS` says.

    Text: the mean over direct questions of the answer's NLL, nats a token. Images: the denoising loss (mean squared
    error of the prediction), with noise and timesteps that are the same for every model.
    """
    limit = limit or LIMITS[problem.modality]
    if problem.modality == "image":
        return _of_pictures(problem, split, limit)
    items = problem.direct(split) or problem.splits[split]
    chosen = [items[i] for i in _evenly(len(items), limit)]
    pairs = [(qa.question, qa.answer) for qa in chosen]
    coded = encode(problem.tokenizer, problem.template, pairs, context_length(problem.model))
    batch = collate(coded, range(len(coded)), pad_id(problem.tokenizer)).to(problem.device)

    def loss(model: Any) -> Tensor:
        (tokens,) = answer_tokens(model, batch)
        return (tokens.nll / tokens.lengths).mean()

    return loss


def _of_pictures(problem: Any, split: str, limit: int) -> Loss:
    pictures, latents = problem.pictures(split), problem.latents(split)
    rows = _evenly(len(pictures), limit)
    own, x = torch.Generator().manual_seed(0), latents[rows]
    noise = torch.randn(x.shape, generator=own).to(x.device, x.dtype)
    t = torch.randint(0, problem.model.timesteps, (len(rows),), generator=own).to(x.device)
    prompts = [pictures.captions[i] for i in rows]

    def loss(model: Any) -> Tensor:
        return denoising_loss(model, ImageBatch(x, noise, t, model.embed(prompts), None, torch.tensor(rows), prompts))

    return loss


def splits_of(problem: Any) -> list[str]:
    """forget, retain and, where there is one, holdout."""
    return ["forget", "retain", *(["holdout"] if len(problem.splits.get("holdout") or ()) else [])]


def same_weights(original: Any, model: Any) -> bool:
    """Whether two models have the same parameters by name and shape, so that there is a line between them."""
    mine, theirs = ({n: p.shape for n, p in m.named_parameters()} for m in (original, model))
    return mine == theirs


def _evenly(count: int, limit: int) -> list[int]:
    return np.linspace(0, count - 1, min(count, limit)).round().astype(int).tolist()
