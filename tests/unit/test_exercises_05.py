"""Notebook 05's exercises: solutions pass their checks, typical mistakes don't, the notebook shows that text."""

from __future__ import annotations

import ast
import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unlearnkit as uk

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "notebooks" / "solutions" / "05.py"
NUMBERS = ["05.1", "05.2", "05.3", "05.4"]
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


def strict(a: Any, b: Any, statistic: Any, draws: int, rng: Any) -> float:
    both, observed = np.concatenate([a, b]), statistic(a, b)
    mixed = [rng.permutation(both) for _ in range(draws)]
    return (1 + sum(statistic(m[: len(a)], m[len(a) :]) > observed for m in mixed)) / (1 + draws)


def without_observed(a: Any, b: Any, statistic: Any, draws: int, rng: Any) -> float:
    both, observed = np.concatenate([a, b]), statistic(a, b)
    mixed = [rng.permutation(both) for _ in range(draws)]
    return float(np.mean([statistic(m[: len(a)], m[len(a) :]) >= observed for m in mixed]))


WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("05.1", lambda n, alpha: alpha ** (1 / n), "the other share"),
    ("05.1", lambda n, alpha: 3 / n, "rule of thumb"),
    ("05.2", lambda edited, value: edited.T @ value, "another state comes closer"),
    ("05.2", lambda edited, value: torch.zeros(3), "a state of shape"),
    (
        "05.2",
        lambda edited, value: (
            torch.linalg.pinv(edited) @ value
            + (torch.tensor([1.0, -1.0]) if len(edited) == 1 else torch.zeros(edited.shape[1]))
        ),
        "a shorter state",
    ),
    ("05.3", lambda null, prompts, weights: null + (weights.reshape(-1, 1, 1) * prompts).sum(0), "a difference"),
    (
        "05.3",
        lambda null, prompts, weights: null + (weights.reshape(-1, 1, 1) * (prompts - null)).sum(0),
        "it stops with",
    ),
    ("05.4", without_observed, "can't be 0"),
    ("05.4", strict, "about"),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_a_mistake_is_named(number: str, answer: Callable[..., Any], hint: str, capsys: Any) -> None:
    assert not uk.check(number, answer)
    assert hint in capsys.readouterr().out


def test_the_notebook_shows_the_solutions() -> None:
    source = SOURCE.read_text("utf-8")
    texts = [
        ast.get_source_segment(source, node) for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)
    ]
    cells = json.loads((ROOT / "notebooks" / "05_diffusion_limitations.ipynb").read_text("utf-8"))["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert re.findall(r"<details><summary>Solution</summary>\n\n```python\n(.*?)\n```", prose, re.DOTALL) == texts
    assert re.findall(r'uk\.check\("([\d.]+)"', code) == NUMBERS
