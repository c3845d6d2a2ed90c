"""RMU: steer the hidden states of the forget set into a random direction, keep those of the retain set."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods.base import Card, Method, Objectives, StepBatch, register_method
from unlearnkit.text import answer_tokens, by_length, collate, widen


def rmu_loss(hidden: Tensor, direction: Tensor, c: float) -> Tensor:
    """Mean over answer tokens and dimensions of (h − c·u)²; (answer tokens, width), (width,) → scalar."""
    return (widen(hidden) - c * direction).pow(2).mean()


def _layer_number(name: str) -> int:
    """The index of the decoder layer in a parameter's name; −1 outside the layers."""
    return next((int(part) for part in name.split(".") if part.isdigit()), -1)


@register_method("rmu")
class RMU(Method):
    """Representation misdirection: the retain term is the same squared error to the original's hidden states."""

    card = Card(
        "Representation misdirection (RMU)",
        "Li et al. 2024, arXiv 2403.03218; adaptive scale after Dang et al. 2024, arXiv 2408.06223",
        r"F=\mathbb{E}_f\,\tfrac1d\|h_l-c\,u\|^2,\quad R=\mathbb{E}_r\,\tfrac1d\|h_l-h_l^{0}\|^2",
        "Zephyr-7B: layer 7, down_proj of layers 5-7, c 6.5, alpha 1200, 80-150 steps; tuned for the built-in world",
        "answers become noise instead of the oracle's plausible guesses; a relearning attack undoes it",
    )
    loop = {"lr": 6.6e-4, "steps": 80}
    search = {"layer": [1, 2, 3], "scale": (0.5, 8.0), "alpha": (10.0, 1000.0)}

    alpha: float = 16.0
    layer: int = 2  # l: hidden states after this many decoder layers
    c: PositiveFloat | None = None  # length of the target; None: adaptive, `scale` × the mean norm of h_l on f
    scale: PositiveFloat = 7.7  # of the adaptive target
    depth: PositiveInt = 3  # how many layers up to l are trained (their MLP output projections)
    direction_seed: int = 0  # of u, uniform on [0, 1)^width, normalised

    def trainable(self, model: nn.Module) -> list[str]:
        """The MLP output projections of layers l − depth … l − 1 (those that write h_1 … h_l)."""
        layers = getattr(model.config, "num_hidden_layers")  # noqa: B009
        if not 1 <= self.layer < layers:
            raise UnlearnkitError(
                f"rmu layer {self.layer} can't be steered; this model has hidden states after layers 1 to {layers - 1} "
                "before the last one."
            )
        wanted = range(max(0, self.layer - self.depth), self.layer)
        names = [
            name
            for name, _ in model.named_parameters()
            if _layer_number(name) in wanted and name.endswith(("down_proj.weight", "mlp.c_proj.weight"))
        ]
        if not names:
            raise UnlearnkitError(f"{type(model).__name__} has no down_proj or c_proj to train; rmu can't be used.")
        return names

    @torch.no_grad()
    def prepare(self, model: nn.Module, data: Any) -> dict[str, Any]:
        """h_l of the original on the retain set, per record, and the target c·u."""
        kept = self._hidden(model, data, "retain")
        u = torch.rand(kept[0].shape[-1], generator=torch.Generator().manual_seed(self.direction_seed))
        c = self.c
        if c is None:
            c = self.scale * float(widen(torch.cat(self._hidden(model, data, "forget"))).norm(dim=-1).mean())
        return {"hidden": kept, "direction": (u / u.norm()).to(data.device), "c": c}

    def _hidden(self, model: nn.Module, data: Any, view: str) -> list[Tensor]:
        """h_l at the answer tokens of every record of a view: (answer tokens, width) each, on the CPU."""
        encoded = data.encoded[view]
        kept: list[Tensor] = [torch.empty(0)] * len(encoded)
        for rows in by_length(encoded, data.batch_size):
            (tokens,) = answer_tokens(model, collate(encoded, rows, data.pad).to(data.device), layer=self.layer)
            assert tokens.hidden is not None
            for row, part in zip(rows, tokens.hidden.cpu().split(tokens.lengths.long().tolist()), strict=True):
                kept[row] = part
        return kept

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        forget, retain = answer_tokens(model, batch.forget, batch.retain, layer=self.layer)
        cached = batch.reference
        assert forget.hidden is not None and retain.hidden is not None
        before = torch.cat([cached["hidden"][i] for i in retain.rows.tolist()]).to(retain.hidden.device)
        return Objectives(
            rmu_loss(forget.hidden, cached["direction"], cached["c"]), F.mse_loss(widen(retain.hidden), widen(before))
        )
