"""The ledger of claims, `data/claims.yml`: what is claimed, by whom, and the rule, fixed beforehand, that decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from unlearnkit.errors import UnlearnkitError, unknown
from unlearnkit.paths import data_dir

Word = str | int | float | bool | None


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rows(_Entry):
    """Rows of scores.csv, by its columns."""

    experiment: str
    measure: str
    who: Literal["unlearned", "original", "oracle"] = "unlearned"  # oracle: all of them, the mean and their spread
    method: str | None = None  # None: each method that ran; rows of original and oracles belong to all of them
    budget: FiniteFloat | Literal["first", "last"] | None = None  # first, last: the smallest, the largest there is


class Effect(_Entry):
    """The sum of `plus` minus the sum of `minus`, held against `margin`."""

    plus: list[Rows | FiniteFloat] = Field(min_length=1)
    minus: list[Rows | FiniteFloat] = []
    margin: FiniteFloat
    unit: str
    across: Literal["mean", "some", "every"] = "mean"  # of the methods that ran

    @property
    def rows(self) -> list[Rows]:
        return [term for term in (*self.plus, *self.minus) if isinstance(term, Rows)]


class Claim(_Entry):
    """One claim with its source, the runs that test it, and the rule that decides."""

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    branch: Literal["text", "image"]
    kind: Literal["efficacy", "side effect", "measurement"]
    statement: str
    source: str
    notebook: str
    needs: dict[str, Word | list[Word]] = {}  # parameter → the value, or one of the values, a run must have
    effect: Effect


class Ledger(_Entry):
    """All claims. `fixed`: when the rules were; `profiles`: those whose runs count."""

    fixed: Any
    profiles: list[str] = Field(min_length=1)
    claims: list[Claim]


def read_ledger(path: Path | None = None) -> Ledger:
    """The ledger, by default the project's.

    Raises:
        UnlearnkitError: it isn't YAML, or an entry is wrong; names file, line and claim.
    """
    path = path or data_dir() / "claims.yml"
    try:
        text = path.read_text("utf-8")
        found, nodes = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UnlearnkitError(f"{path.name} can't be read as YAML: {' '.join(str(error).split())[:200]}.") from error
    if not isinstance(found, dict):
        raise UnlearnkitError(f"{path.name} must be a mapping with fixed, profiles and claims.")
    try:
        ledger = Ledger.model_validate(found)
    except ValidationError as error:
        raise UnlearnkitError(_located(path.name, nodes, found, error)) from error
    ids = [claim.id for claim in ledger.claims]
    if twice := sorted({one for one in ids if ids.count(one) > 1}):
        raise UnlearnkitError(f"{path.name} has two claims with the id '{twice[0]}'; give each an id of its own.")
    return ledger


def _located(name: str, node: Any, found: Mapping[str, Any], error: ValidationError) -> str:
    """The complaint that leads deepest into the file, as one sentence with its line."""
    first = max(error.errors(), key=lambda e: (len(e["loc"]), e["type"] == "extra_forbidden"))
    place: list[str | int] = []
    for step in first["loc"]:  # pydantic also names the branches of a union, which the file doesn't have
        inner: Any = None
        if isinstance(node, yaml.MappingNode):
            at_key = first["type"] == "extra_forbidden" and step == first["loc"][-1]
            inner = next((k if at_key else v for k, v in node.value if k.value == step), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            inner = node.value[step]
        if inner is not None:
            node = inner
            place.append(step)
    where = f"{name}, line {node.start_mark.line + 1}"
    if len(place) > 1 and place[0] == "claims":
        entry = found["claims"][place[1]]
        label = f"'{entry['id']}'" if isinstance(entry, dict) and "id" in entry else f"{int(place[1]) + 1}"
        where += f", claim {label}"
    last = str(first["loc"][-1])
    if first["type"] == "extra_forbidden":
        return f"{where}: {unknown('key', last, list(_model_at(place).model_fields))}"
    if first["type"] == "missing":
        return f"{where}: '{last}' is missing; add it."
    return f"{where}: '{place[-1] if place else last}' is {str(first['input'])[:60]!r}; {first['msg'].lower()}."


def _model_at(place: Sequence[Any]) -> type[BaseModel]:
    if "plus" in place or "minus" in place:
        return Rows
    if "effect" in place:
        return Effect
    return Claim if "claims" in place else Ledger
