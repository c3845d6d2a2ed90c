"""The specification of a sweep, as YAML says it: a grid or a search, checked before any work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from unlearnkit.errors import UnlearnkitError
from unlearnkit.runs.parameters import Scalar

MOST = 100_000  # runs of a grid: each is checked before the first begins


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    fixed: dict[str, Scalar] = {}  # parameter → value, the same in every run
    resources: dict[str, Annotated[float, Field(gt=0)]] = {}  # Dask resources a run takes, such as {GPU: 1}


class Grid(_Spec):
    """Every combination of the listed values: `grid` is parameter → values."""

    grid: dict[str, list[Scalar]] = Field(min_length=1)

    @model_validator(mode="after")
    def _values(self) -> Grid:
        for name, values in self.grid.items():
            if not values:
                raise ValueError(f"'{name}' has no values; list at least one")
            if name in self.fixed:
                raise ValueError(f"'{name}' is both fixed and in the grid; take it out of one")
        if (count := prod(map(len, self.grid.values()))) > MOST:
            raise ValueError(f"a grid of {count:,} runs is too large; list fewer values, {MOST:,} combinations at most")
        return self

    def __iter__(self) -> Iterator[dict[str, Scalar]]:  # type: ignore[override]
        for values in product(*self.grid.values()):
            yield {**self.fixed, **dict(zip(self.grid, values, strict=True))}


class Range(BaseModel):
    """Numbers from `low` to `high`; whole ones when both ends are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _ends(self) -> Range:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"low {self.low:g}, high {self.high:g}: low must be below high, and above 0 with log")
        return self


class Objective(BaseModel):
    """A number of a run: the mean of `column` over the rows of its scores.csv where all of `where` hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    where: dict[str, Scalar] = {}
    direction: Literal["minimize", "maximize"]


class Search(_Spec):
    """Two objectives, searched by Optuna: `space` is parameter → a list of choices, or {low, high, log}."""

    space: dict[str, list[Scalar] | Range] = Field(min_length=1)
    objectives: dict[str, Objective] = Field(min_length=2, max_length=2)
    seed: int = 0  # of the sampler
    storage: str = ""  # an Optuna storage URL; empty: a journal file among the runs

    @model_validator(mode="after")
    def _space(self) -> Search:
        for name, values in self.space.items():
            if not values:
                raise ValueError(f"'{name}' has no values; list at least one")
            if name in self.fixed:
                raise ValueError(f"'{name}' is both fixed and searched; take it out of one")
        return self


@dataclass(frozen=True)
class Point:
    """One run to be: the key its source knows it by, and its parameters."""

    key: int
    given: Mapping[str, Scalar]


class _Once(yaml.SafeLoader):
    """YAML in which a key given twice is a fault."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UnlearnkitError(f"'{twice[0]}' is given twice; keep one of them.")
        return super().construct_mapping(node, deep)


def _place(words: Any, fault: Mapping[str, Any]) -> str:
    """Where in the file a fault is: pydantic's steps to it without the names of types among them."""
    out = []
    for step in fault["loc"]:
        if isinstance(words, dict | list) and step in (words if isinstance(words, dict) else range(len(words))):
            words = words[step]
            out.append(str(step))
    return ".".join([*out, *([str(fault["loc"][-1])] if fault["type"] == "missing" else [])])


def digest_of_spec(spec: Grid | Search) -> str:
    return sha256(spec.model_dump_json().encode()).hexdigest()[:12]


def read_spec(path: Path | str, kind: Literal["grid", "search"]) -> Grid | Search:
    """The YAML of a sweep.

    Raises:
        UnlearnkitError: it can't be read, or has an unknown, missing or impossible entry.
    """
    path = Path(path)
    try:
        words = yaml.load(path.read_text("utf-8"), _Once)  # noqa: S506  # a SafeLoader
    except UnlearnkitError as error:
        raise UnlearnkitError(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UnlearnkitError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}.") from error
    except yaml.YAMLError as error:
        raise UnlearnkitError(f"{path} isn't YAML: {' '.join(str(error).split())}.") from error
    cls = Grid if kind == "grid" else Search
    if not isinstance(words, dict):
        raise UnlearnkitError(f"{path} holds no entries; a {kind} has {', '.join(cls.model_fields)}.")
    try:
        return cls(**{str(name): value for name, value in words.items()})
    except ValidationError as error:
        order = ["extra_forbidden", "value_error", "missing"]  # what says most first: a union complains for each member
        kinds = {found["type"]: found for found in reversed(error.errors())}
        first = next((kinds[kind] for kind in order if kind in kinds), error.errors()[0])
        where = _place(words, first)
        said = first["msg"].removeprefix("Value error, ")
        if first["type"] not in order:
            alike = [found["msg"] for found in error.errors() if _place(words, found) == where]
            said = " or ".join(dict.fromkeys([said, *(one.removeprefix("Input should be ") for one in alike[1:])]))
        raise UnlearnkitError(
            f"{path}: {where}{': ' * bool(where)}{said}; a {kind} has the entries {', '.join(cls.model_fields)}."
        ) from error
