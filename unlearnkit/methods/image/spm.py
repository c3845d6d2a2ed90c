"""SPM: a one-dimensional adapter erases the concept, and is held at the original's predictions everywhere else."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import nn

from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.image.base import ImageMethod, Trained, predictions
from unlearnkit.methods.image.esd import Bank, trajectory_bank


@register_method("spm", "image")
class SPM(ImageMethod):
    """The retain term asks for no pictures: prompts to preserve keep what the original predicted for them.

    The states x_t of both terms come from partial denoises by the original, once.
    """

    card = Card(
        "Concept semi-permeable membrane (SPM)",
        "Lyu et al. 2023, arXiv 2312.16145",
        r"F=\|\epsilon_\theta(x_t,c)-[\epsilon_0(x_t,\emptyset)-\eta(\epsilon_0(x_t,c)-\epsilon_0(x_t,\emptyset))]\|^2,"
        r"\quad R=\|\epsilon_\theta(x_t,a)-\epsilon_0(x_t,a)\|^2",
        "rank 1 (authors' code: retain weight 1000, 3000 steps of 1e-4); lr, steps, eta and alpha from six trials on "
        "other concepts of the built-in world; the adapter is on cross-attention and merged at the end",
        "one direction a layer: what is erased is a word, not its synonyms; preserved prompts must be named",
    )
    needs: ClassVar[tuple[str, ...]] = ()
    loop = {"lr": 0.026, "steps": 100, "batch_size": 24, "lora": 1}
    search = {"lr": (1e-3, 3e-2), "eta": [1.0, 2.0], "alpha": [100.0, 1000.0]}

    trained: Trained = "attn2"
    alpha: float = Field(100.0, ge=0)  # weight of the retain term
    eta: float = Field(1.0, ge=0)  # η: strength of the negative guidance
    seeds: int = Field(4, ge=1)  # partial denoises a prompt
    bank_steps: int = Field(20, ge=1)  # of a partial denoise
    start_guidance: float = 3.0  # of a partial denoise

    def prepare(self, model: nn.Module, data: Any) -> tuple[Bank, Bank | None, int]:
        """The banks of concept and preserved prompts, and how many entries of each a step draws.

        Raises:
            UnlearnkitError: nothing asks for the concept, or nothing is to be preserved.
        """
        forget, retain = (data.problem.asked[side] for side in ("forget", "retain"))
        if not forget:
            raise UnlearnkitError(
                "spm erases what prompts ask for; individual images have no prompt of their own: use grad_ascent."
            )
        seed = data.generator.initial_seed()
        bank = trajectory_bank(model, forget, self.eta, self.seeds, self.bank_steps, self.start_guidance, seed)
        return bank, preserved_bank(model, retain, self, len(bank), seed) if self.alpha else None, data.batch_size

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        bank, preserved, count = batch.reference
        x, t, text, wanted = bank.draw(count)
        if preserved is None:
            (found,) = predictions(model, (x, t, text))
            return Objectives(F.mse_loss(found, wanted))
        x_a, t_a, text_a, before = preserved.draw(count)
        found, kept = predictions(model, (x, t, text), (x_a, t_a, text_a))
        return Objectives(F.mse_loss(found, wanted), F.mse_loss(kept, before))


def preserved_bank(model: nn.Module, prompts: list[str], method: Any, entries: int, seed: int) -> Bank:
    """About as many `entries` for prompts to preserve, with what the original predicts for them as the target.

    η = −1 makes ε₀(x_t,∅) − η(ε₀(x_t,a) − ε₀(x_t,∅)) the prediction for a itself.

    Raises:
        UnlearnkitError: there are no such prompts.
    """
    if not prompts:
        raise UnlearnkitError(
            f"{type(method).__name__} needs prompts to preserve; give load_problem(..., preserve=['a prompt', …]) or "
            "set alpha=0."
        )
    each = max(1, round(entries / (len(prompts) * method.bank_steps)))
    return trajectory_bank(model, prompts, -1.0, each, method.bank_steps, method.start_guidance, seed + 1)
