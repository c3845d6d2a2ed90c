"""The recipes of a tiny Stable Diffusion pipeline: its autoencoder, its judge, and the denoiser itself.

The autoencoder is a codec shared by original and oracles and trained on other samples of the world; text encoder and
denoiser are what an oracle retrains.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from tqdm.auto import tqdm

from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.diffusion import Diffusion
from unlearnkit.models.judge import Judge, as_pixels
from unlearnkit.worlds.pictures import Pictures

PROMPT_TOKENS = 16
DROPPED = 0.1  # share of captions replaced by the null prompt, for classifier-free guidance


class _Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str  # digest of the training pictures (their ids and captions)
    note: str = ""  # for the reader
    seed: int = 0

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON without the note, 16 hex digits."""
        values = self.model_dump(exclude={"note"})
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


class CodecRecipe(_Recipe):
    """An AutoencoderTiny, image side / 4, trained to reproduce pictures."""

    kind: Literal["codec"] = "codec"
    channels: int = 24
    latent_channels: int = 8
    steps: NonNegativeInt = 1200
    batch_size: PositiveInt = 64
    lr: PositiveFloat = 2e-3  # peak of a cosine, AdamW


class JudgeRecipe(_Recipe):
    """A `Judge` trained on the labels of pictures."""

    kind: Literal["judge"] = "judge"
    width: int = 32
    steps: NonNegativeInt = 700
    batch_size: PositiveInt = 64
    lr: PositiveFloat = 2e-3


class ImageRecipe(_Recipe):
    """Text encoder and denoiser, trained together on captioned latents."""

    kind: Literal["image"] = "image"
    codec: str  # digest of the codec's recipe
    prompts: str  # digest of the texts the tokenizer is trained on (shared by original and oracles)
    size: int = 32  # image side, pixels
    latent_channels: int = 8
    channels: tuple[int, ...] = (32, 64)  # of the denoiser's levels
    text_width: int = 64
    text_layers: int = 2
    steps: NonNegativeInt = 1600
    batch_size: PositiveInt = 64
    lr: PositiveFloat = 1.5e-3  # peak of a cosine with 5% linear warm-up, AdamW
    ema: float = 0.99  # the weights kept are their exponential moving average


def digest_pictures(pictures: Pictures) -> str:
    """sha256 of ids and captions, and of the pixels unless they follow from the ids; 16 hex digits.

    Drawn pixels are left out because rounding may differ between platforms.
    """
    lines = [pictures.made, *(f"{i}\t{c}" for i, c in zip(pictures.ids, pictures.captions, strict=True))]
    found = hashlib.sha256("\n".join(lines).encode())
    if not pictures.made:
        found.update(np.ascontiguousarray(pictures.images).tobytes())
    return found.hexdigest()[:16]


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


def train_prompt_tokenizer(texts: Sequence[str]) -> Any:
    """A CLIP tokenizer in which every word of `texts` is one token; any other word can still be spelled."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    blank = CLIPTokenizer().backend_tokenizer
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer, bpe.pre_tokenizer = blank.normalizer, blank.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4096, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(sorted(set(texts)), trainer)
    found = json.loads(bpe.to_str())["model"]
    pieces = [*sorted(alphabet), *(f"{letter}</w>" for letter in sorted(alphabet))]
    pieces += [p for p, _ in sorted(found["vocab"].items(), key=lambda item: item[1])]
    order = {p: i for i, p in enumerate(dict.fromkeys([*pieces, "<|startoftext|>", "<|endoftext|>"]))}
    merges: Any = [tuple(m) if not isinstance(m, str) else tuple(m.split(" ")) for m in found["merges"]]
    return CLIPTokenizer(vocab=order, merges=merges, model_max_length=PROMPT_TOKENS)


def new_pipeline(recipe: ImageRecipe, codec: Any, tokenizer: Any) -> Any:
    """An untrained StableDiffusionPipeline of the recipe's size."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.text_width,
            intermediate_size=4 * recipe.text_width,
            num_hidden_layers=recipe.text_layers,
            num_attention_heads=4,
            max_position_embeddings=PROMPT_TOKENS,
            projection_dim=recipe.text_width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    levels = len(recipe.channels)
    unet = UNet2DConditionModel(
        sample_size=recipe.size // 4,
        in_channels=recipe.latent_channels,
        out_channels=recipe.latent_channels,
        layers_per_block=1,
        block_out_channels=recipe.channels,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        cross_attention_dim=recipe.text_width,
        attention_head_dim=4,  # heads
        norm_num_groups=8,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )
    return StableDiffusionPipeline(
        vae=codec,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


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
