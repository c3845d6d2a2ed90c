"""RMU: steer the hidden states of the forget set into a random direction, keep those of the retain set."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods.base import Card, Method, Objectives, StepBatch, register_method
from unlearnkit.text import answer_tokens, by_length, collate


def rmu_loss(hidden: Tensor, direction: Tensor, c: float) -> Tensor:
    """Mean over answer tokens and dimensions of (h − c·u)²; (answer tokens, width), (width,) → scalar."""
    return (hidden.float() - c * direction).pow(2).mean()


@register_method("rmu")
class RMU(Method):
    """Representation misdirection: the retain term is the same squared error to the original's hidden states."""

    card = Card(
        "RMU",
        "Li et al. 2024, arXiv 2403.03218; adaptive scale after Dang et al. 2024, arXiv 2408.06223",
        r"F=\mathbb{E}_f\,\tfrac1d\|h_l-c\,u\|^2,\quad R=\mathbb{E}_r\,\tfrac1d\|h_l-h_l^{0}\|^2",
        "Zephyr-7B: layer 7, down_proj of layers 5-7, c 6.5, alpha 1200, 80-150 steps; tuned for the built-in world",
        "answers become noise instead of the oracle's plausible guesses; a relearning attack undoes it",
    )
    loop = {"lr": 6.6e-4, "steps": 80}
    search = {"layer": [1, 2, 3], "scale": (0.5, 8.0), "alpha": (10.0, 1000.0)}

    alpha: float = 16.0
    layer: int = 2  # l: hidden states after this many decoder layers
    c: float | None = None  # length of the target; None: adaptive, `scale` × the mean norm of h_l
    scale: float = 7.7  # of the adaptive target
    depth: int = 3  # how many layers up to l are trained (their MLP output projections)
    direction_seed: int = 0  # of u, uniform on [0, 1)^width, normalised

    def trainable(self, model: nn.Module) -> list[str]:
        """The MLP output projections of layers l − depth … l − 1 (those that write h_1 … h_l)."""
        layers = getattr(model.config, "num_hidden_layers")  # noqa: B009
        if not 1 <= self.layer <= layers:
            raise UnlearnkitError(f"rmu layer {self.layer} does not exist; the model has layers 1 to {layers}.")
        wanted = range(max(0, self.layer - self.depth), self.layer)
        names = [
            name
            for name, _ in model.named_parameters()
            if any(f".{i}." in name for i in wanted) and ("down_proj.weight" in name or "mlp.c_proj.weight" in name)
        ]
        if not names:
            raise UnlearnkitError(f"{type(model).__name__} has no down_proj or c_proj to train; rmu can't be used.")
        return names

    @torch.no_grad()
    def prepare(self, model: nn.Module, data: Any) -> dict[str, Any]:
        """h_l of the original on the retain set, per record, and the target c·u."""
        encoded = data.encoded["retain"]
        kept: list[Tensor] = [torch.empty(0)] * len(encoded)
        norms = []
        for rows in by_length(encoded, data.batch_size):
            batch = collate(encoded, rows, data.pad).to(data.device)
            (tokens,) = answer_tokens(model, batch, layer=self.layer)
            assert tokens.hidden is not None
            norms.append(tokens.hidden.float().norm(dim=-1))
            for row, part in zip(rows, tokens.hidden.cpu().split(tokens.lengths.long().tolist()), strict=True):
                kept[row] = part
        generator = torch.Generator().manual_seed(self.direction_seed)
        u = torch.rand(kept[0].shape[-1], generator=generator)
        c = self.c if self.c is not None else self.scale * float(torch.cat(norms).mean())
        return {"hidden": kept, "direction": (u / u.norm()).to(data.device), "c": c}

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        forget, retain = answer_tokens(model, batch.forget, batch.retain, layer=self.layer)
        cached = batch.reference
        assert forget.hidden is not None and retain.hidden is not None
        before = torch.cat([cached["hidden"][i] for i in retain.rows.tolist()]).to(retain.hidden.device)
        return Objectives(
            rmu_loss(forget.hidden, cached["direction"], cached["c"]), F.mse_loss(retain.hidden.float(), before.float())
        )
