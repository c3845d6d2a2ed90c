"""One notebook of the series as students or instructors get it."""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearnkit.errors import UnlearnkitError
from unlearnkit.runs.exercise_cells import FOLDED, Exercise, exercises_of, hints_of, solutions_of
from unlearnkit.runs.plan import read_notebook, source_of

LONG = 15  # characters from which a line of a solution is nobody's coincidence
POINTER = "*The solution is with your instructor; the check below says in a sentence what is wrong.*"
Cell = dict[str, Any]


def variant(path: Path, audience: str, copied: Sequence[str]) -> dict[str, Any]:
    """One notebook as students or instructors get it; links to notebooks that are not `copied` become plain text.

    Raises:
        UnlearnkitError: it is no notebook, or a solution would be left in the students' copy.
    """
    notebook = copy.deepcopy(read_notebook(path))
    solutions = solutions_of(path)
    found = {exercise.number: exercise for exercise in exercises_of(notebook)}
    cells: list[Cell] = []
    for cell in notebook["cells"]:
        text = source_of(cell)
        if cell["cell_type"] == "markdown":
            text = unlinked(text, copied)
            if "## Exercises" in text:  # what the series says of its solutions isn't so in a copy
                text = re.sub(r" ?The solutions are folded\.", "", text)
            here = FOLDED.search(text) is not None
            cell["source"] = FOLDED.sub(POINTER if audience == "students" else "", text).rstrip() if here else text
        cells.append(cell)
        if "exercise" not in cell.get("metadata", {}).get("tags", []):
            continue
        cell |= {"outputs": [], "execution_count": None}
        number = re.search(r'uk\.check\("([\d.]+)"', text)
        if audience == "instructors" and number and number[1] in solutions:
            cells += _after(number[1], found.get(number[1]), solutions[number[1]])
    if audience == "instructors":
        first = next((i for i, cell in enumerate(cells) if cell["cell_type"] == "code"), len(cells))
        cells.insert(first, _markdown("notes-head", _head(notebook, list(found.values()))))
        notebook["metadata"].pop("unlearnkit", None)  # the stamp is that of other cells
    else:
        _without(cells, list(solutions.values()), path.name)
    notebook["cells"] = cells
    return notebook


def _after(number: str, exercise: Exercise | None, solution: str) -> list[Cell]:
    hints = "".join(f"\n- {hint}" for hint in hints_of(number))
    minutes = f"{exercise.minutes} minutes, difficulty {exercise.difficulty}. " if exercise else ""
    note = f"**Instructor's note on {number}.** {minutes}What the check looks for, and says (… is a value):\n{hints}"
    call = f'uk.check("{number}", solution_{number.replace(".", "_")});'
    cell: Cell = {"cell_type": "code", "id": f"solution-{number.replace('.', '-')}", "execution_count": None}
    about = {"tags": ["solution"], "slideshow": {"slide_type": "skip"}}
    cell |= {"metadata": about, "outputs": [], "source": f"{solution}\n\n\n{call}"}
    return [_markdown(f"notes-{number.replace('.', '-')}", note), cell]


def _markdown(name: str, text: str) -> Cell:
    about = {"tags": ["notes"], "slideshow": {"slide_type": "notes"}}
    return {"cell_type": "markdown", "id": name, "metadata": about, "source": text}


def _head(notebook: Mapping[str, Any], exercises: Sequence[Exercise]) -> str:
    seconds = notebook["metadata"].get("unlearnkit", {}).get("seconds")
    ran = (
        f" The profile `quick` ran for {seconds:.0f} s on two CPU cores; start it before the session."
        if seconds
        else ""
    )
    rows = "\n".join(f"| {e.number} {e.title} | {e.difficulty} | {e.importance} | {e.minutes} |" for e in exercises)
    table = f"\n\n| exercise | difficulty | importance | minutes |\n|---|---|---|---|\n{rows}" if rows else ""
    return f"**Instructor's note.** {sum(e.minutes for e in exercises)} minutes of exercises.{ran}{table}"


def _without(cells: Sequence[Cell], solutions: Sequence[str], name: str) -> None:
    """Drop outputs that hold a solution; what else holds one can't be blanked, and stops the copy."""
    lines = {line.strip() for text in solutions for line in text.splitlines()}
    lines = {line for line in lines if len(line) >= LONG and not line.startswith(("import ", "from "))}
    for cell in cells:
        if "outputs" in cell:
            cell["outputs"] = [o for o in cell["outputs"] if not _holds(json.dumps(o, ensure_ascii=False), lines)]
        if found := _holds("\n".join([source_of(cell), *_attached(cell)]), lines):
            raise UnlearnkitError(
                f"{name}, cell {cell.get('id', '?')} holds a line of a solution, `{found}`; "
                "empty the stub or rewrite the cell, and make the students' copy again."
            )


def _attached(cell: Cell) -> list[str]:
    """What is attached to a cell, as text: base64, a bundle of types a name."""
    coded = ["".join(data) for bundle in cell.get("attachments", {}).values() for data in bundle.values()]
    return [base64.b64decode(data + "==").decode("utf-8", "ignore") for data in coded]


def _holds(text: str, lines: set[str]) -> str:
    return next((line for line in sorted(lines) if line in text or json.dumps(line)[1:-1] in text), "")


def unlinked(text: str, copied: Sequence[str]) -> str:
    """Markdown whose links to notebooks that are not `copied` are plain text."""

    def kept(link: re.Match[str]) -> str:
        return link[0] if link[2] in copied else link[1]

    return re.sub(r"\[([^\]]+)\]\(([^)#/]+\.ipynb)[^)]*\)", kept, text)
