"""ESD: the prediction for the concept is moved to the other side of the null prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.image.base import ImageMethod, Trained, denoiser_weights, with_retain
from unlearnkit.models.diffusion import Visited, denoise
from unlearnkit.models.pipeline import Conditioning

FIRST_NOISE = 1_000_000_000  # starting noises of the bank: none that a metric samples with


@dataclass
class Bank:
    """Partial denoises of the concept by the original, and what is to be predicted there.

    x (entries, c, h, w), t (entries,), target (entries, c, h, w); text (prompts, …), which (entries,) of them.
    """

    x: Tensor
    t: Tensor
    target: Tensor
    text: Conditioning
    which: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def draw(self, count: int) -> tuple[Tensor, Tensor, Conditioning, Tensor]:
        """x_t, t, text and target of `count` entries drawn with torch's own generator, which the loop seeds."""
        rows = torch.randint(len(self), (count,)).to(self.x.device)
        return self.x[rows], self.t[rows], self.text.take(self.which[rows]), self.target[rows]


def esd_target(null: Tensor, concept: Tensor, eta: float) -> Tensor:
    """ε₀(x_t,∅) − η(ε₀(x_t,c) − ε₀(x_t,∅)), elementwise (arXiv 2303.07345, eq. 7)."""
    return null - eta * (concept - null)


@torch.no_grad()
def trajectory_bank(
    model: Any, prompts: list[str], eta: float, seeds: int, steps: int, guidance: float, seed: int = 0
) -> Bank:
    """Every x_t of `seeds` denoises a prompt, once, with its target: prompts × seeds × steps entries.

    Guidance needs both predictions of the target on the way anyway, so the targets cost nothing more.
    """
    text = model.embed(prompts)
    which = torch.arange(len(prompts)).repeat_interleave(seeds)
    first = FIRST_NOISE + 10_000 * seed
    numbers = range(first, first + len(which))
    path: list[Visited] = []
    entries = []
    for rows in torch.arange(len(which)).split(model.batch):
        denoise(model, text.take(which[rows]), [numbers[i] for i in rows], steps, guidance, path=path)
        entries += [which[rows]] * steps
    return Bank(
        torch.cat([v.x for v in path]),
        torch.cat([v.t.expand(len(v.x)) for v in path]),
        torch.cat([esd_target(v.null.float(), v.prompt.float(), eta) for v in path]),
        text,
        torch.cat(entries).to(text.device),
    )


@register_method("esd", "image")
class ESD(ImageMethod):
    """The variants differ in what is trained: x = cross-attention, u = everything else of the denoiser, full = all.

    The states x_t come from partial denoises by the original, once; the authors' code draws one an iteration, by the
    model in training.
    """

    card = Card(
        "Erased Stable Diffusion (ESD)",
        "Gandikota et al. 2023, arXiv 2303.07345",
        r"F=\|\epsilon_\theta(x_t,c)-[\epsilon_0(x_t,\emptyset)-\eta(\epsilon_0(x_t,c)-\epsilon_0(x_t,\emptyset))]\|^2",
        "eta 1 and no retain term (paper), partial denoises at guidance 3 (authors' code), here a bank computed once; "
        "tuned for the built-in world: eta 2, alpha 5",
        "related concepts drift with it; an inverted embedding brings the concept back",
    )
    needs: ClassVar[tuple[str, ...]] = ("retain",)
    loop = {"lr": 2.5e-3, "steps": 100, "batch_size": 24}
    search = {"eta": [0.5, 1.0, 2.0], "alpha": [1.0, 2.0, 5.0]}

    variant: Literal["x", "u", "full"] = "x"
    alpha: float = Field(5.0, ge=0)  # weight of the retain term; 0 is the paper's
    eta: float = Field(2.0, ge=0)  # η: strength of the negative guidance
    seeds: int = Field(4, ge=1)  # partial denoises a prompt
    bank_steps: int = Field(20, ge=1)  # of a partial denoise
    start_guidance: float = 3.0  # of a partial denoise

    def trainable(self, model: nn.Module) -> list[str]:
        if "trained" in self.model_fields_set:
            raise UnlearnkitError("what esd trains is its variant: variant='x', 'u' or 'full'; leave 'trained' out.")
        meant: dict[str, Trained] = {"x": "attn2", "u": "not_attn2", "full": "full"}
        return denoiser_weights(model, meant[self.variant], "esd")

    def prepare(self, model: nn.Module, data: Any) -> tuple[Bank, int]:
        """The bank, and how many of its entries a step draws."""
        prompts = data.problem.asked["forget"]
        if not prompts:
            raise UnlearnkitError(
                "esd erases what prompts ask for; individual images have no prompt of their own: use grad_ascent."
            )
        seed = data.generator.initial_seed()
        bank = trajectory_bank(model, prompts, self.eta, self.seeds, self.bank_steps, self.start_guidance, seed)
        return bank, data.batch_size

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        bank, count = batch.reference
        x, t, text, wanted = bank.draw(count)
        (found,), retain = with_retain(model, batch.retain if self.alpha else None, (x, t, text))
        return Objectives(F.mse_loss(found, wanted), retain)
