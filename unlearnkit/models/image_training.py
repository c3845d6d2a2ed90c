"""Training of a tiny Stable Diffusion pipeline by its recipes: the autoencoder, the judge, the denoiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.image_recipe import (
    PROMPT_TOKENS,
    CodecRecipe,
    ImageRecipe,
    JudgeRecipe,
    digest_pictures,
    new_pipeline,
)
from unlearnkit.models.judge import Judge, as_pixels
from unlearnkit.models.pipeline import Diffusion
from unlearnkit.worlds.pictures import Pictures

DROPPED = 0.1  # share of captions replaced by the null prompt, for classifier-free guidance


@contextmanager
def seeded(seed: int) -> Iterator[np.random.Generator]:
    """torch seeded for the time being, and a numpy generator of the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield np.random.default_rng(seed)


def _train(
    module: nn.Module,
    lr: float,
    steps: int,
    label: str,
    loss_of: Callable[[], Tensor],
    after: Callable[[], None] | None = None,
) -> None:
    """The training loop of all three: AdamW, cosine with 5% warm-up, clipping; `after` is called after every step."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=0.01, fused=True)
    module.train()
    for step in (bar := tqdm(range(steps), desc=label, unit="step", leave=False, mininterval=1)):
        scale = min((step + 1) / max(1, steps // 20), 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = lr * scale
        loss = loss_of()
        if not torch.isfinite(loss):
            raise UnlearnkitError(f"{label} diverged at step {step}; lower the recipe's lr (now {lr}).")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        if after:
            after()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss.item():.4f}")


def train_codec(recipe: CodecRecipe, pictures: Pictures, label: str = "training the autoencoder") -> Any:
    """Mean absolute and squared error; the latents are scaled to unit variance."""
    from diffusers import AutoencoderTiny

    with seeded(recipe.seed) as draw:
        widths = (recipe.channels,) * 3
        codec: Any = AutoencoderTiny(
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            num_encoder_blocks=(1, 1, 1),
            num_decoder_blocks=(1, 1, 1),
            latent_channels=recipe.latent_channels,
        )
        pixels = as_pixels(pictures.images)

        def loss() -> Tensor:
            batch = pixels[draw.integers(0, len(pixels), recipe.batch_size)]
            latents = codec.encode(batch).latents
            # a little noise on the latents, as much as a denoiser leaves
            back = codec.decode(latents + 0.05 * latents.detach().std() * torch.randn_like(latents)).sample
            return F.mse_loss(back, batch) + 0.1 * F.l1_loss(back, batch) + 1e-4 * latents.square().mean()

        _train(codec, recipe.lr, recipe.steps, label, loss)
        codec.eval()
        with torch.no_grad():
            spread = float(codec.encode(pixels[:512]).latents.std())
    codec.register_to_config(scaling_factor=1 / spread)
    return codec


def train_judge(
    recipe: JudgeRecipe,
    pictures: Pictures,
    held_out: Pictures,
    domains: Mapping[str, Sequence[str]],
    label: str = "training the judge",
) -> Judge:
    """Cross-entropy a head, on shifted and slightly noisy pictures; its accuracy is that on `held_out`."""
    with seeded(recipe.seed) as draw:
        judge = Judge(domains, recipe.width)
        pixels = as_pixels(pictures.images)
        truth = {d: _indices(pictures.labels[d], c) for d, c in judge.domains.items()}

        def loss() -> Tensor:
            rows = draw.integers(0, len(pixels), recipe.batch_size)
            dy, dx = draw.integers(-2, 3, 2)
            batch = torch.roll(pixels[rows], (int(dy), int(dx)), (2, 3))
            batch = batch + 0.05 * torch.randn_like(batch)
            found = judge(batch)
            return torch.stack([F.cross_entropy(found[d], truth[d][rows], label_smoothing=0.02) for d in found]).sum()

        _train(judge, recipe.lr, recipe.steps, label, loss)
    judge.half().float().eval()  # the accuracy is that of the weights as they are kept
    probabilities, _ = judge.read(held_out.images)
    judge.held_out = len(held_out)
    for d, concepts in judge.domains.items():
        right = probabilities[d].argmax(-1) == _indices(held_out.labels[d], concepts).numpy()
        judge.accuracy[d] = float(right.mean())
    return judge


def _indices(labels: Sequence[str], concepts: Sequence[str]) -> Tensor:
    return torch.tensor([concepts.index(label) for label in labels])


def train_diffusion(
    recipe: ImageRecipe, pictures: Pictures, codec: Any, tokenizer: Any, label: str = "training"
) -> Diffusion:
    """Train text encoder and denoiser on captioned latents; returns the averaged weights, in eval mode."""
    if digest_pictures(pictures) != recipe.data:
        raise UnlearnkitError(f"the training pictures are not those of recipe {recipe.digest}; make a new recipe.")
    with seeded(recipe.seed) as draw:
        model = Diffusion(new_pipeline(recipe, codec, tokenizer))
        codec.requires_grad_(False)
        latents = model.encode(pictures.images)  # (n, c, h, w)
        captions = ["", *dict.fromkeys(pictures.captions)]
        place = {c: i for i, c in enumerate(captions)}
        own = np.array([place[c] for c in pictures.captions])
        ids = tokenizer(
            captions, padding="max_length", max_length=PROMPT_TOKENS, truncation=True, return_tensors="pt"
        ).input_ids  # (captions, tokens)
        trained = nn.ModuleList([model.unet, model.text_encoder])
        average = deepcopy(trained).requires_grad_(False)

        def loss() -> Tensor:
            rows = draw.integers(0, len(latents), recipe.batch_size)
            asked = np.where(draw.random(recipe.batch_size) < DROPPED, 0, own[rows])
            different, inverse = np.unique(asked, return_inverse=True)
            hidden = model.text_encoder(ids[different])[0][inverse]  # (batch, tokens, width)
            x, noise = latents[rows], torch.randn(recipe.batch_size, *latents.shape[1:])
            t = torch.randint(0, model.timesteps, (recipe.batch_size,))
            found = model.unet(model.noisy(x, noise, t), t, encoder_hidden_states=hidden).sample
            return F.mse_loss(found, model.target(x, noise, t))

        @torch.no_grad()
        def keep() -> None:
            for mean, now in zip(average.parameters(), trained.parameters(), strict=True):
                mean.lerp_(now, 1 - recipe.ema)

        _train(trained, recipe.lr, recipe.steps, label, loss, keep)
        trained.load_state_dict(average.state_dict())
    return model.eval()
