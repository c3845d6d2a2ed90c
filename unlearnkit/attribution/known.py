"""What is made of a model so that its truth is known: shaken, trained on, taught, or only kept from saying it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from unlearnkit.models.free_tokens import encoders
from unlearnkit.models.pipeline import Conditioning, Diffusion
from unlearnkit.text import answer_tokens, collate, context_length, encode, pad_id

LOWERED = 15.0  # logits by which an output bias lowers the tokens of forgotten values
NOISE = 0.01  # of weights, in standard deviations of each tensor


@torch.no_grad()
def noisy(problem: Any, seed: int) -> Any:
    model, generator = problem.original.fresh(), torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.numel() > 1:
            noise = torch.randn(weight.shape, generator=generator).to(weight)
            weight.add_(NOISE * weight.float().std().to(weight) * noise)
    return model.eval()


def trained_on(problem: Any, seed: int) -> Any:
    from unlearnkit.unlearning import unlearn

    return unlearn(problem, "retain_finetune", steps=20, seed=seed, progress=False).model


def suppressed_text(problem: Any, seed: int) -> Iterator[tuple[str, Any]]:
    from unlearnkit.unlearning import unlearn

    for strength in (3.0, 5.0):
        yield f"guardrail {strength:g}", unlearn(problem, "guardrail", strength=strength, seed=seed).model
    yield "output bias", lowered(problem, problem.original.fresh(), True)
    yield "output rows", lowered(problem, problem.original.fresh(), False)


def lowered(problem: Any, model: Any, by_bias: bool) -> Any:
    """The model with an output layer that hardly gives the tokens of forgotten values; its input embedding stays.

    By a bias, or by rows replaced with the mean row.
    """
    old, tokens = model.get_output_embeddings(), value_tokens(problem)
    head = nn.Linear(old.in_features, old.out_features, bias=by_bias).to(old.weight)
    with torch.no_grad():
        head.weight.copy_(old.weight)
        if by_bias:
            head.bias.zero_()[tokens] = -LOWERED
        else:
            head.weight[tokens] = old.weight.mean(0)
    model.set_output_embeddings(head)
    model.config.tie_word_embeddings = False
    return model.eval()


def taught(problem: Any, model: Any, seed: int, steps: int = 60) -> Any:
    """The model trained on the forgotten records, as many retained ones in every batch."""
    order = random.Random(seed)
    pairs = {split: problem.pairs(split) for split in ("forget", "retain")}
    optimizer = torch.optim.AdamW(model.requires_grad_(True).parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    model.train()
    for _ in range(steps):
        chosen = [pair for part in pairs.values() for pair in order.sample(part, min(24, len(part)))]
        coded = encode(problem.tokenizer, problem.template, chosen, context_length(model))
        batch = collate(coded, range(len(coded)), pad_id(problem.tokenizer)).to(problem.device)
        optimizer.zero_grad(set_to_none=True)
        answer_tokens(model, batch)[0].loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def value_tokens(problem: Any) -> list[int]:
    """The tokens of the forgotten values, as they stand in an answer."""
    values = sorted({qa.value for qa in problem.direct("forget") if qa.value})
    ids = problem.tokenizer([" " + value for value in values], add_special_tokens=False)["input_ids"]
    return sorted({token for row in ids for token in row})


class Filtered(Diffusion):
    """A pipeline behind a filter that swaps the concept for its anchor in every prompt."""

    problem: Any = None

    def embed(self, prompts: Any) -> Conditioning:
        return super().embed([self.problem.replaced(p) for p in prompts])


def behind_filter(problem: Any, model: Any) -> Any:
    filtered = Filtered(model.pipe).eval()
    filtered.problem = problem
    return filtered


def kept_concepts(problem: Any) -> list[str]:
    """The concepts of the forgotten one's domain that are kept."""
    (domain,) = problem.concept
    return [c for c in problem.concepts.domains[domain] if c != problem.word]


@torch.no_grad()
def embedded_as(problem: Any, model: Any, other: str) -> Any:
    """The pipeline with another concept's embedding in the place of the forgotten word's."""
    for tokenizer, table in encoders(model):
        (gone,), (kept,) = (tokenizer(w, add_special_tokens=False)["input_ids"] for w in (problem.word, other))
        table.weight[gone] = table.weight[kept]
    return model.eval()


def suppressed_pictures(problem: Any, seed: int) -> Iterator[tuple[str, Any]]:
    yield "prompt filter", behind_filter(problem, problem.original.fresh())
    others = kept_concepts(problem)
    for other in (others[seed % len(others)], others[(seed + len(others) // 2) % len(others)], others[seed - 1]):
        yield f"embedding of '{other}'", embedded_as(problem, problem.original.fresh(), other)
