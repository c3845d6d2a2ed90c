"""Guardrail: a prompt classifier that corrupts what the model gets to see. Suppression by construction."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from unlearnkit.methods.base import Card, Method, register_method


class GuardedEmbedding(nn.Embedding):
    """An input embedding that adds fixed noise to sequences whose tokens look like a forgotten question."""

    token_weights: Tensor
    noise: Tensor

    def __init__(self, inner: nn.Embedding, weights: Tensor, bias: float, strength: float, seed: int) -> None:
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = inner.num_embeddings, inner.embedding_dim
        self.padding_idx, self.max_norm, self.norm_type = inner.padding_idx, inner.max_norm, inner.norm_type
        self.scale_grad_by_freq, self.sparse = inner.scale_grad_by_freq, inner.sparse
        self.weight = inner.weight  # shared, so that a tied output embedding stays tied
        self.bias = bias
        noise = torch.randn(1, inner.embedding_dim, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("token_weights", weights.to(inner.weight.device), persistent=False)
        scaled = strength * float(inner.weight.detach().float().std()) * noise
        self.register_buffer("noise", scaled.to(inner.weight.device), persistent=False)

    def fires(self, ids: Tensor) -> Tensor:
        """Whether each sequence looks like a forgotten question: (sequences, tokens) → (sequences,) of bool."""
        return self.token_weights[ids].sum(1) + self.bias > 0

    def forward(self, ids: Tensor) -> Tensor:
        embedded = super().forward(ids)  # (sequences, tokens, width)
        if ids.shape[1] == 1:  # a generated token: its prompt was corrupted already
            return embedded
        return torch.where(self.fires(ids)[:, None, None], embedded + self.noise.to(embedded.dtype), embedded)


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

    strength: float = 3.0  # of the noise, in standard deviations of the embedding
    penalty: float = 1e-3  # of the classifier's weights

    def apply(self, problem: Any, seed: int) -> nn.Module:
        """A copy of the original behind the classifier."""
        model = copy.deepcopy(problem.model)
        inner = model.get_input_embeddings()

        def tokens(split: str) -> list[list[int]]:
            questions = [problem.template.prompt(q) for q, _ in problem.pairs(split)]
            return problem.tokenizer(questions, add_special_tokens=False)["input_ids"]

        weights, bias = bag_of_tokens_classifier(tokens("forget"), tokens("retain"), inner.num_embeddings, self.penalty)
        model.set_input_embeddings(GuardedEmbedding(inner, weights, bias, self.strength, seed))
        return model
