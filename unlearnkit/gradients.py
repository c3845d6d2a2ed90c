"""The step's gradient: forget and retain gradients, apart where someone looks at them, combined by a balance."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unlearnkit.balances import Balance
from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods import Method, Objectives

BLOCKS = {"layers": "layer", "down_blocks": "down", "mid_block": "mid", "up_blocks": "up"}


@dataclass
class Gradients:
    """Adds the gradient of one micro-batch to `.grad`.

    Attributes:
        parameters: name → trained parameter.
        balance: how the two gradients combine; None is the weighted sum, in one backward pass.
        mask: name → 1 where a weight may change, None for all of them.
        share: micro-batches a step.
    """

    accelerator: Any
    method: Method
    parameters: dict[str, Tensor]
    balance: Balance | None = None
    mask: dict[str, Tensor] | None = None
    share: int = 1
    apart: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, losses: Objectives, traced: bool, row: dict[str, Any]) -> None:
        """Backward pass of γF + αR (or what the balance makes of both); at traced steps norms and cosine in `row`.

        Raises:
            UnlearnkitError: no loss at all; a balance without two losses or with several processes.
        """
        parts = [
            (kind, weight, loss)
            for kind, weight, loss in (
                ("forget", self.method.gamma, losses.forget),
                ("retain", self.method.alpha, losses.retain),
            )
            if loss is not None
        ]
        name = type(self.method).__name__
        if not parts:
            raise UnlearnkitError(f"{name}.objectives returned neither a forget nor a retain loss.")
        for kind, _, loss in parts:
            row[f"{kind}_loss"] = row.get(f"{kind}_loss", 0.0) + float(loss.detach()) / self.share
        row.update(losses.log)
        several = self.accelerator.num_processes > 1
        if self.balance and (len(parts) < 2 or several):
            why = (
                "runs in several processes"
                if several
                else f"has no {'forget' if losses.forget is None else 'retain'} loss"
            )
            raise UnlearnkitError(f"a balance combines two gradients, but {name} {why}; leave balance at 'sum'.")
        if not self.balance and (not traced or several):
            total = torch.stack([weight * loss for _, weight, loss in parts]).sum() / self.share
            self.accelerator.backward(total)
            return
        targets = list(self.parameters.values())
        found: dict[str, list[Tensor]] = {}
        for k, (kind, _, loss) in enumerate(parts):
            raw = torch.autograd.grad(loss / self.share, targets, retain_graph=k < len(parts) - 1, allow_unused=True)
            found[kind] = [torch.zeros_like(p) if g is None else g.detach() for g, p in zip(raw, targets, strict=True)]
            before = self.apart.get(kind)
            self.apart[kind] = (
                found[kind] if before is None else [a + b for a, b in zip(before, found[kind], strict=True)]
            )
        if not self.balance:
            for kind, weight, _ in parts:
                for parameter, gradient in zip(targets, found[kind], strict=True):
                    scaled = weight * gradient
                    parameter.grad = scaled if parameter.grad is None else parameter.grad + scaled

    def finish(self, traced: bool, row: dict[str, Any]) -> None:
        """After the last micro-batch of a step: conflict in `row`, the balance's gradient and the mask in `.grad`."""
        forget, retain = (self.apart.get(kind) for kind in ("forget", "retain"))
        if traced:
            norms = {kind: math.sqrt(dot(g, g)) for kind, g in self.apart.items()}
            row.update({f"{kind}_grad_norm": norm for kind, norm in norms.items()})
            if forget and retain:
                size = norms["forget"] * norms["retain"]
                row["cosine"] = dot(forget, retain) / size if size else math.nan
                row["norm_ratio"] = norms["forget"] / norms["retain"] if norms["retain"] else math.nan
                row.update(layer_conflict(list(self.parameters), forget, retain))
        if self.balance and forget and retain:
            pair = [
                torch.cat([weight * g.reshape(-1) for g in part])
                for weight, part in ((self.method.gamma, forget), (self.method.alpha, retain))
            ]
            combined, log = self.balance(pair[0], pair[1], row["retain_loss"])
            row.update(log)
            if traced:
                row.update(weights(pair[0], pair[1], combined))
            sizes = [p.numel() for p in self.parameters.values()]
            for parameter, gradient in zip(self.parameters.values(), combined.split(sizes), strict=True):
                parameter.grad = gradient.view_as(parameter).clone()
        if self.mask is not None:
            for name, parameter in self.parameters.items():
                if parameter.grad is not None:
                    parameter.grad = parameter.grad * self.mask[name]
        self.apart = {}


def dot(a: list[Tensor], b: list[Tensor]) -> float:
    return float(torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum())


def weights(forget: Tensor, retain: Tensor, combined: Tensor) -> dict[str, float]:
    """w of w_f·g_f + w_r·g_r = combined, by least squares (the smallest one where the gradients are parallel)."""
    pair = torch.stack([forget, retain]).double()  # (2, parameters)
    found = torch.linalg.pinv(pair @ pair.T, hermitian=True) @ (pair @ combined.double())
    return {"weight_forget": float(found[0]), "weight_retain": float(found[1])}


def check_losses(losses: Any, name: str) -> None:
    """Raises UnlearnkitError for what is no `Objectives` of numbers that have a gradient."""
    if not isinstance(losses, Objectives):
        raise UnlearnkitError(f"{name}.objectives returned {_kind(losses)}; return Objectives(forget, retain).")
    for kind in ("forget", "retain"):
        loss = getattr(losses, kind)
        if loss is not None and (not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad):
            raise UnlearnkitError(
                f"{name}.objectives returned {_kind(loss)} as its {kind} loss; give one number with a gradient."
            )


def _kind(thing: Any) -> str:
    if not isinstance(thing, Tensor):
        return f"a {type(thing).__name__}"
    return f"a tensor of shape {tuple(thing.shape)}{'' if thing.requires_grad else ' without a gradient'}"


def layer_conflict(names: list[str], forget: list[Tensor], retain: list[Tensor]) -> dict[str, float]:
    """cos(g_f, g_r) and ‖g_f‖/‖g_r‖ within each layer, as `cosine_<layer>` and `norm_ratio_<layer>`.

    Parameters outside layers are left out.

    A layer of a language model is `layer<i>`, a block of a denoiser `down<i>`, `mid` or `up<i>`.
    """
    groups: dict[tuple[str, int], list[int]] = {}
    for k, name in enumerate(names):
        number = next((int(part) for part in name.split(".") if part.isdigit()), None)
        block = next((part for part in name.split(".") if part in BLOCKS), "layers")
        if number is not None:
            groups.setdefault((BLOCKS[block], -1 if block == "mid_block" else number), []).append(k)
    out = {}
    for (kind, number), members in sorted(groups.items()):
        f, r = [forget[k] for k in members], [retain[k] for k in members]
        layer = f"{kind}{number if number >= 0 else ''}"
        sizes = math.sqrt(dot(f, f)), math.sqrt(dot(r, r))
        out[f"cosine_{layer}"] = dot(f, r) / math.prod(sizes) if all(sizes) else math.nan
        out[f"norm_ratio_{layer}"] = sizes[0] / sizes[1] if sizes[1] else math.nan
    return out
