"""What a loss needs of the original model, computed once instead of keeping a second model in memory."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnkit.errors import UnlearnkitError
from unlearnkit.text import AnswerTokens, answer_tokens, by_length, collate, widen


class Reference:
    """Per record of one view: L₀, the original's summed answer NLL, and where asked for its answer distributions.

    Distributions are not stored as logits (vocabulary × tokens is too much): the input of the output embedding is
    stored, (answer tokens, width), and multiplied by the original's output embedding when needed. That matrix is
    copied only when it is going to be trained; with LoRA it is frozen and shared.
    """

    def __init__(self, nll: Tensor, features: list[Tensor] | None, head: tuple[Tensor, Tensor | None] | None):
        self.nll = nll  # (records,)
        self.features = features  # per record (answer tokens, width), on the CPU
        self.head = head

    def logits(self, tokens: AnswerTokens) -> Tensor:
        """z₀ at the answer tokens of a batch: (answer tokens, vocabulary)."""
        assert self.features is not None and self.head is not None
        features = torch.cat([self.features[i] for i in tokens.rows.tolist()])
        weight, bias = self.head
        return F.linear(features.to(weight.device, weight.dtype), weight, bias)


@torch.no_grad()
def reference(model: nn.Module, data: Any, view: str, distributions: bool = False) -> Reference:
    """One pass of the (still original) model over a view of the training data.

    Args:
        data: the loop's `TrainingData`.
        distributions: also keep what `Reference.logits` needs.

    Raises:
        UnlearnkitError: the architecture changes logits after its output embedding (soft caps, scales).
    """
    encoded = data.encoded[view]
    nll: list[Tensor] = [torch.empty(0)] * len(encoded)
    features: list[Tensor] = [torch.empty(0)] * len(encoded)
    layer: Any = getattr(model, "module", model).get_output_embeddings()  # type: ignore[operator]
    head = None
    if distributions:
        base = getattr(layer, "base_layer", layer)
        weight, bias = base.weight, getattr(base, "bias", None)
        head = tuple(
            None if w is None else (w.detach().clone() if w.requires_grad else w.detach()) for w in (weight, bias)
        )
    for rows in by_length(encoded, data.batch_size):
        tokens = answer_tokens(model, collate(encoded, rows, data.pad).to(data.device))[0]
        for row, one in zip(tokens.rows.tolist(), tokens.nll, strict=True):
            nll[row] = one
        if head is not None:
            weight, bias = head
            assert weight is not None
            mine = F.linear(tokens.features.to(weight.dtype), weight, bias)
            if not torch.allclose(widen(mine), widen(tokens.logits), rtol=1e-2, atol=1e-2):
                raise UnlearnkitError(
                    f"{type(model).__name__} changes its logits after the output embedding, so the original's "
                    "distributions can't be cached; use the NLL retain loss (retain_loss='nll')."
                )
            counts = tokens.lengths.long().tolist()
            for row, part in zip(tokens.rows.tolist(), tokens.features.cpu().split(counts), strict=True):
                features[row] = part
    return Reference(torch.stack(nll), features if distributions else None, head)  # type: ignore[arg-type]


def kl(reference_logits: Tensor, logits: Tensor) -> Tensor:
    """KL(p₀‖p_θ), mean over answer tokens; both (answer tokens, vocabulary)."""
    return F.kl_div(
        F.log_softmax(widen(logits), -1),
        F.log_softmax(widen(reference_logits), -1),
        reduction="batchmean",
        log_target=True,
    )
