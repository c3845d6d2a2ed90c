"""Language models by hub id, local folder or PEFT adapter: safetensors only, no remote code, offline honoured."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from unlearnkit.errors import UnlearnkitError

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


def check_folder(path: Path) -> None:
    """A model folder must have a config and safetensors weights.

    Raises:
        UnlearnkitError: without config, without weights, or with pickle weights only.
    """
    names = {f.name for f in path.iterdir()}
    if "adapter_config.json" in names:
        wanted, pickles = "adapter_model.safetensors", "adapter_model.bin"
    else:
        if "config.json" not in names:
            raise UnlearnkitError(f"{path} has no config.json; give a folder saved with save_pretrained.")
        wanted, pickles = "model.safetensors", "pytorch_model.bin"
    if names & {wanted, f"{wanted}.index.json"}:
        return
    if any(n.endswith((".bin", ".pt", ".pth", ".ckpt")) for n in names):
        raise UnlearnkitError(
            f"{path} has pickle weights only (such as {pickles}), which can run code when loaded; "
            f"convert them to safetensors ({wanted}) with save_pretrained(..., safe_serialization=True)."
        )
    raise UnlearnkitError(f"{path} has no weights; expected {wanted} beside the configuration.")


def check_source(name: str | Path, revision: str | None = None) -> None:
    """Whether a model can be loaded later, without loading it: its folder is whole, or its files are within reach.

    Raises:
        UnlearnkitError: no such folder, a folder that `check_folder` refuses, or a hub id out of reach.
    """
    path = Path(name)
    if path.is_dir():
        check_folder(path)
    elif str(name).startswith((".", "/", "~")):
        raise UnlearnkitError(f"model folder {name} does not exist; give a folder or a hub id such as 'org/name'.")
    else:
        _configuration(str(name), revision)


def _configuration(name: str, revision: str | None) -> dict[str, Any]:
    """The PEFT configuration of an adapter in a folder or hub repository; empty for a whole model."""
    from transformers.utils import cached_file

    def fetch(which: str, revision: str | None) -> str | None:
        for file in ("config.json", "adapter_config.json"):  # an adapter's repository has no config.json
            found = cached_file(which, file, revision=revision, _raise_exceptions_for_missing_entries=False)
            if found:
                return found
        raise OSError(f"{which} has neither config.json nor adapter_config.json")

    path = Path(name) / "adapter_config.json"
    found = str(path) if path.is_file() else reach(fetch, "model", name, revision)
    return json.loads(Path(found).read_text(encoding="utf-8")) if found.endswith("adapter_config.json") else {}


def load_tokenizer(name: str | Path, revision: str | None = None) -> Any:
    """The tokenizer of a model, by hub id or folder."""
    from transformers import AutoTokenizer

    path = Path(name)
    if path.is_dir() and not (path / "tokenizer_config.json").is_file():
        base = _configuration(str(name), None).get("base_model_name_or_path")
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
    if adapter := _configuration(str(name), revision):
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


def check_pair(model: Any, tokenizer: Any, name: str) -> None:
    """Raises UnlearnkitError when the tokenizer has ids the model has no embedding for."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise UnlearnkitError(
            f"the tokenizer of {name} has {len(tokenizer)} tokens, the model embeds {rows}; "
            "give the tokenizer that belongs to the model."
        )


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


def reach(call: Any, what: str, name: str, revision: str | None, **kwargs: Any) -> Any:
    """Call a from_pretrained and turn its many failures into one sentence."""
    try:
        return call(name, revision=revision, **kwargs)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if Path(name).is_dir():
            raise UnlearnkitError(f"the {what} in {name} can't be loaded: {reason}") from error
        at = f" at revision {revision}" if revision else ""
        if "safetensors" in reason:  # reached, but without such a file
            raise UnlearnkitError(
                f"{what} '{name}'{at} has no safetensors weights, and pickle weights can run code when loaded; "
                "give a revision or a conversion of it that has them."
            ) from error
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise UnlearnkitError(
            f"{what} '{name}'{at} is neither a folder here nor reachable on the hub{offline}; download it where there "
            f"is a network with `hf download {name}{f' --revision {revision}' if revision else ''} --local-dir FOLDER` "
            "(gated models: `hf auth login` first) and give FOLDER instead of the name."
        ) from error


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

    from unlearnkit.models.diffusion import Diffusion

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


def check_pipeline(name: str | Path, revision: str | None = None) -> dict[str, Any]:
    """The model_index.json of a pipeline, without loading it: its folder is whole, or its index is within reach.

    Raises:
        UnlearnkitError: what `pipeline_index` raises; a part with pickle weights only, or without weights.
    """
    index = pipeline_index(name, revision)
    if Path(name).is_dir():
        _check_parts(Path(name))
    return index


def pipeline_index(name: str | Path, revision: str | None = None) -> dict[str, Any]:
    """The model_index.json of a pipeline: part → [library, class].

    Raises:
        UnlearnkitError: no such folder or hub id, no index, or code of its own.
    """
    path = Path(name)
    if path.is_dir():
        file = path / "model_index.json"
        if not file.is_file():
            raise UnlearnkitError(f"{path} has no model_index.json; give a folder saved with pipeline.save_pretrained.")
    elif str(name).startswith((".", "/", "~")):
        raise UnlearnkitError(f"pipeline folder {name} does not exist; give a folder or a hub id such as 'org/name'.")
    else:
        from huggingface_hub import hf_hub_download

        def fetch(which: str, revision: str | None) -> str:
            return hf_hub_download(which, "model_index.json", revision=revision)

        file = Path(reach(fetch, "pipeline", str(name), revision))
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
        foreign = not isinstance(index["_class_name"], str)
    except (ValueError, KeyError, TypeError) as error:
        raise UnlearnkitError(
            f"the model_index.json of {name} is broken; save or download the pipeline again."
        ) from error
    if foreign:
        raise UnlearnkitError(f"{name} brings code of its own, which is never run here; give a pipeline of diffusers.")
    return index


def _check_parts(path: Path) -> None:
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if not (path / part).is_dir():
            continue
        endings = {f.suffix for f in (path / part).iterdir()}
        if ".safetensors" in endings:
            continue
        if endings & {".bin", ".pt", ".pth", ".ckpt"}:
            raise UnlearnkitError(
                f"{path / part} has pickle weights only, which can run code when loaded; convert them to safetensors "
                "with pipeline.save_pretrained(..., safe_serialization=True)."
            )
        raise UnlearnkitError(f"{path / part} has no weights; expected a .safetensors file beside the configuration.")
