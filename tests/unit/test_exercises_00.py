"""Notebook 00's exercises: typical mistakes are named; solutions agree with the package. Its links lead somewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from solved import NOTEBOOKS, solved

import unlearnkit as uk
from unlearnkit.robustness import card_rows
from unlearnkit.runs.plan import series

SOLVED = solved("00")
WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("00.1", lambda a, u, o: (u - o) / (a - o), "a model that overshot is as far away"),
    ("00.1", lambda a, u, o: 1 - abs(u - o) / abs(a - o), "the share of the way"),
    ("00.1", lambda a, u, o: abs(u - o), "divide by the distance of the original"),
    ("00.1", lambda a, u, o: 7.0, "it is 0.500, not 7.0"),
    ("00.2", lambda a, os: max(abs(o - os[0]) for o in os), "in the unit of the gap"),
    ("00.2", lambda a, os: sum(abs(o - os[0]) for o in os[1:]) / len(os[1:]) / abs(a - os[0]), "not their mean"),
    ("00.2", lambda a, os: 9.0, "it is 0.200, not 9.0"),
    ("00.3", lambda low, os: low > os[0], "oracles differ among themselves"),
    ("00.3", lambda low, os: low < os[0], "the answer is True, not False"),
    ("00.3", lambda low, os: low > 0.9, "the answer is True, not False"),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_a_mistake_is_named(number: str, answer: Callable[..., Any], hint: str, capsys: Any) -> None:
    assert not uk.check(number, answer)
    assert hint in capsys.readouterr().out


def row_of(who: str, budget: float, value: float, low: float) -> dict[str, Any]:
    return {"attack": "x", "who": who, "budget": budget, "measure": "accuracy", "value": value, "low": low,
            "high": value, "n": 9}  # fmt: skip


@given(st.floats(0.0, 1.0), st.lists(st.floats(0.0, 0.5), min_size=2, max_size=4))
def test_what_came_back_is_what_the_robustness_card_finds(low: float, oracles: Sequence[float]) -> None:
    """Exercise 00.3 is the card's rule; the original, at 2, is far from every oracle."""
    rows = [row_of("unlearned", b, b, low * b) for b in (0, 1)] + [row_of("original", b, 2, 2) for b in (0, 1)]
    for k, value in enumerate(oracles):
        rows += [row_of("oracle" if k == 0 else f"oracle {k + 1}", b, value, value) for b in (0, 1)]
    kind: Any = SimpleNamespace(higher_is_found={}, identity=0, unit="steps")
    (row,) = card_rows(pd.DataFrame(rows), kind)
    assert row["found"] == SOLVED["00.3"](low, list(oracles))


def cells(name: str, kind: str) -> str:
    notebook = json.loads((NOTEBOOKS / name).read_text("utf-8"))
    return "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind)


def test_the_map_names_every_notebook_and_its_links_lead_there() -> None:
    """Relative links, which JupyterLab and GitHub both follow."""
    prose = cells("00_start_here.ipynb", "markdown")
    mapped = re.findall(r"^\| \[(\d\d) · [^]]+\]\(([^)]+)\)", prose, re.MULTILINE)
    known = {path.name for path in series()}
    assert known - {name for _, name in mapped} == {"00_start_here.ipynb"}
    drawn = set(re.findall(r'"(\d\d)": \(', cells("00_start_here.ipynb", "code")))
    assert drawn == {number for number, _ in mapped} | {"00"}
    for name in re.findall(r"\]\((?!https?:)([^)#]+)\)", prose + cells("09_your_model.ipynb", "markdown")):
        assert (NOTEBOOKS / name).is_file() and not Path(name).is_absolute(), name


def test_the_first_figure_comes_before_anything_is_trained() -> None:
    code = cells("00_start_here.ipynb", "code")
    assert 0 < code.index("run.figure(") < code.index("uk.unlearn(")
    assert code.index("run.figure(") < code.index('load_problem("authors"')
