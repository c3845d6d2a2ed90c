"""The recipes of a tiny Stable Diffusion pipeline: its autoencoder, its judge, and the denoiser itself.

The autoencoder is a codec shared by original and oracles and trained on other samples of the world; text encoder and
denoiser are what an oracle retrains.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt

from unlearnkit.worlds.pictures import Pictures

PROMPT_TOKENS = 16


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
