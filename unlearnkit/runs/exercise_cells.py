"""The exercises of a notebook as its cells, its solutions file and its checks have them; nothing is imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearnkit.paths import notebooks_dir
from unlearnkit.runs.plan import PACKAGE, source_of

FOLDED = re.compile(r"<details><summary>Solution</summary>.*?</details>", re.DOTALL)
STATED = re.compile(
    r"\*\*(?P<number>\d\d\.\d) · (?P<title>[^*]+)\*\* "
    r"\((?:difficulty )?(?P<difficulty>[●○]+), (?:importance )?(?P<importance>[●○]+), (?P<minutes>\d+) minutes\)"
)


@dataclass(frozen=True)
class Exercise:
    """The head of an exercise: `number` such as "02.1", `difficulty` and `importance` as ●●○."""

    number: str
    title: str
    difficulty: str
    importance: str
    minutes: int


def exercises_of(notebook: Mapping[str, Any]) -> list[Exercise]:
    """The exercises that a notebook states, in order."""
    texts = [source_of(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    found = [match for text in texts for match in STATED.finditer(text)]
    return [Exercise(m["number"], m["title"], m["difficulty"], m["importance"], int(m["minutes"])) for m in found]


def solutions_of(path: Path) -> dict[str, str]:
    """Exercise number → its solution as code that runs by itself; the file lies beside the notebook or the series."""
    places = (folder / "solutions" / f"{path.name[:2]}.py" for folder in (path.parent, notebooks_dir()))
    source = next((place for place in places if place.is_file()), None)
    if source is None:
        return {}
    code = source.read_text("utf-8")
    nodes = ast.parse(code).body
    imports = "\n".join(
        str(ast.get_source_segment(code, node)) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)
    )
    return {
        node.name.removeprefix("solution_").replace("_", "."): f"{imports}\n\n\n{text}".strip()
        for node in nodes
        if isinstance(node, ast.FunctionDef) and (text := ast.get_source_segment(code, node))
    }


def hints_of(number: str) -> list[str]:
    """What the check of an exercise says of typical mistakes, values as …, then why it asks what it asks."""
    source = PACKAGE / "exercises" / f"nb{number[:2]}.py"
    if not source.is_file():
        return []
    for node in ast.parse(source.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef) and any(_files(mark, number) for mark in node.decorator_list):
            returns = sorted((n for n in ast.walk(node) if isinstance(n, ast.Return)), key=lambda n: n.lineno)
            said = [text for part in returns for text in _sentences(part.value)]
            return list(dict.fromkeys([text for text in said if _tells(text)] + list(_reasons(node))))
    return []


def _files(mark: ast.expr, number: str) -> bool:
    return isinstance(mark, ast.Call) and [a.value for a in mark.args if isinstance(a, ast.Constant)] == [number]


def _sentences(value: ast.expr | None) -> Iterator[str]:
    if isinstance(value, ast.IfExp):
        yield from (*_sentences(value.body), *_sentences(value.orelse))
    elif isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.JoinedStr):
        parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in value.values]
        yield "".join(parts)


def _tells(text: str) -> bool:
    """Whether a sentence says something without its values."""
    return len(text.split()) - 3 * text.count("…") >= 3


def _reasons(check: ast.FunctionDef) -> Iterator[str]:
    """The last word of each case of a check, where that is a reason rather than an answer."""
    for node in ast.walk(check):
        last = node.elts[-1] if isinstance(node, ast.Tuple) and len(node.elts) >= 2 else None
        if isinstance(last, ast.Constant) and isinstance(last.value, str) and last.value.count(" ") >= 2:
            yield last.value
