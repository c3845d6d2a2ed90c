"""One truth about packages: pyproject has ranges, constraints exact versions, environment.yml repeats neither."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
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
SUPPORTED = Requirement(f"python{PROJECT['requires-python']}").specifier
README = (ROOT / "README.md").read_text("utf-8")
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
    """It has Python and pip alone from conda; all else is pyproject's, at the versions of the constraints."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    python, *others, last = environment["dependencies"]
    minor = re.fullmatch(r"python=(3\.\d+)", python)  # with >= repo2docker would take a Python of its own
    assert minor and SUPPORTED.contains(f"{minor[1]}.0") and others == ["pip"]
    assert last == {"pip": ["-c constraints.txt", "-e .[test]"]}


def test_python_versions_agree() -> None:
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    lowest, beyond = (bound.version for bound in sorted(SUPPORTED, key=lambda bound: bound.operator, reverse=True))
    assert lint["mypy"]["python_version"] == lowest and lint["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"
    highest = f"{beyond.split('.')[0]}.{int(beyond.split('.')[1]) - 1}"
    assert f"Python {lowest}–{highest}" in README


def test_every_dependency_has_a_lower_bound_and_is_named_once() -> None:
    for asked in ASKED:
        operators = {bound.operator for bound in asked.specifier}
        assert operators <= {">=", "!="} and (">=" in operators or asked.name.startswith("types-")), str(asked)
    names = [canonicalize_name(asked.name) for asked in ASKED]
    assert len(names) == len(set(names))


def test_what_the_package_imports_is_a_dependency() -> None:
    """Every top-level import of ours is of the standard library, ours, a dependency, or guarded as optional."""
    declared = {canonicalize_name(asked.name) for asked in ASKED}
    optional = {canonicalize_name(Requirement(line).name) for lines in EXTRAS.values() for line in lines}
    where = packages_distributions()
    foreign = {}
    for path in (ROOT / "unlearnkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            found = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            found += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            foreign |= {str(name).partition(".")[0]: path.name for name in found}
    ours = {*sys.stdlib_module_names, "unlearnkit"}
    missing = {
        name: path
        for name, path in foreign.items()
        if name not in ours and not {canonicalize_name(d) for d in where.get(name, [name])} & (declared | optional)
    }
    assert not missing, f"pyproject.toml does not ask for {missing}"


def test_the_readme_says_which_versions_were_run() -> None:
    """The pins of the main libraries, and of the oldest set pyproject's own bounds."""
    section = README.partition("## Versions")[2].partition("\n## ")[0]
    for name in ("torch", "transformers", "diffusers"):
        (pin,) = PINS[name]
        assert f"{name} {pin.version}" in section, f"{name} is pinned at {pin.version}"
        bound = next(str(next(iter(asked.specifier)).version) for asked in ASKED if asked.name == name)
        assert f"{name} {bound}" in section or name == "torch", f"{name} is asked for from {bound} on"


def test_this_python_is_supported() -> None:
    assert SUPPORTED.contains(sys.version.split()[0])
