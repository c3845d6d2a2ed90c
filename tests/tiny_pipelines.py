"""Tiny random pipelines of the shapes of Stable Diffusion 1, 2 and XL, saved as folders: instead of downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from unlearnkit.models.image_recipe import train_prompt_tokenizer

KINDS = ("sd1", "sd2", "xl")
PROMPTS = ("a photo of a striped zebra", "a photo of a horse", "a picture of a striped zebra", "a dog on the grass")
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def tokenizer_of(pad: str) -> CLIPTokenizer:
    """Stable Diffusion 1 pads with the end token, 2 and XL's second one with "!"."""
    trained = train_prompt_tokenizer([*PROMPTS, "! !"])
    trained.model_max_length = 24
    if pad:
        trained.pad_token = pad
    return trained


def text_config(tokenizer: CLIPTokenizer, width: int, layers: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=2, max_position_embeddings=24, hidden_act=activation, projection_dim=width,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


def unet_of(width: int, **more: Any) -> UNet2DConditionModel:
    shape: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "norm_num_groups": 4,
        "attention_head_dim": 2,
        "cross_attention_dim": width,
    }
    return UNet2DConditionModel(**{**shape, **more})


def vae_of() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(4, 8), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, sample_size=16, scaling_factor=0.18215,
    )  # fmt: skip


def pipeline_of(kind: str, seed: int = 0, **unet: Any) -> Any:
    """sd1: ε, PNDM. sd2: v, linear projections, OpenCLIP's GELU. xl: two text encoders, time ids, Euler, zero null."""
    torch.manual_seed(seed)
    first = tokenizer_of("" if kind != "sd2" else "!")
    if kind == "xl":
        second = tokenizer_of("!")
        embeddings = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
        made: Any = StableDiffusionXLPipeline(
            vae=vae_of(),
            text_encoder=CLIPTextModel(text_config(first, 8, 3, "quick_gelu")),
            text_encoder_2=CLIPTextModelWithProjection(text_config(second, 12, 3, "gelu")),
            tokenizer=first,
            tokenizer_2=second,
            unet=unet_of(
                20,
                transformer_layers_per_block=(1, 2),
                use_linear_projection=True,
                **embeddings,
                projection_class_embeddings_input_dim=6 * 4 + 12,
                **unet,
            ),  # fmt: skip
            scheduler=EulerDiscreteScheduler(
                **SCHEDULE, timestep_spacing="leading", steps_offset=1, interpolation_type="linear"
            ),
        )
        return made
    if kind == "sd2":
        scheduler: Any = DDIMScheduler(
            **SCHEDULE, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1
        )
        text, more = text_config(first, 16, 3, "gelu"), {"use_linear_projection": True, "upcast_attention": True}
    else:
        scheduler = PNDMScheduler(**SCHEDULE, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
        text, more = text_config(first, 16, 2, "quick_gelu"), {}
    return StableDiffusionPipeline(
        vae=vae_of(), text_encoder=CLIPTextModel(text), tokenizer=first, unet=unet_of(16, **more, **unet),
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def save(kind: str, folder: Path, seed: int = 0, **unet: Any) -> Path:
    """A pipeline folder in safetensors, as the hub has them."""
    made = pipeline_of(kind, seed, **unet)
    made.set_progress_bar_config(disable=True)
    made.save_pretrained(folder, safe_serialization=True)
    return folder


WITHOUT_CROSS_ATTENTION = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
}
