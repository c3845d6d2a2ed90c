"""Base of the image methods: what they train, what they are given, and the two predictions in one forward pass."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnkit.data import ImageBatch
from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods.base import Method
from unlearnkit.models.diffusion import Conditioning, join

Trained = Literal["full", "attn2", "attn2_kv", "not_attn2"]


class ImageMethod(Method):
    """A method on the denoiser of a Stable Diffusion-class pipeline.

    `needs` names the views of pictures a method draws: "forget", "retain", and "anchor" (pictures of what takes the
    concept's place, asked for with the concept's prompt).
    """

    modality: ClassVar[Literal["text", "image"]] = "image"
    needs: ClassVar[tuple[str, ...]] = ("forget", "retain")

    trained: Trained = "full"  # which weights of the denoiser are trained

    def views_needed(self) -> tuple[str, ...]:
        """`needs` without the retain view when its weight is 0."""
        return tuple(v for v in self.needs if v != "retain" or self.alpha)

    def trainable(self, model: nn.Module) -> list[str]:
        """Names of the denoiser's weights that `trained` means.

        Raises:
            UnlearnkitError: the denoiser has no cross-attention, and the method edits it.
        """
        names = [n for n, _ in model.named_parameters() if n.startswith("unet.")]
        cross = [n for n in names if ".attn2." in n]
        if self.trained == "full":
            return names
        if not cross:
            raise UnlearnkitError(
                f"{type(self).__name__} edits cross-attention, and this denoiser has none; methods that would do: "
                "retain_finetune, grad_ascent, salun, erasediff, selective_amnesia, ssd."
            )
        if self.trained == "attn2":
            return cross
        if self.trained == "attn2_kv":
            return [n for n in cross if ".to_k." in n or ".to_v." in n]
        return [n for n in names if ".attn2." not in n]

    def lora_targets(self, model: nn.Module, names: list[str] | None) -> list[str]:
        """The attention projections among the trained weights."""
        linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear)}
        mine = {n.removesuffix(".weight") for n in names or ()} & linear
        return sorted(n for n in mine if any(part in n for part in ("to_q", "to_k", "to_v", "to_out")))


def predictions(model: nn.Module, *asked: tuple[Tensor, Tensor, Conditioning]) -> list[Tensor]:
    """The model's predictions for several (x_t, t, text) in one forward pass."""
    x, t = torch.cat([a[0] for a in asked]), torch.cat([a[1] for a in asked])
    found = model(x, t, join([a[2] for a in asked]))
    return list(found.float().split([len(a[0]) for a in asked]))


def parts(model: nn.Module) -> Any:
    """The `Diffusion` behind a wrapper of Accelerate."""
    return getattr(model, "module", model)


def noised(model: nn.Module, batch: ImageBatch) -> Tensor:
    """x_t of a batch."""
    return parts(model).noisy(batch.latents, batch.noise, batch.t)


def target(model: nn.Module, batch: ImageBatch) -> Tensor:
    """What the model should predict for a batch: noise, or v for a v-prediction model."""
    return parts(model).target(batch.latents, batch.noise, batch.t).float()


def with_retain(
    model: nn.Module, retain: ImageBatch | None, *asked: tuple[Tensor, Tensor, Conditioning]
) -> tuple[list[Tensor], Tensor | None]:
    """Predictions for `asked`, and the retain loss L_r, from one forward pass."""
    if retain is None:
        return predictions(model, *asked), None
    *found, kept = predictions(model, *asked, (noised(model, retain), retain.t, retain.text))
    return found, F.mse_loss(kept, target(model, retain))
