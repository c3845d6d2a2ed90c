"""Notebook 02's exercises: solutions pass their checks, typical mistakes don't, the notebook shows that text."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import unlearnkit as uk

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "notebooks" / "solutions" / "02.py"
TEXTS = {
    node.name: ast.get_source_segment(SOURCE.read_text("utf-8"), node)
    for node in ast.parse(SOURCE.read_text("utf-8")).body
    if isinstance(node, ast.FunctionDef)
}
NUMBERS = ["02.1", "02.2", "02.3", "02.4", "02.5"]


@pytest.fixture(scope="module")
def solutions() -> dict[str, FunctionType]:
    space: dict[str, Any] = {}
    exec(compile(SOURCE.read_text("utf-8"), SOURCE.name, "exec"), space)
    return {name: thing for name, thing in space.items() if name.startswith("solution_")}


@pytest.mark.parametrize("number", NUMBERS)
def test_the_solution_passes(number: str, solutions: dict[str, FunctionType], capsys: Any) -> None:
    assert uk.check(number, solutions[f"solution_{number.replace('.', '_')}"])
    assert capsys.readouterr().out == f"{number}: right.\n"


@pytest.mark.parametrize("number", NUMBERS)
def test_a_stub_does_not_pass(number: str, capsys: Any) -> None:
    assert not uk.check(number, lambda *_: None)
    assert not uk.check(number, ...)
    assert capsys.readouterr().out == f"{number}: not solved yet.\n" * 2


WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("02.1", lambda nll, before, beta: -2 / beta * F.logsigmoid(beta * (before - nll)).mean(), "turned round"),
    ("02.1", lambda nll, before, beta: -2 / beta * F.logsigmoid(beta * (nll - before)).sum(), "mean over sequences"),
    ("02.1", lambda nll, before, beta: -1 / beta * F.logsigmoid(beta * (nll - before)).mean(), "the loss is"),
    ("02.2", lambda nll, before, beta: torch.sigmoid(-beta * (nll - before)), "2σ"),
    ("02.2", lambda nll, before, beta: torch.sigmoid(-beta * (nll - before)).mean(), "one weight a sequence"),
    ("02.3", lambda before, now: F.kl_div(before.log_softmax(-1), now.softmax(-1), reduction="batchmean"), "p₀"),
    (
        "02.3",
        lambda before, now: F.kl_div(now.log_softmax(-1), before.softmax(-1), reduction="sum"),
        "mean over tokens",
    ),
    ("02.4", lambda now, before, labels, beta: F.cross_entropy(now, before.softmax(-1)), "only the label's logit"),
    (
        "02.4",
        lambda now, before, labels, beta: F.cross_entropy(now, (now - beta * F.one_hot(labels, 3)).softmax(-1)),
        "the original's logits",
    ),
    ("02.5", lambda nll, lengths, level: -nll.mean(), "pulled back"),
    ("02.5", lambda nll, lengths, level: F.relu(level - nll / lengths).mean(), "pulled back"),
    ("02.5", lambda nll, lengths, level: (nll / lengths - level).square().mean(), "as steep as ascent"),
    ("02.5", lambda nll, lengths, level: (nll - level).abs().mean(), "mean NLL"),
    ("02.5", lambda nll, lengths, level: (nll / lengths - level).abs(), "a scalar"),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_a_mistake_is_named(number: str, answer: Callable[..., Any], hint: str, capsys: Any) -> None:
    assert not uk.check(number, answer)
    assert hint in capsys.readouterr().out


def test_the_notebook_shows_the_solutions() -> None:
    cells = json.loads((ROOT / "notebooks" / "02_llm_unlearning.ipynb").read_text("utf-8"))["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    shown = re.findall(r"<details><summary>Solution</summary>\n\n```python\n(.*?)\n```", prose, re.DOTALL)
    assert shown == [TEXTS[f"solution_{number.replace('.', '_')}"] for number in NUMBERS]
    asked = [
        number
        for cell in cells
        if cell["cell_type"] == "code"
        for number in re.findall(r'uk\.check\("([\d.]+)"', "".join(cell["source"]))
    ]
    assert asked == NUMBERS
