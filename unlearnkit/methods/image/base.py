"""Base of the image methods: what they train, what they are given, and the two predictions in one forward pass."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnkit.data import ImageBatch
from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods.base import Method
from unlearnkit.models.pipeline import Conditioning, join

Trained = Literal["full", "attn2", "attn2_kv", "not_attn2"]
WITHOUT_CROSS_ATTENTION = (
    "retain_finetune", "grad_ascent", "salun", "erasediff", "selective_amnesia", "ssd", "esd with variant='full'",
    "sld", "negative_prompt",
)  # fmt: skip


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
        """Names of the denoiser's weights that `trained` means; raises UnlearnkitError as `denoiser_weights`."""
        return denoiser_weights(model, self.trained, type(self).__name__)

    def lora_targets(self, model: nn.Module, names: list[str] | None) -> list[str]:
        """The attention projections among the trained weights; raises UnlearnkitError when there are none."""
        linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear)}
        mine = {n.removesuffix(".weight") for n in names or ()} & linear
        found = sorted(n for n in mine if any(part in n for part in ("to_q", "to_k", "to_v", "to_out")))
        if not found:
            raise UnlearnkitError(
                f"a LoRA adapter needs attention projections, and {type(self).__name__} trains none of this denoiser; "
                "leave lora at 0."
            )
        return found


def denoiser_weights(model: nn.Module, trained: Trained, method: str) -> list[str]:
    """Names of the weights of `unet` that are meant.

    Raises:
        UnlearnkitError: cross-attention is meant, and the denoiser has none.
    """
    names = [n for n, _ in model.named_parameters() if n.startswith("unet.")]
    cross = {n for n in names if ".attn2." in n}
    if trained == "full":
        return names
    if trained == "not_attn2":
        return [n for n in names if n not in cross]
    if not cross:
        raise UnlearnkitError(
            f"{method} edits cross-attention, and this denoiser has none; methods that would do: "
            f"{', '.join(WITHOUT_CROSS_ATTENTION)}."
        )
    return [n for n in names if n in cross and (trained == "attn2" or ".to_k." in n or ".to_v." in n)]


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
