"""Exercises of all notebooks: solutions pass their checks, stubs don't, the notebook shows and asks for just these."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from solved import NOTEBOOKS, SOURCES, solved, texts

import unlearnkit as uk

NUMBERS = [number for source in SOURCES for number in texts(source)]


def test_every_notebook_has_exercises() -> None:
    assert {s.stem for s in SOURCES} == {p.name[:2] for p in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")}
    assert all(3 <= len(texts(source)) <= 5 for source in SOURCES)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_solution_passes(number: str, capsys: Any) -> None:
    assert uk.check(number, solved(number[:2])[number])
    assert capsys.readouterr().out == f"{number}: right.\n"


@pytest.mark.parametrize("number", NUMBERS)
def test_a_stub_does_not_pass(number: str, capsys: Any) -> None:
    for stub in (lambda *_: None, ..., None):
        assert not uk.check(number, stub)
    assert capsys.readouterr().out == f"{number}: not solved yet.\n" * 3


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_the_notebook_shows_the_solutions(source: Path) -> None:
    (path,) = NOTEBOOKS.glob(f"{source.stem}_*.ipynb")
    cells = json.loads(path.read_text("utf-8"))["cells"]
    prose, code = (
        "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == kind) for kind in ("markdown", "code")
    )
    shown = re.findall(r"<details><summary>Solution</summary>\n\n```python\n(.*?)\n```", prose, re.DOTALL)
    assert shown == list(texts(source).values())
    assert re.findall(r'uk\.check\("([\d.]+)"', code) == list(texts(source))
