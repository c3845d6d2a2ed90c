"""Notebook 03's exercises: solutions pass their checks, typical mistakes don't, the notebook shows that text."""

from __future__ import annotations

import ast
import json
import math
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import unlearnkit as uk

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "notebooks" / "solutions" / "03.py"
NUMBERS = ["03.1", "03.2", "03.3", "03.4", "03.5"]
SOLVED: dict[str, Callable[..., Any]] = {
    n: runpy.run_path(str(SOURCE))[f"solution_{n.replace('.', '_')}"] for n in NUMBERS
}


@pytest.mark.parametrize("number", NUMBERS)
def test_the_solution_passes(number: str, capsys: Any) -> None:
    assert uk.check(number, SOLVED[number])
    assert capsys.readouterr().out == f"{number}: right.\n"


@pytest.mark.parametrize("number", NUMBERS)
def test_a_stub_does_not_pass(number: str, capsys: Any) -> None:
    assert not uk.check(number, lambda *_: None)
    assert not uk.check(number, ...)
    assert capsys.readouterr().out == f"{number}: not solved yet.\n" * 2


def whole_scale(weight: Any, bits: int) -> Any:
    scale = weight.abs().max() / (2 ** (bits - 1) - 1)
    return (weight / scale).round() * scale


def unguarded(weight: Any, bits: int) -> Any:
    scale = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (weight / scale).round() * scale


WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("03.1", lambda after, oracle, original, floor: after / original, "0.5 of the 0.9"),
    ("03.1", lambda a, o, b, f: max(0.0, (a - o) / (b - o)), "negative"),
    ("03.1", lambda a, o, b, f: (a - o) / (b - o) if b != o else math.nan, "nothing to recover"),
    ("03.1", lambda a, o, b, f: math.nan if b - o <= f else (a - o) / (b - o), "on a loss"),
    ("03.2", whole_scale, "scale of its own"),
    ("03.2", lambda weight, bits: unguarded(weight, bits + 1), "steps from 0"),
    ("03.2", unguarded, "mind the division"),
    ("03.2", lambda weight, bits: 0.0, "a matrix"),
    ("03.3", lambda n, c, k: 1 - (1 - c / n) ** k, "with replacement"),
    ("03.3", lambda n, c, k: c / n, "hold a hit with probability"),
    ("03.4", lambda a, b: (SOLVED["03.4"](a, b) + 1) / 2, "ordered alike"),
    ("03.4", lambda a, b: -SOLVED["03.4"](a, b), "not"),
    ("03.5", lambda low, high, margin: "supported" if low <= 0 <= high else "contradicted", "and much else"),
    (
        "03.5",
        lambda low, high, m: "supported" if high <= m else "contradicted" if low > m else "undecided",
        "other way",
    ),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_a_mistake_is_named(number: str, answer: Callable[..., Any], hint: str, capsys: Any) -> None:
    assert not uk.check(number, answer)
    said = capsys.readouterr().out
    assert hint in said and "it stops with" not in said


def test_the_notebook_shows_the_solutions() -> None:
    source = SOURCE.read_text("utf-8")
    texts = [
        ast.get_source_segment(source, node) for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)
    ]
    cells = json.loads((ROOT / "notebooks" / "03_llm_limitations.ipynb").read_text("utf-8"))["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert re.findall(r"<details><summary>Solution</summary>\n\n```python\n(.*?)\n```", prose, re.DOTALL) == texts
    assert re.findall(r'uk\.check\("([\d.]+)"', code) == NUMBERS
