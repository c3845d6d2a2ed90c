"""Influence functions with a Kronecker-factored curvature (K-FAC), for the linear layers of a language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from unlearnkit.errors import UnlearnkitError
from unlearnkit.text import Encoded, answer_tokens, collate, pad_id, widen

BATCH = 32  # records of a pass that gathers the factors


def linear_layers(model: Any) -> dict[str, nn.Module]:
    """The linear layers between the embeddings: name → layer."""
    head = model.get_output_embeddings()
    found: dict[str, nn.Module] = {
        n: m for n, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not head
    }
    if not found:
        raise UnlearnkitError(f"{type(model).__name__} has no linear layers (nn.Linear); influence needs them.")
    return found


def as_matrix(layer: nn.Module, weight: Tensor) -> Tensor:
    """A layer's weight, or the gradient of it, as (out, in): a Conv1D of transformers stores (in, out)."""
    return weight.T if isinstance(layer, Conv1D) else weight


@contextmanager
def _watched(layers: dict[str, nn.Module], sums: dict[str, list[Tensor]]) -> Iterator[None]:
    """While open, every backward pass adds Σ aaᵀ of a layer's inputs and Σ ssᵀ of its output gradients to `sums`."""
    hooks = []
    for name, layer in layers.items():

        def forward(_: Any, given: tuple[Tensor, ...], out: Tensor, name: str = name) -> None:
            a = given[0].detach().float().flatten(0, -2)  # (tokens, in)

            def backward(gradient: Tensor) -> None:
                s = gradient.detach().float().flatten(0, -2)  # (tokens, out)
                used = s.abs().sum(1) > 0  # padding and what no answer depends on
                for place, x in enumerate((a[used], s[used])):
                    sums[name][place] += x.T @ x
                sums[name][2] += used.sum()

            out.register_hook(backward)

        hooks.append(layer.register_forward_hook(forward))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def factors(
    model: Any, layers: dict[str, nn.Module], records: Sequence[Encoded], pad: int, device: torch.device, seed: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """name → (A, S): E[aaᵀ] (in, in) and E[ssᵀ] (out, out), gradients taken at answers the model itself draws.

    Martens and Grosse 2015, arXiv 1503.05671, section 3: their product A ⊗ S stands for the layer's Gauss–Newton block.
    """
    sums = {}
    for name, layer in layers.items():
        out, into = as_matrix(layer, layer.weight).shape  # type: ignore[arg-type]
        sums[name] = [torch.zeros(n, n, device=device) for n in (into, out)] + [torch.zeros((), device=device)]
    generator = torch.Generator().manual_seed(seed)
    with _watched(layers, sums):
        for begin in range(0, len(records), BATCH):
            rows = range(begin, min(begin + BATCH, len(records)))
            (tokens,) = answer_tokens(model, collate(records, rows, pad).to(device))
            logits = widen(tokens.logits)
            p = logits.detach().softmax(-1).cpu()
            drawn = torch.multinomial(p, 1, generator=generator)[:, 0].to(device)
            model.zero_grad(set_to_none=True)
            # the mean of an answer's tokens, as the loss of a record is
            per_token = F.cross_entropy(logits, drawn, reduction="none") / tokens.lengths[tokens.sequence]
            per_token.sum().backward()
    model.zero_grad(set_to_none=True)
    return {n: (a / count.clamp_min(1), s / count.clamp_min(1)) for n, (a, s, count) in sums.items()}


class Inverse:
    """(A ⊗ S + λI)⁻¹ of a layer, λ = `damping` times the mean eigenvalue: (out, in) → (out, in).

    Grosse et al. 2023, arXiv 2308.03296, equations 19 and 20.
    """

    def __init__(self, a: Tensor, s: Tensor, damping: float) -> None:
        (va, self.qa), (vs, self.qs) = torch.linalg.eigh(a), torch.linalg.eigh(s)
        values = vs.clamp_min(0)[:, None] * va.clamp_min(0)[None, :]  # (out, in)
        self.values = values + damping * values.mean() + 1e-30

    def __call__(self, gradient: Tensor) -> Tensor:
        turned = self.qs.T @ gradient @ self.qa
        return self.qs @ (turned / self.values) @ self.qa.T


def influence(
    problem: Any, model: Any, queries: Sequence[Encoded], records: Sequence[Encoded], seed: int, damping: float = 0.1
) -> np.ndarray:
    """∇ℓ(q)ᵀ(G + λI)⁻¹∇ℓ(z), mean over the queries, G block-diagonal with Kronecker factors of the records: (records,).

    What a query's loss would fall by if a record counted a little more (Koh and Liang 2017, arXiv 1703.04730, eq. 2,
    with its sign turned), through the linear layers.
    """
    pad, device = pad_id(problem.tokenizer), problem.device
    layers = linear_layers(model)
    weights: list[Any] = [layer.weight for layer in layers.values()]
    inverses = [Inverse(a, s, damping) for a, s in factors(model, layers, records, pad, device, seed).values()]

    def gradients(coded: Encoded) -> list[Tensor]:
        (tokens,) = answer_tokens(model, collate([coded], [0], pad).to(device))
        found = torch.autograd.grad(tokens.loss, weights)
        return [as_matrix(layer, g).float() for layer, g in zip(layers.values(), found, strict=True)]

    mean = [g / len(queries) for g in gradients(queries[0])]
    for query in queries[1:]:
        for total, g in zip(mean, gradients(query), strict=True):
            total += g / len(queries)
    turned = [inverse(g) for inverse, g in zip(inverses, mean, strict=True)]
    return np.array([sum(float((t * g).sum()) for t, g in zip(turned, gradients(r), strict=True)) for r in records])
