"""Language models and pipelines by hub id, local folder or PEFT adapter, onto a device; offline is honoured."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.checks import adapter_of, check_pipeline, check_source, reach

PARTS = ("unet", "vae", "text_encoder", "tokenizer")  # a pipeline must have


def device_of(name: str | torch.device | None = None) -> torch.device:
    """ "auto" or None: the GPU where there is one, else the CPU; ``UNLEARNKIT_DEVICE`` overrides."""
    name = name or os.environ.get("UNLEARNKIT_DEVICE") or "auto"
    if str(name) != "auto":
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise UnlearnkitError(f"device '{name}' is unknown; use auto, cpu, cuda or cuda:N.") from error
        seen = torch.cuda.device_count()
        if device.type == "cuda" and (device.index or 0) >= seen:
            raise UnlearnkitError(f"device '{name}' was asked for, but {seen} GPUs can be seen here; use auto or cpu.")
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load_tokenizer(name: str | Path, revision: str | None = None) -> Any:
    """The tokenizer of a model, by hub id or folder."""
    from transformers import AutoTokenizer

    path = Path(name)
    if path.is_dir() and not (path / "tokenizer_config.json").is_file():
        base = adapter_of(str(name), None).get("base_model_name_or_path")
        if base is None:
            raise UnlearnkitError(f"{name} has no tokenizer; save it there with tokenizer.save_pretrained('{name}').")
        return load_tokenizer(base)
    return reach(AutoTokenizer.from_pretrained, "tokenizer", str(name), revision, trust_remote_code=False)


def load_model(
    name: str | Path,
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
) -> Any:
    """A causal language model for evaluation or unlearning, in eval mode on its device.

    Args:
        name: hub id, folder, or folder/hub id of a PEFT adapter (merged into its base model).
        dtype: default float32; on a GPU bfloat16, but tiny models as ever and unlearned ones as they were saved.

    Raises:
        UnlearnkitError: what `check_source` raises; weights that are damaged or that don't cover the architecture.
    """
    from transformers import AutoModelForCausalLM

    check_source(name, revision)
    place = device_of(device)
    path = Path(name)
    if adapter := adapter_of(str(name), revision):
        from peft import PeftModel

        base = load_model(adapter["base_model_name_or_path"], device=place, dtype=dtype)
        tuned = reach(lambda which, **at: PeftModel.from_pretrained(base, which, **at), "adapter", str(name), revision)
        merged = tuned.merge_and_unload()
        merged.name_or_path = str(name)  # a LoRA trained on top belongs to the merged model, not to its base
        return merged.eval()
    saved_here = (path / "unlearnkit.json").is_file()
    large = place.type == "cuda" and not _tiny(path)
    dtype = dtype or (("auto" if saved_here else torch.bfloat16) if large else torch.float32)
    with quiet() if saved_here or _tiny(path) else nullcontext():
        model, report = reach(
            AutoModelForCausalLM.from_pretrained,
            "model",
            str(name),
            revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    absent = sorted(report["missing_keys"])
    if absent:  # transformers would fill them with random numbers
        raise UnlearnkitError(
            f"the weights of {name} lack {len(absent)} tensors of {type(model).__name__}, the first is '{absent[0]}'; "
            "give a folder saved whole from a causal language model."
        )
    return model.to(place).eval()


def load_pipeline(
    name: str | Path,
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Any:
    """A Stable Diffusion-class pipeline (1.x, 2.x, XL) by folder or hub id, as a `Diffusion` in eval mode.

    Args:
        dtype: default float32 for small ones and on the CPU, bfloat16 on a GPU.

    Raises:
        UnlearnkitError: no such pipeline, pickle weights only, or no denoiser with a text encoder.
    """
    from diffusers import DiffusionPipeline

    from unlearnkit.models.pipeline import Diffusion

    place = device_of(device)
    index = check_pipeline(name, revision)
    if dtype is None:
        dtype = torch.bfloat16 if place.type == "cuda" and not _tiny(Path(name)) else torch.float32
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch_dtype: older diffusers know no other name for it
        pipe = reach(
            DiffusionPipeline.from_pretrained,
            "pipeline",
            str(name),
            revision,
            torch_dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            # XL-class pipelines take no safety checker
            **({"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in index else {}),
        )
    wrong = next((f"without {part}" for part in PARTS if getattr(pipe, part, None) is None), "")
    if not wrong and pipe.unet.config.in_channels != pipe.unet.config.out_channels:
        wrong = f"whose denoiser takes {pipe.unet.config.in_channels} channels, as for inpainting"
    kind = pipe.scheduler.config.get("prediction_type", "epsilon") if not wrong else ""
    if kind not in ("epsilon", "v_prediction", ""):
        wrong = f"that predicts '{kind}', where epsilon or v_prediction is known"
    if wrong:
        raise UnlearnkitError(
            f"{name} is a {type(pipe).__name__} {wrong}; text-to-image pipelines of Stable Diffusion 1.x, 2.x and XL "
            "can be used here."
        )
    # some parts come in the precision of their file, whatever was asked for
    return Diffusion(pipe.to(place)).to(dtype).eval()


def _tiny(path: Path) -> bool:
    return (path / "recipe.json").is_file()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and notices of transformers and diffusers: a tiny model loads in milliseconds."""
    from diffusers.utils import logging as diffusers
    from transformers.utils import logging as transformers

    before = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in (transformers, diffusers)]
    for log, _, _ in before:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, level, shown in before:
            log.set_verbosity(level)
            if shown:
                log.enable_progress_bar()
