"""Settings of the loop and of a method, from one flat dictionary."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unlearnkit.balances import BALANCES
from unlearnkit.errors import UnlearnkitError, unknown
from unlearnkit.masks import MASKS
from unlearnkit.methods import METHODS, Method


class Loop(BaseModel):
    """Settings of the loop; a method's own settings are its fields. Unknown or ill-typed ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(80, ge=0, lt=2**31)  # optimiser steps
    epochs: float | None = Field(None, gt=0)  # passes over the forget set; overrides steps
    lr: float = Field(3e-4, ge=0)  # peak learning rate, AdamW
    batch_size: int = Field(16, ge=1)  # forget sequences a step and process, and as many of retain
    accumulation: int = Field(1, ge=1)  # micro-batches a step; batch_size is that of one
    warmup: float = Field(0.0, ge=0, le=1)  # share of the steps with a rising learning rate
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # after the warm-up
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, ge=0)  # largest gradient norm; 0 = no clipping
    lora: int = Field(0, ge=0)  # rank of a LoRA adapter; 0 = train the weights themselves
    trace_every: int = Field(10, ge=0)  # steps between measurements of both gradients; 0 = never
    precision: Literal["auto", "no", "bf16"] = "auto"  # auto: bf16 on a GPU
    shard: bool = False  # FSDP: every process keeps a share of weights, gradients and optimiser state
    balance: str = "sum"  # how the two gradients combine, see unlearnkit.balances
    match_norm: bool = False  # scale what a balance gives to the norm of the sum
    mask: str = ""  # which weights may change, see unlearnkit.masks; empty = all
    mask_share: float = Field(0.5, gt=0, le=1)  # share of the weights a mask leaves free


def configure_method(modality: str, method: str | Method, settings: dict[str, Any]) -> tuple[Method, Loop]:
    """A method and its loop from one flat dictionary of settings.

    Raises:
        UnlearnkitError: a setting that neither has, or of the wrong type.
    """
    if isinstance(method, str):
        other = "image" if modality == "text" else "text"
        if method not in METHODS[modality] and method in METHODS[other]:
            raise UnlearnkitError(
                f"{method} is a method for {other} models and this problem is one of {modality}; its methods are "
                f"{', '.join(sorted(METHODS[modality]))}."
            )
    elif not isinstance(method, Method):
        raise UnlearnkitError(f"method = {type(method).__name__} object is not possible; give a method or its name.")
    cls = METHODS[modality][method] if isinstance(method, str) else type(method)
    own = {key: value for key, value in settings.items() if key in cls.model_fields}
    rest = {key: value for key, value in settings.items() if key not in own}
    if hasattr(cls, "apply") and rest:
        shown = ", ".join(cls.model_fields) or "none"
        raise UnlearnkitError(f"{cls.__name__} takes no step and has no setting '{min(rest)}'; its settings: {shown}.")
    for key in rest:
        if key not in Loop.model_fields:
            raise unknown(f"setting of {cls.__name__}", key, [*cls.model_fields, *Loop.model_fields])
    try:
        chosen = cls(**own) if isinstance(method, str) else cls(**{**method.model_dump(exclude_unset=True), **own})
        loop = Loop(**{**cls.loop, **rest})
    except ValidationError as error:
        first = error.errors()[0]
        raise UnlearnkitError(
            f"setting '{'.'.join(map(str, first['loc']))}' of {cls.__name__} can't be {first['input']!r}: "
            f"{first['msg']}."
        ) from error
    _ = BALANCES[loop.balance], loop.mask and MASKS[loop.mask]  # an unknown name raises before any work
    return chosen, loop
