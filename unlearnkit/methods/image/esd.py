"""ESD: the prediction for the concept is moved to the other side of the null prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.image.base import ImageMethod, predictions, with_retain
from unlearnkit.models.diffusion import Conditioning, denoise


@dataclass
class Bank:
    """Partial denoises of the concept by the original, and what is to be predicted there.

    x (entries, c, h, w), t (entries,), text (entries, …), target (entries, c, h, w).
    """

    x: Tensor
    t: Tensor
    text: Conditioning
    target: Tensor

    def __len__(self) -> int:
        return len(self.x)


def esd_target(null: Tensor, concept: Tensor, eta: float) -> Tensor:
    """ε₀(x_t,∅) − η(ε₀(x_t,c) − ε₀(x_t,∅)), elementwise (arXiv 2303.07345, eq. 7)."""
    return null - eta * (concept - null)


@torch.no_grad()
def trajectory_bank(
    model: Any, prompts: list[str], eta: float, seeds: int, steps: int, guidance: float, seed: int = 0
) -> Bank:
    """Every x_t of `seeds` partial denoises a prompt, once, with its target: prompts × seeds × steps entries."""
    text = model.embed([p for p in prompts for _ in range(seeds)])
    path: list[tuple[Tensor, Tensor]] = []
    numbers = range(10_000 * seed, 10_000 * seed + len(text.hidden))
    denoise(model, text, numbers, steps, guidance, batch_size=len(text.hidden), path=path)
    null = model.embed([""])
    targets = []
    for x, t in path:
        times = t.expand(len(x))
        empty, concept = predictions(model, (x, times, null.repeat(len(x))), (x, times, text))
        targets.append(esd_target(empty, concept, eta))
    rows = [i for _ in path for i in range(len(text.hidden))]
    return Bank(
        torch.cat([x for x, _ in path]),
        torch.cat([t.expand(len(x)) for x, t in path]),
        text.take(rows),
        torch.cat(targets),
    )


@register_method("esd", "image")
class ESD(ImageMethod):
    """The variants differ in what is trained: x = cross-attention, u = everything else of the denoiser, full = all."""

    card = Card(
        "Erased Stable Diffusion (ESD)",
        "Gandikota et al. 2023, arXiv 2303.07345",
        r"F=\|\epsilon_\theta(x_t,c)-[\epsilon_0(x_t,\emptyset)-\eta(\epsilon_0(x_t,c)-\epsilon_0(x_t,\emptyset))]\|^2",
        "eta 1 (paper); a retain term of weight 1 is added for the built-in world, alpha 0 is the paper's; the "
        "trajectories are a bank computed once instead of a fresh one an iteration",
        "related concepts drift with it; an inverted embedding brings the concept back",
    )
    needs: ClassVar[tuple[str, ...]] = ("retain",)
    loop = {"lr": 3e-4, "steps": 100, "batch_size": 24}
    search = {"eta": [0.5, 1.0, 2.0], "alpha": [1.0, 2.0, 5.0]}

    variant: Literal["x", "u", "full"] = "x"
    eta: float = 1.0  # η: strength of the negative guidance
    seeds: int = 4  # partial denoises a prompt
    bank_steps: int = 20  # of a partial denoise
    start_guidance: float = 3.0  # of a partial denoise

    def trainable(self, model: nn.Module) -> list[str]:
        meant = {"x": "attn2", "u": "not_attn2", "full": "full"}[self.variant]
        return ImageMethod.trainable(self.model_copy(update={"trained": meant}), model)

    def prepare(self, model: nn.Module, data: Any) -> Bank:
        return trajectory_bank(
            model, data.problem.asked["forget"], self.eta, self.seeds, self.bank_steps, self.start_guidance
        )

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        bank: Bank = batch.reference
        kept = batch.retain if self.alpha else None
        count = len(kept) if kept is not None else min(24, len(bank))
        rows = torch.randint(len(bank), (count,)).to(bank.x.device)  # the loop seeds torch
        (found,), retain = with_retain(model, kept, (bank.x[rows], bank.t[rows], bank.text.take(rows)))
        return Objectives(F.mse_loss(found, bank.target[rows].float()), retain)
