"""One truth about packages: pyproject has ranges, constraints exact versions, environment.yml repeats neither."""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = (line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
PINS = {canonicalize_name(pin.name): pin.specifier for pin in (Requirement(line) for line in LINES if line)}
EXTRAS = PROJECT["optional-dependencies"]
ASKED = [Requirement(line) for line in (*PROJECT["dependencies"], *EXTRAS["test"], *EXTRAS["dev"])]


def test_every_pin_is_one_public_version() -> None:
    for name, specifier in PINS.items():
        (only,) = specifier
        assert only.operator == "==" and "*" not in only.version and "+" not in only.version, name


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_a_dependency_is_pinned_within_its_range(asked: Requirement) -> None:
    (pin,) = PINS[canonicalize_name(asked.name)]
    assert asked.specifier.contains(pin.version, prereleases=True)


def test_constraints_are_complete() -> None:
    todo, seen = list(ASKED), set()
    while todo:
        asked = todo.pop()
        key = (canonicalize_name(asked.name), frozenset(asked.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            needs = [Requirement(line) for line in requires(asked.name) or []]
        except PackageNotFoundError:
            continue
        for need in needs:
            extras = asked.extras or {""}
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(need)
    cuda = ("nvidia-", "triton", "cuda-")  # pinned by torch itself
    assert {name for name, _ in seen if not name.startswith(cuda)} - set(PINS) == set()


def test_environment_yml_agrees() -> None:
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert [entry for entry in entries if isinstance(entry, str)] == [
        f"python{PROJECT['requires-python']}",
        "pip",
    ]
    (pip,) = (entry["pip"] for entry in entries if isinstance(entry, dict))
    assert pip == ["-c constraints.txt", "-e .[test]"]


def test_this_python_is_supported() -> None:
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(sys.version.split()[0])
