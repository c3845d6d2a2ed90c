"""What unlearning a model will take, from its configuration alone: no weights are read and nothing is computed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnkit.errors import UnlearnkitError, whole_number
from unlearnkit.hub import cached, hub_answers
from unlearnkit.memory import TrainingMemory, saved_bytes, size_of
from unlearnkit.methods import Method
from unlearnkit.models.checks import pipeline_index, reach
from unlearnkit.models.load import device_of
from unlearnkit.models.source import KEEP_LIMIT
from unlearnkit.unlearning.configuration import Loop, configure_method
from unlearnkit.unlearning.loop import choose_parameters

GB = 1e9
FLOAT = 4  # bytes: what is trained, its gradient and AdamW's moments are float32 on every device


class Parts(nn.Module):
    """A pipeline's modules under the names that methods know: `unet`, `text_encoder`(`_2`), `vae`."""


def estimate(
    model: str | Path,
    method: str | None = None,
    *,
    tokens: int = 96,
    gpu: bool | None = None,
    revision: str | None = None,
    **settings: Any,
) -> TrainingMemory:
    """The memory of `unlearn` with these settings, from a model's configuration files.

    Parameters and activations are counted on tensors without data (`torch._subclasses.FakeTensorMode`) by running the
    very forward pass; the rest is arithmetic: float32 weights, gradients and moments for what is trained, the model's
    own precision for what an adapter leaves as it is. Not counted: the libraries (0.5–1 GB), a mask or balance, what
    a method prepares, and evaluation.

    Args:
        model: folder or hub id of a language model or of a Stable Diffusion-class pipeline; configurations suffice.
        method: default "npo" for text, "esd" for images. One that takes no step needs two models.
        tokens: of a question with its answer, half of them answer (text).
        gpu: whether a GPU trains, by default as this machine would: models are loaded in, and computed with, bfloat16.
        settings: fields of the method and of `Loop`, such as `batch_size`, `lora`, `trace_every`.

    Raises:
        UnlearnkitError: no such model, method or setting.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    whole_number("tokens", tokens, 2)
    if gpu not in (None, True, False):
        raise UnlearnkitError(f"gpu = {gpu!r} is not possible; give true or false.")
    half = device_of().type == "cuda" if gpu is None else gpu
    image = _is_pipeline(model, revision)
    kind = "image" if image else "text"
    chosen, loop = configure_method(kind, method or ("esd" if image else "npo"), settings)
    loaded = torch.bfloat16 if half else torch.float32
    steps = not hasattr(chosen, "apply")
    build = _pipeline(model, revision) if image else _language_model(str(model), revision)
    with torch.device("meta"):
        made = build(torch.float32 if steps and not loop.lora else loaded)
        count = sum(p.numel() for p in made.parameters())
        original = count * loaded.itemsize if count <= KEEP_LIMIT else 0
        if not steps:
            return TrainingMemory(count, 0, size_of(made) / GB, original / GB, 0.0, 0.0, 0.0)
        made, parameters = choose_parameters(made, chosen, loop)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _on_cpu(made.train())
        forward = _denoised(made, chosen, loop) if image else _answered(made, chosen, loop, tokens)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            activations = saved_bytes(made, forward)
        weights = size_of(made)
    trained = sum(p.numel() for p in parameters.values())
    one = FLOAT * trained
    # activations go as gradients come, except where both losses are looked at apart: two sets, and then their sum
    apart = loop.trace_every or loop.balance != "sum"
    gradients = max(2 * one, 3 * one - activations) if apart else max(0, one - activations)
    sizes = (weights, original, 2 * one, activations, gradients)
    return TrainingMemory(count, trained, *(size / GB for size in sizes))


def _on_cpu(module: nn.Module) -> None:
    """Tensors of the device "meta" become ones without data that behave as on a CPU; tied ones stay tied."""
    moved: dict[int, Any] = {}
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for name, old in held.items():
                if old is not None and id(old) not in moved:
                    new: Any = torch.empty(old.shape, dtype=old.dtype)
                    moved[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
                held[name] = None if old is None else moved[id(old)]


def _is_pipeline(model: str | Path, revision: str | None) -> bool:
    if Path(model).is_dir():
        return (Path(model) / "model_index.json").is_file()
    if str(model).startswith((".", "/", "~")):
        raise UnlearnkitError(f"model folder {model} does not exist; give a folder or a hub id such as 'org/name'.")
    if not hub_answers():  # its library would try again for half a minute
        return cached(str(model), ["model_index.json"], revision)
    from transformers.utils import cached_file

    try:
        found = cached_file(
            str(model), "model_index.json", revision=revision, _raise_exceptions_for_missing_entries=False
        )
    except (OSError, ValueError):  # out of reach: the next to ask says so in a sentence
        return False
    return found is not None


def _language_model(name: str, revision: str | None) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = reach(AutoConfig.from_pretrained, "model", name, revision, trust_remote_code=False)
    return lambda dtype: AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)


def _pipeline(name: str | Path, revision: str | None) -> Any:
    index = pipeline_index(name, revision)
    configs = {}
    for part in ("unet", "text_encoder", "text_encoder_2", "vae"):
        library, kind = index.get(part) or ("", "")
        if library not in ("diffusers", "transformers"):
            continue
        cls = getattr(import_module(library), kind)
        read = cls.load_config if library == "diffusers" else cls.config_class.from_pretrained
        configs[part] = cls, library, read(str(name), subfolder=part, revision=revision)
    if "unet" not in configs:
        raise UnlearnkitError(f"{name} is a pipeline without a UNet; its memory can't be estimated here.")

    def build(dtype: torch.dtype) -> Parts:
        parts, before = Parts(), torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            for part, (cls, library, config) in configs.items():
                parts.add_module(part, cls.from_config(config) if library == "diffusers" else cls(config))
        finally:
            torch.set_default_dtype(before)
        return parts

    return build


def _answered(model: Any, method: Method, loop: Loop, tokens: int) -> Any:
    """One forward pass over the forget and the retain batch, with logits at the answer tokens."""
    rows, answer = loop.batch_size * (2 if method.alpha else 1), tokens // 2

    def forward() -> Tensor:
        ids = torch.zeros(rows, tokens, dtype=torch.long)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=answer).logits.float().flatten(0, 1)
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))

    return forward


def _denoised(model: Any, method: Any, loop: Loop) -> Any:
    """One forward pass of the denoiser over the pictures of every view a step draws."""
    unet, rows = model.unet, loop.batch_size * len(method.views_needed())
    own: Any = getattr(unet, "config", None) or unet.base_model.config
    side = (own.sample_size, own.sample_size) if isinstance(own.sample_size, int) else tuple(own.sample_size)

    def forward() -> Tensor:
        text = torch.zeros(rows, model.text_encoder.config.max_position_embeddings, own.cross_attention_dim)
        more = {}
        if own.addition_embed_type == "text_time":  # XL
            more = {"time_ids": torch.zeros(rows, 6), "text_embeds": torch.zeros(rows, _pooled(own))}
        x, t = torch.zeros(rows, own.in_channels, *side), torch.zeros(rows, dtype=torch.long)
        found = unet(x, t, encoder_hidden_states=text, added_cond_kwargs=more or None).sample
        return F.mse_loss(found.float(), torch.zeros_like(found, dtype=torch.float32))

    return forward


def _pooled(config: Any) -> int:
    """Width of XL's pooled text state."""
    return int(config.projection_class_embeddings_input_dim) - 6 * int(config.addition_time_embed_dim)
