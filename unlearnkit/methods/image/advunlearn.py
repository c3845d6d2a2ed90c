"""AdvUnlearn: the text encoder is trained against the embedding that brings the concept back best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.image.base import ImageMethod, denoiser_weights, parts, predictions
from unlearnkit.methods.image.esd import Bank, trajectory_bank
from unlearnkit.methods.image.spm import preserved_bank
from unlearnkit.models.free_tokens import all_tokens, embed_with, encoders, free_tokens, own_tokens, table_sizes


@dataclass
class Fixed:
    """The bank of the concept, ε₀(x_t,c) at its entries, the bank of preserved prompts, both lists, entries a step."""

    bank: Bank
    concept: Tensor
    preserved: Bank | None
    forget: list[str]
    retain: list[str]
    count: int


@register_method("advunlearn", "image")
class AdvUnlearn(ImageMethod):
    """ESD on the prompt whose word embeddings an adversary has moved by δ: min over θ, with δ* found anew each step.

    The adversary wants ε_θ(x_t, c+δ) = ε₀(x_t, c) and takes steps of size `attack_lr` along the sign of its gradient.
    """

    card = Card(
        "Adversarial unlearning (AdvUnlearn)",
        "Zhang et al. 2024, arXiv 2405.15234",
        r"F=\|\epsilon_\theta(x_t,c+\delta^*)-[\epsilon_0(x_t,\emptyset)-\eta(\epsilon_0(x_t,c)-\epsilon_0(x_t,"
        r"\emptyset))]\|^2,\ \delta^*=\arg\min\|\epsilon_\theta(x_t,c+\delta)-\epsilon_0(x_t,c)\|^2,\quad "
        r"R=\|\epsilon_\theta(x_t,r)-\epsilon_0(x_t,r)\|^2",
        "the text encoder is trained (paper); 30 attack steps of 1e-3 on Stable Diffusion (authors' code), here few "
        "and in units of the embedding table; lr, steps and alpha tuned for the built-in world",
        "the denoiser is as it was: whoever replaces the text encoder, or gives it states directly, has the concept; "
        "each step costs as much again for every attack step",
    )
    needs: ClassVar[tuple[str, ...]] = ()
    loop = {"lr": 4.2e-5, "steps": 100, "batch_size": 16}
    search = {"alpha": [1.0, 5.0, 20.0]}

    trained: Literal["text_encoder"] = "text_encoder"  # type: ignore[assignment]
    alpha: float = Field(20.0, ge=0)  # w: weight of the retain term
    eta: float = Field(1.0, ge=0)  # η: strength of the negative guidance
    attack_steps: int = Field(4, ge=0)  # of the adversary, each step of training; 0 is ESD on the text encoder
    attack_lr: float = Field(0.1, gt=0)  # its step size, in units of the root mean square of the embedding table
    seeds: int = Field(4, ge=1)  # partial denoises a prompt
    bank_steps: int = Field(20, ge=1)  # of a partial denoise
    start_guidance: float = 3.0  # of a partial denoise

    def trainable(self, model: nn.Module) -> list[str]:
        """The weights of the text encoders; raises UnlearnkitError where no cross-attention hears them."""
        denoiser_weights(model, "attn2", type(self).__name__)
        return [n for n, _ in model.named_parameters() if n.startswith("text_encoder")]

    def lora_targets(self, model: nn.Module, names: list[str] | None) -> list[str]:
        """The linear layers of the text encoders."""
        linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear)}
        return sorted({n.removesuffix(".weight") for n in names or ()} & linear)

    def prepare(self, model: nn.Module, data: Any) -> Fixed:
        """What the original predicts for the concept and for preserved prompts, on its own way to them.

        Raises:
            UnlearnkitError: nothing asks for the concept, or nothing is to be preserved.
        """
        forget, retain = (data.problem.asked[side] for side in ("forget", "retain"))
        if not forget:
            raise UnlearnkitError(
                "advunlearn erases what prompts ask for; individual images have no prompt of their own: "
                "use grad_ascent."
            )
        seed = data.generator.initial_seed()
        banks = [
            trajectory_bank(model, forget, eta, self.seeds, self.bank_steps, self.start_guidance, seed)
            for eta in (self.eta, -1.0)  # what is wanted, and (with η = −1) the prediction for the concept itself
        ]
        preserved = preserved_bank(model, retain, self, len(banks[0]), seed) if self.alpha else None
        return Fixed(banks[0], banks[1].target, preserved, forget, retain, data.batch_size)

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        fixed: Fixed = batch.reference
        bank, base = fixed.bank, parts(model)
        rows = torch.randint(len(bank), (fixed.count,)).to(bank.x.device)
        x, t, which = bank.x[rows], bank.t[rows], bank.which[rows]
        free = free_tokens(base, fixed.forget, all_tokens, shared=False)
        tokens = own_tokens(base, fixed.forget, free)

        def moved(delta: Sequence[Tensor]) -> Any:
            """Text states of c + δ, an entry each."""
            tables = [table.weight for _, table in encoders(base)]
            vectors = [table[ids] + d for table, ids, d in zip(tables, tokens, delta, strict=True)]
            return embed_with(base, fixed.forget, free, vectors).take(which)

        def distance(delta: Sequence[Tensor]) -> Tensor:
            (found,) = predictions(model, (x, t, moved(delta)))
            return F.mse_loss(found, fixed.concept[rows])

        sizes = [self.attack_lr * size for size in table_sizes(base)]
        start = [torch.zeros(len(ids), table.weight.shape[1], device=table.weight.device)
                 for ids, (_, table) in zip(tokens, encoders(base), strict=True)]  # fmt: skip
        text = moved(adversary(distance, start, sizes, self.attack_steps))
        if fixed.preserved is None:
            (found,) = predictions(model, (x, t, text))
            return Objectives(F.mse_loss(found, bank.target[rows]))
        other = torch.randint(len(fixed.preserved), (fixed.count,)).to(bank.x.device)
        kept = fixed.preserved
        said = base.embed([fixed.retain[k] for k in kept.which[other].tolist()])
        found, stays = predictions(model, (x, t, text), (kept.x[other], kept.t[other], said))
        return Objectives(F.mse_loss(found, bank.target[rows]), F.mse_loss(stays, kept.target[other]))


def adversary(
    distance: Callable[[Sequence[Tensor]], Tensor], start: Sequence[Tensor], sizes: Sequence[float], steps: int
) -> list[Tensor]:
    """δ* after `steps` steps of δ ← δ − size·sign(∇distance), one δ a text encoder (projected gradient, ℓ∞)."""
    delta = [d.detach() for d in start]
    for _ in range(steps):
        free = [d.clone().requires_grad_() for d in delta]
        slopes = torch.autograd.grad(distance(free), free)
        delta = [d - size * g.sign() for d, size, g in zip(delta, sizes, slopes, strict=True)]
    return delta
