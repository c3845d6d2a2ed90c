"""A text-to-image pipeline as one module: what a method trains, what a metric samples from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from unlearnkit.errors import UnlearnkitError

LATENT_PIXELS = 2**15  # the denoiser sees at a time
PIXELS = 2**20  # the autoencoder sees at a time: 1024 images of 32×32, four of 512×512


@dataclass
class Conditioning:
    """What the denoiser is told: text states (n, tokens, width) and, for XL-class models, pooled ones (n, width)."""

    hidden: Tensor
    pooled: Tensor | None = None

    def take(self, rows: Sequence[int] | Tensor) -> Conditioning:
        return Conditioning(self.hidden[rows], None if self.pooled is None else self.pooled[rows])

    def repeat(self, count: int) -> Conditioning:
        """The first row, `count` times."""
        return self.take([0] * count)

    def detach(self) -> Conditioning:
        return Conditioning(self.hidden.detach(), None if self.pooled is None else self.pooled.detach())

    @property
    def device(self) -> torch.device:
        return self.hidden.device


def join(parts: Sequence[Conditioning]) -> Conditioning:
    """Several conditionings as one batch."""
    pooled = [p.pooled for p in parts if p.pooled is not None]
    return Conditioning(torch.cat([p.hidden for p in parts]), torch.cat(pooled) if pooled else None)


class Rule(Protocol):
    """How the predictions of one sampling step combine into the one that is followed."""

    prompts: tuple[str, ...]  # besides the null prompt and the prompt itself

    def begin(self) -> None:
        """A new batch of samples starts."""

    def combine(self, null: Tensor, prompt: Tensor, others: list[Tensor], guidance: float, step: int) -> Tensor: ...


@dataclass
class ClassifierFree:
    """ε∅ + w(ε_c − ε∅), the convention of diffusers (Ho and Salimans 2022, arXiv 2207.12598)."""

    prompts: tuple[str, ...] = ()

    def begin(self) -> None:
        """Nothing is carried from batch to batch."""

    def combine(self, null: Tensor, prompt: Tensor, others: list[Tensor], guidance: float, step: int) -> Tensor:
        return null + guidance * (prompt - null)


class Diffusion(nn.Module):
    """The parts of a Stable Diffusion-class pipeline as submodules: `unet`, `text_encoder`(`_2`), `vae`.

    Attributes:
        pipe: the diffusers pipeline around the same modules.
        rule: how guidance is applied when sampling; inference-time methods put their own here.
    """

    def __init__(self, pipe: Any) -> None:
        from diffusers import DDIMScheduler

        super().__init__()
        self.unet, self.vae, self.text_encoder = pipe.unet, pipe.vae, pipe.text_encoder
        if getattr(pipe, "text_encoder_2", None) is not None:
            self.text_encoder_2 = pipe.text_encoder_2
        pipe.set_progress_bar_config(disable=True)
        self.pipe = pipe
        # the noise schedule of training: a sampler such as Euler's or DPM++'s adds noise on a scale of its own
        self.schedule = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
        self.rule: Rule = ClassifierFree()

    @property
    def config(self) -> Any:
        return self.unet.config

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    @property
    def xl(self) -> bool:
        return hasattr(self, "text_encoder_2")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        side = self.unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return (self.unet.config.in_channels, height, width)

    @property
    def image_size(self) -> int:
        """Height and width of an image, pixels."""
        return self.latent_shape[1] * self.pipe.vae_scale_factor

    @property
    def batch(self) -> int:
        """How many samples are denoised at a time unless something else is asked for: 128 of 8×8, eight of 64×64."""
        _, height, width = self.latent_shape
        return max(1, min(128, LATENT_PIXELS // (height * width)))

    @property
    def timesteps(self) -> int:
        """Length T of the noise schedule."""
        return int(self.schedule.config.num_train_timesteps)

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """Text states of prompts, as the pipeline itself makes them."""
        found = self.pipe.encode_prompt(
            prompt=list(prompts), device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        if not self.xl:
            return Conditioning(found[0])
        hidden, pooled = found[0], found[2]
        if self.pipe.config.get("force_zeros_for_empty_prompt"):  # XL's null prompt is no text at all
            said = torch.tensor([bool(p) for p in prompts], device=hidden.device, dtype=hidden.dtype)
            hidden, pooled = hidden * said[:, None, None], pooled * said[:, None]
        return Conditioning(hidden, pooled)

    def forward(self, latents: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The denoiser's own prediction (ε or v): (n, c, h, w), (n,) → (n, c, h, w)."""
        extra: dict[str, Any] = {}
        if conditioning.pooled is not None:
            size = float(self.image_size)
            ids = torch.tensor([[size, size, 0, 0, size, size]], device=latents.device, dtype=latents.dtype)
            extra = {"text_embeds": conditioning.pooled, "time_ids": ids.expand(len(latents), -1)}
        return self.unet(
            latents, t, encoder_hidden_states=conditioning.hidden, added_cond_kwargs=extra or None
        ).sample  # fmt: skip

    def noisy(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = √ᾱ_t·x_0 + √(1−ᾱ_t)·noise; in float32, as 1 − ᾱ_t vanishes in bfloat16 for small t."""
        return self.schedule.add_noise(latents.float(), noise.float(), t).to(latents.dtype)

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the denoiser is trained to predict: the noise, or v = √ᾱ_t·noise − √(1−ᾱ_t)·x_0; float32."""
        if self.schedule.config.prediction_type == "v_prediction":
            return self.schedule.get_velocity(latents.float(), noise.float(), t)
        return noise.float()

    @torch.no_grad()
    def encode(self, images: np.ndarray) -> Tensor:
        """uint8 images (n, height, width, 3) → scaled latents (n, c, h, w)."""
        out = []
        batch_size = self._at_a_time()
        for begin in range(0, len(images), batch_size):
            pixels = torch.from_numpy(np.ascontiguousarray(images[begin : begin + batch_size])).to(self.device)
            pixels = pixels.permute(0, 3, 1, 2).to(self.vae.dtype) / 127.5 - 1
            coded = self.vae.encode(pixels)
            latents = coded.latents if hasattr(coded, "latents") else coded.latent_dist.mean
            out.append(latents * self.vae.config.scaling_factor)
        return torch.cat(out)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        """Scaled latents (n, c, h, w) → uint8 images (n, height, width, 3)."""
        out = []
        for part in latents.split(self._at_a_time()):
            pixels = self.vae.decode((part / self.vae.config.scaling_factor).to(self.vae.dtype)).sample
            pixels = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().byte()
            out.append(pixels.permute(0, 2, 3, 1).cpu().numpy())
        return np.concatenate(out)

    def _at_a_time(self) -> int:
        """Images the autoencoder takes in one batch."""
        return max(1, PIXELS // self.image_size**2)

    def save_pretrained(self, folder: str | Path) -> None:
        """A pipeline folder that plain diffusers loads; raises UnlearnkitError as `check_savable` does."""
        self.check_savable()
        self.pipe.save_pretrained(folder, safe_serialization=True)

    def check_savable(self) -> None:
        """Raises UnlearnkitError when the change is a guidance rule, which weights can't hold."""
        if not isinstance(self.rule, ClassifierFree):
            raise UnlearnkitError(
                f"{type(self.rule).__name__} changes the sampling, not the weights, so there is nothing to save; the "
                "folder would hold the original."
            )
