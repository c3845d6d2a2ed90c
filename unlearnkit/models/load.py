"""Language models by hub id, local folder or PEFT adapter: safetensors only, no remote code, offline honoured."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from unlearnkit.errors import UnlearnkitError


def device_of(name: str | torch.device | None = None) -> torch.device:
    """ "auto" or None: the GPU where there is one, else the CPU; ``UNLEARNKIT_DEVICE`` overrides."""
    name = name or os.environ.get("UNLEARNKIT_DEVICE") or "auto"
    if str(name) != "auto":
        try:
            return torch.device(name)
        except RuntimeError as error:
            raise UnlearnkitError(f"device '{name}' is unknown; use auto, cpu, cuda or cuda:N.") from error
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
    if any(n.endswith(".safetensors") for n in names):
        return
    if any(n.endswith((".bin", ".pt", ".pth", ".ckpt")) for n in names):
        raise UnlearnkitError(
            f"{path} has pickle weights only (such as {pickles}), which can run code when loaded; "
            f"convert them to safetensors ({wanted}) with save_pretrained(..., safe_serialization=True)."
        )
    raise UnlearnkitError(f"{path} has no weights; expected {wanted} beside the configuration.")


def load_tokenizer(name: str | Path, revision: str | None = None) -> Any:
    """The tokenizer of a model, by hub id or folder."""
    from transformers import AutoTokenizer

    adapter = Path(name) / "adapter_config.json"
    if adapter.is_file() and not (Path(name) / "tokenizer_config.json").is_file():
        name = json.loads(adapter.read_text())["base_model_name_or_path"]
    return _hub(AutoTokenizer.from_pretrained, "tokenizer", str(name), revision)


def load_model(
    name: str | Path,
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Any:
    """A causal language model for evaluation or unlearning, in eval mode on its device.

    Args:
        name: hub id, folder, or folder/hub id of a PEFT adapter (merged into its base model).
        dtype: default bfloat16 on a GPU for hub models, float32 otherwise.
    """
    from transformers import AutoModelForCausalLM

    place = device_of(device)
    path = Path(name)
    if path.is_dir():
        check_folder(path)
    elif str(name).startswith((".", "/", "~")) and not path.exists():
        raise UnlearnkitError(f"model folder {name} does not exist; give a folder or a hub id such as 'org/name'.")
    dtype = dtype or (torch.bfloat16 if place.type == "cuda" and not _tiny(path) else torch.float32)
    if (path / "adapter_config.json").is_file():
        from peft import PeftModel

        base_name = json.loads((path / "adapter_config.json").read_text())["base_model_name_or_path"]
        base = load_model(base_name, device=place, dtype=dtype)
        return PeftModel.from_pretrained(base, str(path)).merge_and_unload().eval()
    with nullcontext() if not _tiny(path) else quiet():
        model = _hub(
            AutoModelForCausalLM.from_pretrained,
            "model",
            str(name),
            revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
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
    """Without the progress bars of transformers: a tiny model loads in milliseconds."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _hub(call: Any, what: str, name: str, revision: str | None, **kwargs: Any) -> Any:
    """Call a from_pretrained and turn its many failures into one sentence."""
    try:
        return call(name, revision=revision, **kwargs)
    except (OSError, ValueError, KeyError) as error:
        if Path(name).is_dir():
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UnlearnkitError(f"the {what} in {name} can't be loaded: {reason}") from error
        at = f" at revision {revision}" if revision else ""
        raise UnlearnkitError(
            f"{what} '{name}'{at} is neither a folder here nor reachable on the hub; download it where there is a "
            f"network with `hf download {name} --local-dir FOLDER` (gated models: `hf auth login` first) and give "
            "FOLDER instead of the name."
        ) from error
