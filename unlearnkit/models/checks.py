"""What can be known of a model before it is loaded: safetensors only, no code of its own, within reach or not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from unlearnkit.errors import UnlearnkitError
from unlearnkit.hub import cached, hub_answers

FILES = ("config.json", "adapter_config.json", "model_index.json")  # one of them is in every model repository
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


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
    if any(n.endswith(PICKLES) for n in names):
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
        adapter_of(str(name), revision)


def adapter_of(name: str, revision: str | None) -> dict[str, Any]:
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


def check_pair(model: Any, tokenizer: Any, name: str) -> None:
    """Raises UnlearnkitError when the tokenizer has ids the model has no embedding for."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise UnlearnkitError(
            f"the tokenizer of {name} has {len(tokenizer)} tokens, the model embeds {rows}; "
            "give the tokenizer that belongs to the model."
        )


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
        if endings.intersection(PICKLES):
            raise UnlearnkitError(
                f"{path / part} has pickle weights only, which can run code when loaded; convert them to safetensors "
                "with pipeline.save_pretrained(..., safe_serialization=True)."
            )
        raise UnlearnkitError(f"{path / part} has no weights; expected a .safetensors file beside the configuration.")


def reach(call: Any, what: str, name: str, revision: str | None, **kwargs: Any) -> Any:
    """Call a from_pretrained and turn its many failures into one sentence."""
    try:
        if not Path(name).is_dir() and not cached(name, FILES, revision) and not hub_answers():
            raise ConnectionError("the hub does not answer")  # its library would try again for a minute
        return call(name, revision=revision, **kwargs)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
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
