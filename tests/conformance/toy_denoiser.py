"""A denoiser that is linear in x_t, the text state and t, and its diffusion in plain numpy.

`Hand` shares no code with the package: noise schedule, noising, targets, predictions and DDIM are written out in
float64, so that an objective can only agree with them by being right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from unlearnkit.data import ImageBatch
from unlearnkit.models.diffusion import Diffusion

CHANNELS, SIDE, TOKENS, WIDTH, T = 2, 2, 4, 3, 50
BETAS = {"num_train_timesteps": T, "beta_start": 0.002, "beta_end": 0.09, "beta_schedule": "scaled_linear"}
FORGET = ["a striped circle", "a striped star"]
RETAIN = ["a dotted circle", "a dotted star", "a plain star"]
ANCHOR = [p.replace("striped", "plain") for p in FORGET]


def states(prompts: Sequence[str]) -> np.ndarray:
    """A text state of a prompt, without any pattern: (prompts, tokens, width)."""
    seeds = [[ord(c) for c in p] + [0] for p in prompts]
    return np.stack([np.random.default_rng(s).normal(size=(TOKENS, WIDTH)) for s in seeds])


class Attention(nn.Module):
    """Its one weight goes by the name that cross-attention values have."""

    def __init__(self) -> None:
        super().__init__()
        self.to_v = nn.Linear(WIDTH, CHANNELS, bias=False)


class Unet(nn.Module):
    """prediction = mix·x + V·Σ_tokens(state) + clock·t/T; `idle` is used by nothing and has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        k = torch.arange(16.0)
        self.mix = nn.Parameter(0.4 * torch.sin(2.3 * k[:4] + 0.5).view(CHANNELS, CHANNELS))
        self.attn2 = Attention()
        self.attn2.to_v.weight = nn.Parameter(0.3 * torch.cos(1.9 * k[:6] + 0.2).view(CHANNELS, WIDTH))
        self.clock = nn.Parameter(torch.tensor([0.3, -0.2]))
        self.idle = nn.Parameter(torch.ones(3))
        self.config = SimpleNamespace(sample_size=SIDE, in_channels=CHANNELS)
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor, encoder_hidden_states: Tensor, added_cond_kwargs: Any = None) -> Any:
        self.calls += 1
        words = self.attn2.to_v(encoder_hidden_states.sum(1))  # (n, channels)
        bias = words + self.clock * t[:, None] / T
        return SimpleNamespace(sample=torch.einsum("ab,nbhw->nahw", self.mix, x) + bias[:, :, None, None])


class Pipe:
    """What `Diffusion` asks of a pipeline."""

    def __init__(self, prediction: str) -> None:
        self.unet, self.vae, self.text_encoder = Unet(), nn.Identity(), nn.Identity()
        self.scheduler = DDIMScheduler(
            **BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type=prediction
        )
        self.vae_scale_factor = 1

    def set_progress_bar_config(self, disable: bool) -> None:
        pass

    def encode_prompt(self, prompt: list[str], **_: Any) -> tuple[Tensor, None]:
        return torch.from_numpy(states(prompt)).float(), None


def toy(prediction: str = "epsilon") -> Diffusion:
    return Diffusion(Pipe(prediction)).eval()


def move(model: Diffusion) -> None:
    """θ₀ → θ in place, so that a reference that shares weights with the model would be wrong."""
    with torch.no_grad():
        model.unet.mix += torch.tensor([[0.2, -0.1], [0.15, 0.3]])
        model.unet.attn2.to_v.weight += torch.tensor([[0.1, -0.2, 0.3], [0.05, 0.2, -0.1]])
        model.unet.clock += torch.tensor([-0.1, 0.2])


def batch(prompts: list[str], seed: int, anchors: list[str] | None = None) -> ImageBatch:
    """Latents, noise and timesteps without a pattern; t runs from almost no noise to almost nothing else."""
    draw = np.random.default_rng(seed)
    shape = (len(prompts), CHANNELS, SIDE, SIDE)
    x, noise = (torch.from_numpy(draw.normal(size=shape)).float() for _ in range(2))
    t = torch.tensor([1, 27, 48][: len(prompts)])
    model = toy()
    text = model.embed(prompts)
    return ImageBatch(x, noise, t, text, model.embed(anchors) if anchors else None, torch.arange(len(prompts)), prompts)


class Hand:
    """One parameter setting: the same predictions in float64."""

    def __init__(self, parameters: dict[str, np.ndarray], prediction: str) -> None:
        self.p, self.prediction = parameters, prediction
        self.known: dict[str, Any] = {}  # what a formula needs of this setting, computed once

    @classmethod
    def of(cls, model: Diffusion) -> Hand:
        found = {n: p.detach().double().numpy().copy() for n, p in model.unet.named_parameters()}
        return cls(found, model.pipe.scheduler.config.prediction_type)

    def predict(self, x: np.ndarray, t: Any, text: np.ndarray) -> np.ndarray:
        bias = text.sum(1) @ self.p["attn2.to_v.weight"].T + self.p["clock"] * np.asarray(t)[:, None] / T
        return np.einsum("ab,nbhw->nahw", self.p["mix"], x) + bias[:, :, None, None]

    def levels(self, t: Any) -> tuple[np.ndarray, np.ndarray]:
        """√ᾱ_t and √(1−ᾱ_t), shaped to multiply latents."""
        betas = np.linspace(BETAS["beta_start"] ** 0.5, BETAS["beta_end"] ** 0.5, T) ** 2
        kept = np.cumprod(1 - betas)[np.asarray(t)][:, None, None, None]
        return np.sqrt(kept), np.sqrt(1 - kept)

    def noisy(self, b: ImageBatch) -> np.ndarray:
        signal, spread = self.levels(b.t.numpy())
        return signal * b.latents.double().numpy() + spread * b.noise.double().numpy()

    def target(self, b: ImageBatch) -> np.ndarray:
        signal, spread = self.levels(b.t.numpy())
        if self.prediction == "epsilon":
            return b.noise.double().numpy()
        return signal * b.noise.double().numpy() - spread * b.latents.double().numpy()

    def at(self, b: ImageBatch, prompts: Sequence[str] | None = None) -> np.ndarray:
        """The prediction at x_t of a batch, asked with its own prompts or with others."""
        return self.predict(self.noisy(b), b.t.numpy(), states(prompts or b.prompts))

    def loss(self, b: ImageBatch) -> float:
        """L: mean squared error to the model's own target."""
        return mse(self.at(b), self.target(b))

    def ddim(self, x: np.ndarray, t: int, found: np.ndarray, steps: int) -> np.ndarray:
        """x_t → x of the next timestep, without noise of its own (arXiv 2010.02502, eq. 12 with σ = 0)."""
        signal, spread = self.levels([t])
        before = max(t - T // steps, 0)  # below the first timestep there is the first one: set_alpha_to_one is off
        signal_, spread_ = self.levels([before])
        if self.prediction == "epsilon":
            start, noise = (x - spread * found) / signal, found
        else:
            start, noise = signal * x - spread * found, signal * found + spread * x
        return signal_ * start + spread_ * noise


def mse(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a - b) ** 2).mean())


def gradient(loss: Callable[[Hand], float], at: Hand, eps: float = 1e-6) -> dict[str, np.ndarray]:
    """Central finite differences of a plain loss with respect to every parameter."""
    out = {}
    for name, values in at.p.items():
        found = np.zeros_like(values)
        for place in np.ndindex(values.shape):
            kept = values[place]
            values[place] = kept + eps
            above = loss(at)
            values[place] = kept - eps
            below = loss(at)
            values[place] = kept
            found[place] = (above - below) / (2 * eps)
        out[name] = found
    return out
