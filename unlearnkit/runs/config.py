"""The parameters of a notebook, declared in one cell, completed by a profile, validated, and then immutable."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

from unlearnkit.errors import UnlearnkitError, unknown
from unlearnkit.paths import notebooks_dir
from unlearnkit.runs.parameters import ALLOWED, Scalar, check, declared, spelled

NEEDS = ("seconds", "memory_gb", "disk_gb", "gpu_memory_gb")


@dataclass(frozen=True, repr=False)
class Config:
    """Every resolved parameter of a run, readable as attributes: ``config.steps``.

    Attributes:
        notebook: name of the notebook, its file's stem.
        profile: smoke, quick, full, gpu, or one of your own in ``profiles/``.
        values: parameter → value, in the order of declaration.
        needs: what the profile says a run takes: ``seconds``, ``memory_gb``, ``disk_gb``, ``gpu_memory_gb``.
    """

    notebook: str
    profile: str
    values: Mapping[str, Scalar]
    needs: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("values", "needs"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("values", {})
        if name in values:
            return values[name]
        raise AttributeError(str(unknown("parameter", name, values)))

    def __reduce__(self) -> tuple[Any, ...]:  # a read-only mapping can't be pickled
        return Config, (self.notebook, self.profile, dict(self.values), dict(self.needs))

    def __repr__(self) -> str:
        head = f"{self.notebook}, profile {self.profile}"
        return "\n".join([head, *(f"  {name} = {value!r}" for name, value in self.values.items())])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(repr(value))}</td></tr>"
            for name, value in self.values.items()
        )
        needs = ", ".join(f"{escape(name)} {value:g}" for name, value in self.needs.items()) or "not stated"
        caption = f"{escape(self.notebook)}, profile {escape(self.profile)} (needs: {needs})"
        return f"<table><caption>{caption}</caption><tbody>{rows}</tbody></table>"


def configure(namespace: Mapping[str, Any], notebook: str) -> Config:
    """The validated configuration of a running notebook; the cell after the parameters calls it with ``globals()``.

    Args:
        notebook: the notebook's name, under which the profiles file its values.

    Raises:
        UnlearnkitError: a parameter is unknown or ill-typed, the profile is unknown or broken.
    """
    cells = [cell for cell in namespace.get("In", []) if isinstance(cell, str)]
    known = {name: spelled(kind) for name, kind in namespace.get("__annotations__", {}).items()}
    types = {name: kind for name, kind in known.items() if kind in ALLOWED}
    for source in reversed(cells):  # the parameters cell as it was last executed
        if re.search(r"^profile\s*:", source, re.MULTILINE):
            types = {name: kind for name, (kind, _) in declared(source).items()}
            break
    for name in _injected(cells):
        if name not in types:
            raise unknown("parameter", name, types)
    if gone := [name for name in types if name not in namespace]:
        raise UnlearnkitError(f"parameter '{gone[0]}' was deleted; execute the parameters cell again.")
    return resolve(types, {name: namespace[name] for name in types}, notebook, notebooks_dir())


def resolve(types: Mapping[str, str], values: Mapping[str, Any], notebook: str, folder: Path) -> Config:
    """Validate given values and fill those that are None from the profile.

    Args:
        types: parameter → one of `ALLOWED`.
        values: parameter → given value or default; a parameter that is missing counts as None.
        folder: where ``profiles/`` lies.

    Raises:
        UnlearnkitError: a parameter is unknown or ill-typed, the profile is unknown or broken.
    """
    for name in values:
        if name not in types:
            raise unknown("parameter", name, types)
    if types.get("profile") != "str":
        raise UnlearnkitError(f'{notebook} declares no profile; add `profile: str = "quick"` to its parameters.')
    checked = {name: check(name, types[name], values.get(name), notebook) for name in types}
    profile = str(checked["profile"])
    needs = needs_of(notebook, profile, folder)
    section = dict(read_profile(profile, folder).get(notebook) or {})
    section.pop("needs", None)
    for name, value in section.items():
        where = f"profile '{profile}' of {notebook}"
        if name not in types:
            raise UnlearnkitError(f"{where}: {unknown('parameter', name, types)}")
        if not types[name].startswith("Optional["):
            open_ = f"{name}: Optional[{types[name]}] = None"
            raise UnlearnkitError(f"{where} sets '{name}', which the notebook doesn't leave open; declare `{open_}`.")
        if isinstance(value, str) and "float" in types[name]:
            with suppress(ValueError):  # YAML 1.1 takes 1e-4 for text
                value = float(value)
        value = check(name, types[name], value, where)
        if checked[name] is None:
            checked[name] = value
    return Config(notebook, profile, checked, needs)


def profiles(folder: Path) -> list[str]:
    """Names of the profiles in a folder of notebooks."""
    return sorted(path.stem for path in (folder / "profiles").glob("*.yml"))


def read_profile(name: str, folder: Path) -> dict[str, Any]:
    """Notebook → its section of a profile.

    Raises:
        UnlearnkitError: no such profile, not YAML, or not a mapping of mappings.
    """
    known = profiles(folder)
    if name not in known:  # also whatever would lead out of the folder
        raise unknown("profile", name, known)
    path = folder / "profiles" / f"{name}.yml"
    return deepcopy(_parsed(path, path.stat().st_mtime_ns, path.stat().st_size))


@lru_cache(maxsize=64)  # a sweep and the doctor read the same few files hundreds of times
def _parsed(path: Path, time_ns: int, size: int) -> dict[str, Any]:
    import yaml

    name = path.stem
    try:
        found = yaml.safe_load(path.read_text("utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UnlearnkitError(f"profile '{name}' is not plain YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(found, dict) or not all(isinstance(part, dict | None) for part in found.values()):
        raise UnlearnkitError(f"profile '{name}' must map each notebook to its values, as `01_name: {{steps: 5}}`.")
    return found


def needs_of(notebook: str, profile: str, folder: Path) -> dict[str, float]:
    """What a profile says a notebook needs; empty when it says nothing.

    Raises:
        UnlearnkitError: the profile is unknown or broken, a need isn't one of `NEEDS`, or isn't a number.
    """
    given = (read_profile(profile, folder).get(notebook) or {}).get("needs") or {}
    where = f"needs of {notebook} in profile '{profile}'"
    if not isinstance(given, dict):
        raise UnlearnkitError(f"{where} are {given!r}; expected a mapping of {', '.join(NEEDS)}.")
    for name in given:
        if name not in NEEDS:
            raise UnlearnkitError(f"{where}: {unknown('need', name, NEEDS)}")
    return {name: float(check(name, "float", value, where) or 0) for name, value in given.items()}


def _injected(cells: list[str]) -> Iterator[str]:
    """Names that papermill assigned, which only warns when nothing declares them."""
    for source in cells:
        if source.startswith("# Parameters\n"):
            for line in ast.parse(source).body:
                if isinstance(line, ast.Assign):
                    yield from (target.id for target in line.targets if isinstance(target, ast.Name))
