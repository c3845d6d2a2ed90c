"""FSDP2 over the processes of a launch: each keeps a share of the weights, the gradients and the optimiser's state."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unlearnkit.errors import UnlearnkitError

if TYPE_CHECKING:
    from unlearnkit.methods import Method
    from unlearnkit.unlearning.configuration import Loop


def wanted(loop: Loop) -> bool:
    """Whether the setting `shard` or `accelerate launch --use_fsdp` asks for it."""
    return loop.shard or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def check_shardable(modality: str, method: Method, loop: Loop, watched: bool) -> None:
    """Raises UnlearnkitError for what needs the whole model, or both gradients, in one process."""
    why = None
    if int(os.environ.get("WORLD_SIZE", 1)) < 2:
        why = "there is one process; start it by `accelerate launch --num_processes N -m unlearnkit.cli unlearn …`"
    elif modality != "text":
        why = "pipelines aren't shared out; leave shard off: the processes then split the batches"
    elif loop.lora:
        why = "an adapter is small enough for every process; leave one of shard and lora off"
    elif loop.mask or method.needs_start:
        named = f"mask '{loop.mask}'" if loop.mask else type(method).__name__
        why = f"{named} compares weights with those before; leave shard off"
    elif loop.balance != "sum":
        why = f"balance '{loop.balance}' needs both gradients in one place; leave it at 'sum'"
    elif watched:
        why = "stop rules and on_step look at the whole model; leave them out"
    if why:
        raise UnlearnkitError(f"shard = True is not possible here: {why}.")


def share_out(model: Any, device: torch.device, bf16: bool) -> Any:
    """The model with every layer in shares, gathered one at a time when its turn comes (Zhao et al. 2023, FSDP)."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = (
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, output_dtype=torch.float32) if bf16 else MixedPrecisionPolicy()
    )
    shared: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (torch.distributed.get_world_size(),)),
        "mp_policy": policy,
    }
    layers = set(getattr(model, "_no_split_modules", None) or ())
    for module in model.modules():
        if type(module).__name__ in layers:
            fully_shard(module, **shared)
    fully_shard(model, **shared)
    return model


def held(parameters: Iterable[Tensor]) -> int:
    """Elements that this process keeps."""
    return sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in parameters)


def number(value: Tensor) -> float:
    """A scalar that may lie in shares."""
    return float(getattr(value, "full_tensor", lambda: value)())


def put_together(shared: nn.Module, whole: nn.Module) -> nn.Module:
    """`whole` with the weights of `shared`, in every process."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    found = get_model_state_dict(shared, options=StateDictOptions(full_state_dict=True))
    whole.load_state_dict(found)
    return whole
