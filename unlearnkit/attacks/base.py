"""What an attack is: its card, what it needs access to, and per-question results for every budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict

from unlearnkit.errors import UnlearnkitError, unknown
from unlearnkit.registry import Registry

Curve = Iterator[tuple[float, pd.DataFrame]]  # (budget, a row a question)


@dataclass(frozen=True)
class AttackCard:
    """Where an attack comes from and what an attacker must hold for it."""

    title: str
    source: str  # paper and arXiv id
    access: Literal["questions", "sampling", "weights", "hidden states"]
    finds: str  # what a success says


class Attack(BaseModel):
    """Base of every attack; settings are fields.

    `curve` yields (budget, table): one row a question asked (index: id), one column a measure. Measures are
    `accuracy` (the value is in the answer), `option_accuracy` (the true answer is likelier than every wrong option)
    and `nll` (mean answer NLL, nats a token); an attack gives those that make sense for it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    card: ClassVar[AttackCard]
    modality: ClassVar[Literal["text", "image"]] = "text"
    unit: ClassVar[str]  # of the budget, as an axis label
    budgets: ClassVar[tuple[float, ...]]  # the default curve
    least: ClassVar[float] = 0  # smallest and largest budget that mean anything
    most: ClassVar[float] = math.inf
    whole: ClassVar[bool] = False  # budgets are counts
    identity: ClassVar[float | None] = 0  # the budget at which nothing is attacked; None: there is none
    higher_is_found: ClassVar[dict[str, bool]] = {"accuracy": True, "option_accuracy": True, "nll": False}

    def curve(
        self, problem: Any, model: Any, budgets: Sequence[float], seed: int
    ) -> Iterator[tuple[float, pd.DataFrame]]:
        """Results at each of `budgets`, in their order; the model is left as it was."""
        raise TypeError(f"{type(self).__name__} has no curve(problem, model, budgets, seed); an attack must give it")


ATTACKS: dict[str, Registry[type[Attack]]] = {m: Registry(f"{m} attack", Attack) for m in ("text", "image")}


def register_attack(name: str, modality: Literal["text", "image"] = "text") -> Any:
    """Decorator that files an attack class; registered from a notebook cell it works everywhere at once."""
    if modality not in ATTACKS:
        raise unknown("modality", modality, ATTACKS)

    def put(kind: type[Attack]) -> type[Attack]:
        missing = [part for part in ("card", "unit", "budgets") if not hasattr(kind, part)]
        if missing and isinstance(kind, type):
            raise UnlearnkitError(f"attack '{name}' lacks {', '.join(missing)}; give its class these (see Attack).")
        return ATTACKS[modality].register(name)(kind)

    return put
