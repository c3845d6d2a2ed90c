"""The solutions of the exercises, as functions and as texts."""

from __future__ import annotations

import ast
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SOURCES = sorted((NOTEBOOKS / "solutions").glob("*.py"))


def texts(source: Path) -> dict[str, str]:
    """Exercise number, such as "02.1", → text of its solution."""
    code = source.read_text("utf-8")
    found = {node.name: node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
    return {
        name.removeprefix("solution_").replace("_", "."): str(ast.get_source_segment(code, node))
        for name, node in found.items()
    }


def solved(chapter: str) -> dict[str, Callable[..., Any]]:
    """Exercise number → solution, of the notebook whose name begins with `chapter`."""
    source = NOTEBOOKS / "solutions" / f"{chapter}.py"
    space = runpy.run_path(str(source))
    return {number: space[f"solution_{number.replace('.', '_')}"] for number in texts(source)}
