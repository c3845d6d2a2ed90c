"""Guardrail: a prompt classifier that corrupts what the model gets to see. Suppression by construction."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeFloat, PositiveFloat
from scipy.optimize import minimize
from torch import Tensor, nn

from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods.base import Card, Method, register_method


class GuardedEmbedding(nn.Embedding):
    """An input embedding that adds fixed noise to prompts whose tokens look like a forgotten question.

    The prompt ends with the last occurrence of `separator`, the tokens with which every prompt of the template ends;
    answer tokens are neither judged nor corrupted, so that an answer scored by teacher forcing and one that is
    generated meet the same guard.
    """

    token_weights: Tensor
    noise: Tensor
    continuing = False  # set before each pass: the prompt is in the cache, and was corrupted there

    def __init__(
        self, inner: nn.Embedding, weights: Tensor, bias: float, separator: list[int], strength: float, seed: int
    ) -> None:
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = inner.num_embeddings, inner.embedding_dim
        self.padding_idx, self.max_norm, self.norm_type = inner.padding_idx, inner.max_norm, inner.norm_type
        self.scale_grad_by_freq, self.sparse = inner.scale_grad_by_freq, inner.sparse
        self.weight = inner.weight  # shared, so that a tied output embedding stays tied
        self.bias, self.separator = bias, separator
        noise = torch.randn(1, inner.embedding_dim, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("token_weights", weights.to(inner.weight.device), persistent=False)
        scaled = strength * float(inner.weight.detach().float().std()) * noise
        self.register_buffer("noise", scaled.to(inner.weight.device), persistent=False)

    def watch(self, _: nn.Module, __: tuple[Any, ...], given: dict[str, Any]) -> None:
        """A pre-forward hook on the model: does a key–value cache hold the prompt already?"""
        cache = given.get("past_key_values")
        self.continuing = cache is not None and cache.get_seq_length() > 0

    def prompt(self, ids: Tensor) -> Tensor:
        """True up to the end of each prompt, everywhere where none ends: (sequences, tokens)."""
        size = len(self.separator)
        positions = torch.arange(ids.shape[1], device=ids.device)
        if ids.shape[1] < size:
            return torch.ones_like(ids, dtype=torch.bool)
        windows = ids.unfold(1, size, 1)  # (sequences, tokens − size + 1, size)
        ends = (windows == torch.tensor(self.separator, device=ids.device)).all(-1)
        last = torch.where(ends, positions[size - 1 :], -1).amax(1)  # (sequences,)
        last = torch.where(last < 0, ids.shape[1], last)
        return positions <= last[:, None]

    def fires(self, ids: Tensor) -> Tensor:
        """Whether each prompt looks like a forgotten question: (sequences, tokens) → (sequences,) of bool."""
        return (self.token_weights[ids] * self.prompt(ids)).sum(1) + self.bias > 0

    def forward(self, ids: Tensor) -> Tensor:
        embedded = super().forward(ids)  # (sequences, tokens, width)
        if self.continuing:
            return embedded
        corrupted = self.fires(ids)[:, None] & self.prompt(ids)
        return torch.where(corrupted[:, :, None], embedded + self.noise.to(embedded.dtype), embedded)


def bag_of_tokens_classifier(
    forget: list[list[int]], other: list[list[int]], size: int, penalty: float
) -> tuple[Tensor, float]:
    """Logistic regression on token counts, classes weighted equally: weights (size,) and bias."""
    rows = [*forget, *other]
    x = np.zeros((len(rows), size))
    for i, ids in enumerate(rows):
        np.add.at(x[i], ids, 1.0)
    y = np.r_[np.ones(len(forget)), -np.ones(len(other))]
    share = np.r_[np.full(len(forget), 0.5 / len(forget)), np.full(len(other), 0.5 / len(other))]

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = y * (x @ w[:-1] + w[-1])
        slope = -share * y / (1 + np.exp(margin))
        value = float(share @ np.logaddexp(0, -margin)) + 0.5 * penalty * float(w[:-1] @ w[:-1])
        return value, np.r_[x.T @ slope + penalty * w[:-1], slope.sum()]

    found = minimize(loss, np.zeros(size + 1), jac=True, method="L-BFGS-B").x
    return torch.tensor(found[:-1], dtype=torch.float32), float(found[-1])


@register_method("guardrail")
class Guardrail(Method):
    """The weights stay; questions that look forgotten reach the model with noise on their embeddings."""

    card = Card(
        "Guardrail with corrupted prompts",
        "Liu et al. 2024 (ECO), arXiv 2406.07933; Thaker et al. 2024, arXiv 2403.03329",
        r"e(x)\leftarrow e(x)+s\,\xi\ \text{where a prompt classifier fires}",
        "a bag-of-tokens classifier instead of the papers' fine-tuned ones; strength set by hand, nothing is tuned",
        "suppression by construction: the weights still hold everything, and other words pass the classifier",
    )

    strength: NonNegativeFloat = 3.0  # of the noise, in standard deviations of the embedding
    penalty: PositiveFloat = 1e-3  # of the classifier's weights

    def apply(self, problem: Any, seed: int) -> nn.Module:
        """A copy of the original behind the classifier."""
        model = copy.deepcopy(problem.model)
        inner = model.get_input_embeddings()

        def tokens(questions: Iterable[str]) -> list[list[int]]:
            prompts = [problem.template.prompt(q) for q in questions]
            return problem.tokenizer(prompts, add_special_tokens=False)["input_ids"]

        forget, retain = (tokens(q for q, _ in problem.pairs(split)) for split in ("forget", "retain"))
        weights, bias = bag_of_tokens_classifier(forget, retain, inner.num_embeddings, self.penalty)
        separator = common_end(tokens(["Who?", "a", "1."]))
        guarded = GuardedEmbedding(inner, weights, bias, separator, self.strength, seed)
        model.set_input_embeddings(guarded)
        model.register_forward_pre_hook(guarded.watch, with_kwargs=True)
        model.save_pretrained = _refuse_to_save
        return model


def common_end(sequences: list[list[int]]) -> list[int]:
    """The longest run of tokens with which all sequences end."""
    end: list[int] = []
    for column in zip(*(reversed(ids) for ids in sequences), strict=False):
        if len(set(column)) > 1:
            break
        end.insert(0, column[0])
    return end


def _refuse_to_save(*_: Any, **__: Any) -> None:
    raise UnlearnkitError(
        "a guardrail stands before the weights and is not part of them: saved as a model folder it would be the "
        "original; keep the problem and call unlearn again."
    )
