"""Which tests pin a method: found in the source of the tests, without running them."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

VERBS = {
    "unlearn",
    "configure_method",
    "METHODS",
    "method",
    "method_card",
    "make",
}  # beside them a name is a method's


@dataclass(frozen=True)
class Pins:
    """Ids of tests, ``file::function``: those that name the method, and those that run for every registered one."""

    named: tuple[str, ...]
    shared: tuple[str, ...]


@dataclass(frozen=True)
class _Test:
    id: str
    words: frozenset[str]  # text constants in it and in the constants of its file that it uses
    names: frozenset[str]  # identifiers, likewise
    imported: frozenset[str]  # those of them that come from unlearnkit.methods
    over: frozenset[str]  # kinds whose whole registry it is parametrised over


def pins(kind: str, name: str) -> Pins:
    """The tests beside this checkout that are about a built-in method; none in an installation without tests.

    None of another one: the tests of this checkout have never seen a method that somebody registered.

    A test names a method when it uses its class or a function of its file, or has its registered name beside a verb
    such as `unlearn`.
    """
    from unlearnkit.methods import METHODS

    cls = METHODS[kind][name]
    if not cls.__module__.startswith("unlearnkit.methods."):
        return Pins((), ())
    own = {cls.__name__, *_functions(cls)}
    named, shared = [], []
    for test in _tests():
        if own & test.imported or (name in test.words and VERBS & test.names and _branch(test, kind)):
            named.append(test.id)
        elif kind in test.over:
            shared.append(test.id)
    return Pins(tuple(named), tuple(shared))


def _functions(cls: type) -> set[str]:
    """Public functions and classes defined in the file of a method."""
    module = inspect.getmodule(cls)
    return {
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and getattr(thing, "__module__", "") == cls.__module__ and callable(thing)
    }


def _branch(test: _Test, kind: str) -> bool:
    """Some names are methods of both branches: then the file, or a word in the test, says which."""
    picture = "image" in test.id or "pipeline" in test.id or "image" in test.words or "canvas" in test.words
    return picture == (kind == "image")


@lru_cache(maxsize=1)
def _tests() -> tuple[_Test, ...]:
    root = Path(__file__).resolve().parents[2] / "tests"
    found: list[_Test] = []
    for path in sorted(root.rglob("test_*.py")) if root.is_dir() else ():
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (OSError, ValueError, SyntaxError):
            continue
        found += _of_file(tree, path.relative_to(root.parent).as_posix())
    return tuple(found)


def _of_file(tree: ast.Module, file: str) -> Iterator[_Test]:
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    methods = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unlearnkit.methods")
        for alias in node.names
    }
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            used = list(_with_constants(node, constants, set()))
            over = {kind for part in node.decorator_list for kind in _registries(part, constants)}
            names = frozenset(map(_name, used)) - {""}
            yield _Test(
                f"{file}::{node.name}",
                frozenset(n.value for n in used if isinstance(n, ast.Constant) and isinstance(n.value, str)),
                names,
                names & methods,
                frozenset(over),
            )


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _with_constants(node: ast.AST, constants: Mapping[str, ast.expr], seen: set[str]) -> Iterator[ast.AST]:
    """All nodes, and those of the file's constants that are referred to."""
    for child in ast.walk(node):
        yield child
        if isinstance(child, ast.Name) and child.id in constants and child.id not in seen:
            seen.add(child.id)
            yield from _with_constants(constants[child.id], constants, seen)


def _registries(node: ast.AST, constants: Mapping[str, ast.expr]) -> Iterator[str]:
    """Kinds k of the METHODS[k] that an expression goes through."""
    for child in _with_constants(node, constants, set()):
        if (
            isinstance(child, ast.Subscript)
            and _name(child.value) == "METHODS"
            and isinstance(child.slice, ast.Constant)
        ):
            yield str(child.slice.value)
