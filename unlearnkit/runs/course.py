"""The series as course material, from one source: for students without solutions, for instructors with notes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from unlearnkit.errors import UnlearnkitError, unknown
from unlearnkit.paths import notebooks_dir
from unlearnkit.runs.course_notebook import unlinked, variant
from unlearnkit.runs.exercise_cells import exercises_of
from unlearnkit.runs.files import unwritable, write, write_json
from unlearnkit.runs.plan import read_notebook, series, source_of

AUDIENCES = ["students", "instructors"]
MARK = "course.json"  # says that a folder is such a copy, and what it was when it was written


def write_course(out: Path, audience: str, notebooks: Sequence[Path] | None = None) -> list[Path]:
    """Write a copy of the series, or of some of its notebooks, that runs by itself; returns its notebooks.

    Students get stubs and checks, and no solution anywhere; instructors get, after each stub, what the check looks
    for and a cell with the solution, and at the head of each notebook its minutes. Beside them lie the profiles, the
    glossary and the references, so that `UNLEARNKIT_NOTEBOOKS=OUT unlearnkit run --all` runs the copy.

    Args:
        out: a new or empty folder, or a copy for this audience that nobody has worked in since it was written.
        audience: one of `AUDIENCES`.

    Raises:
        UnlearnkitError: an unknown audience, a folder that holds something else, a notebook whose solutions would
            show in the students' copy, or a disk that takes nothing. The folder is then as it was.
    """
    if audience not in AUDIENCES:
        raise unknown("audience", audience, AUDIENCES)
    out = out.absolute()
    replaced = _ours(out, audience)
    chosen = [path.absolute() for path in notebooks or series()]
    names = [path.name for path in chosen]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UnlearnkitError(f"{sorted(twice)[0]} is given twice; name each notebook once.")
    made = {path.name: variant(path, audience, names) for path in chosen}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise unwritable(out.parent, error) from error
    try:
        for name, notebook in made.items():
            write(work / name, (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode())
        for path in _beside(audience, chosen):
            content = path.read_bytes()
            if path.suffix == ".md":
                content = unlinked(content.decode("utf-8"), names).encode()
            write(work / path.relative_to(notebooks_dir()), content)
        write(work / "README.md", _start_page(made, chosen, audience).encode())
        write_json(work / MARK, {"for": audience, "files": _digests(work)})
        work.chmod(0o755)  # mkdtemp makes it private
        _put(work, out, replaced)
    except OSError as error:
        raise unwritable(out, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return [out / name for name in names]


def _beside(audience: str, chosen: Sequence[Path]) -> list[Path]:
    folder = notebooks_dir()
    wanted = [*sorted(folder.glob("profiles/*.yml")), folder / "glossary.md", folder / "references.bib"]
    if audience == "instructors":
        wanted += [folder / "solutions" / f"{path.name[:2]}.py" for path in chosen]
    return [path for path in wanted if path.is_file()]


def _start_page(made: Mapping[str, Any], chosen: Sequence[Path], audience: str) -> str:
    lines = [f"# Machine unlearning for generative AI: for {audience}\n"]
    lines.append(
        "Install unlearnkit, then `jupyter lab` here. `UNLEARNKIT_NOTEBOOKS=. unlearnkit run --all` runs all.\n"
    )
    for path in chosen:
        before = takewhile(lambda cell: cell["cell_type"] == "markdown", made[path.name]["cells"])
        text = "\n\n".join(source_of(cell) for cell in before)
        exercises = exercises_of(read_notebook(path))
        title = text.partition("\n")[0].removeprefix("# ").strip() or path.stem
        minutes = sum(exercise.minutes for exercise in exercises)
        lines.append(f"## [{title}]({path.name})\n\n{len(exercises)} exercises, {minutes} minutes.\n")
        lines += [
            part[0].strip() + "\n"
            for part in re.finditer(r"^\*\*You (?:will learn|need)\*\*.*?(?=\n\n|\Z)", text, re.M | re.S)
        ]
    return "\n".join(lines)


def _digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and ".ipynb_checkpoints" not in path.parts]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
        if path.name != MARK
    }


def _ours(out: Path, audience: str) -> bool:
    """Whether there is a copy to be replaced; anything else that would be lost is refused."""
    try:
        if not out.exists() and not out.is_symlink():
            return False
    except OSError as error:
        raise UnlearnkitError(f"{out} can't be reached: {error.strerror}; name another folder.") from error
    if not out.is_dir() or out.is_symlink():
        raise UnlearnkitError(f"{out} is not a folder; name a new one.")
    if not any(out.iterdir()):
        return True
    try:
        mark = json.loads((out / MARK).read_text("utf-8"))
        wrote, whose = mark["files"], mark["for"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UnlearnkitError(f"{out} is not empty and no course copy; name a new or empty folder.") from None
    if whose != audience:
        raise UnlearnkitError(f"{out} holds the copy for {whose}; name another folder for {audience}.")
    now = _digests(out)
    if changed := sorted(name for name in {*wrote, *now} if wrote.get(name) != now.get(name)):
        raise UnlearnkitError(f"{out} has been worked in ({changed[0]}); move it away or name another folder.")
    return True


def _put(work: Path, out: Path, replaced: bool) -> None:
    if replaced:
        old = work.with_name(f"{work.name}.old")
        out.rename(old)
        try:
            os.replace(work, out)
        except OSError:
            old.rename(out)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(work, out)
