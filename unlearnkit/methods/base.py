"""What a method is: its card, its settings, and a pure function from a model and a batch to two losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from unlearnkit.errors import unknown
from unlearnkit.registry import Registry


@dataclass(frozen=True)
class Card:
    """Where a method comes from and what is known of it."""

    title: str
    paper: str  # authors, year, arXiv id
    equation: str  # LaTeX of the forget objective
    defaults: str  # where the default settings come from
    failure: str  # its known failure


@dataclass
class Objectives:
    """The two losses to descend; either may be absent. `log` goes into the trace."""

    forget: Tensor | None = None
    retain: Tensor | None = None
    log: dict[str, float] = field(default_factory=dict)


@dataclass
class StepBatch:
    """What one step is given: a batch per view, and what `prepare` returned.

    `views["forget"]` and `views["retain"]` are always there; a method may add views (see `Method.views`).
    """

    views: dict[str, Any]
    reference: Any = None
    step: int = 0

    @property
    def forget(self) -> Any:
        return self.views["forget"]

    @property
    def retain(self) -> Any:
        return self.views["retain"]


class Method(BaseModel):
    """Base of every method; settings are fields, so unknown or ill-typed ones are refused.

    A gradient method gives `objectives`, and the loop minimises ``gamma·forget + alpha·retain``; a training-free
    one gives ``apply(problem, seed) -> model`` instead.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    card: ClassVar[Card | None] = None
    modality: ClassVar[Literal["text", "image"]] = "text"
    loop: ClassVar[dict[str, Any]] = {}  # settings of the loop tuned for the built-in world

    search: ClassVar[dict[str, Any]] = {}  # what tuning tries: (low, high) on a log scale, or a list of choices

    gamma: float = 1.0  # weight of the forget loss
    alpha: float = 1.0  # weight of the retain loss

    def views(self, problem: Any, seed: int) -> dict[str, list[tuple[str, str]]]:
        """Extra views of the data by name, record by record in step with the forget split."""
        return {}

    def trainable(self, model: nn.Module) -> list[str] | None:
        """Names of the parameters to train; None for all."""
        return None

    def lora_targets(self, model: nn.Module, names: list[str] | None) -> list[str] | str:
        """Modules that get a LoRA adapter: those of the trained parameters, or every linear layer."""
        return [n.removesuffix(".weight") for n in names] if names else "all-linear"

    def prepare(self, model: nn.Module, data: Any) -> Any:
        """Quantities of the original model that are needed at every step, computed once."""
        return None

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        """The losses on one batch: no optimiser, no state."""
        raise TypeError(f"{type(self).__name__} has no objectives(model, batch); a gradient method must give it")

    def finish(self, model: nn.Module, start: dict[str, Tensor]) -> None:
        """Last change to the trained model, in place; `start` holds the original weights when `needs_start`."""

    needs_start: ClassVar[bool] = False


METHODS: dict[str, Registry[type[Method]]] = {m: Registry(f"{m} method", Method) for m in ("text", "image")}


def register_method(name: str, modality: Literal["text", "image"] = "text") -> Any:
    """Decorator that files a method class; registered from a notebook cell it works everywhere at once."""
    if modality not in METHODS:
        raise unknown("modality", modality, METHODS)
    return METHODS[modality].register(name)
