"""Course copies: students find no solution, instructors find all, both copies run; a folder is whole or as it was."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from solved import NOTEBOOKS, SOURCES, texts

import unlearnkit as uk
from unlearnkit.errors import UnlearnkitError
from unlearnkit.runs.course import write_course
from unlearnkit.runs.exercise_cells import exercises_of, hints_of
from unlearnkit.runs.plan import read_notebook, series

EVERYDAY = {'return "not measurable"'}  # a line that notebook 03 has for reasons of its own
LINES = {
    line.strip()
    for source in SOURCES
    for text in texts(source).values()
    for line in text.splitlines()
    if len(line.strip()) > 12  # shorter ones, such as `return n`, are in half of all code
} - EVERYDAY
README = (NOTEBOOKS.parent / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("course")
    for audience in ("students", "instructors"):
        write_course(folder / audience, audience)
    return {audience: folder / audience for audience in ("students", "instructors")}


def strings(value: Any) -> Iterator[str]:
    """Every text in a JSON value, and what base64 in it says."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)
    elif isinstance(value, str):
        yield value
        if len(value) > 20 and re.fullmatch(r"[A-Za-z0-9+/\s]+=*\s*", value):
            with contextlib.suppress(binascii.Error):
                yield base64.b64decode(value + "==").decode("utf-8", "ignore")


def test_no_solution_survives_in_the_students_copy(copies: dict[str, Path]) -> None:
    assert len(LINES) > 100
    written = [path for path in copies["students"].rglob("*") if path.is_file()]
    assert not [path for path in written if "solution" in path.name] and len(written) > 10
    for path in written:
        text = path.read_text("utf-8")
        # a list of lines is one text
        found = "\n".join(strings(json.loads(text))) if path.suffix in (".ipynb", ".json") else text
        assert not [line for line in LINES if line in found], path.name
        assert "def solution_" not in found and "<details>" not in found and "folded" not in found, path.name


def test_stubs_and_checks_and_stamps_stay(copies: dict[str, Path]) -> None:
    for path in series():
        copied = copies["students"] / path.name
        before, after = (nbformat.read(p, as_version=4) for p in (path, copied))
        nbformat.validate(after)
        code = [[cell.source for cell in n.cells if cell.cell_type == "code"] for n in (before, after)]
        assert code[0] == code[1] and after.metadata.get("unlearnkit") == before.metadata.get("unlearnkit")
        stubs = [cell for cell in after.cells if "exercise" in cell.metadata.get("tags", [])]
        assert len(stubs) == len(exercises_of(read_notebook(path))) and not any(cell.outputs for cell in stubs)
        assert "with your instructor" in json.dumps(after)


def test_instructors_have_every_solution_its_minutes_and_hints(copies: dict[str, Path]) -> None:
    for source in SOURCES:
        (path,) = copies["instructors"].glob(f"{source.stem}_*.ipynb")
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        solved = [cell.source for cell in notebook.cells if "solution" in cell.metadata.get("tags", [])]
        notes = [cell.source for cell in notebook.cells if "notes" in cell.metadata.get("tags", [])]
        assert "<details>" not in json.dumps(notebook)
        assert (copies["instructors"] / "solutions" / source.name).read_bytes() == source.read_bytes()
        for exercise, text, code, note in zip(
            exercises_of(notebook), texts(source).values(), solved, notes[1:], strict=True
        ):
            assert text in code and f'uk.check("{exercise.number}", solution_' in code
            assert f"{exercise.minutes} minutes" in note and len(note.split("\n- ")) >= 2, exercise.number
            assert f"| {exercise.number} {exercise.title} |" in notes[0]
    (hint,) = [text for text in hints_of("02.1") if "sign" in text]  # said by the check itself
    assert hint in (Path(sys.modules["unlearnkit"].__path__[0]) / "exercises" / "nb02.py").read_text("utf-8")


def test_the_students_copy_runs_by_itself_with_its_stubs(copies: dict[str, Path], tmp_path: Path) -> None:
    folder, out = copies["students"], tmp_path / "out.ipynb"
    words = ["01_problem_formulation.ipynb", str(out), "--no-progress-bar", "-p", "profile", "smoke"]
    environment = {**os.environ, "UNLEARNKIT_NOTEBOOKS": str(folder), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "papermill", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed = json.dumps(nbformat.read(out, as_version=4), ensure_ascii=False)
    assert printed.count(": not solved yet.") == 4 and ": right." not in printed


def test_every_solution_cell_of_the_instructors_is_right(
    copies: dict[str, Path], capsys: pytest.CaptureFixture
) -> None:
    asked = []
    for path in sorted(copies["instructors"].glob("*.ipynb")):
        space: dict[str, Any] = {"uk": uk}
        for cell in nbformat.read(path, as_version=4).cells:
            if "solution" in cell.metadata.get("tags", []):
                exec(compile(cell.source, f"{path.name} {cell.id}", "exec"), space)
        asked += [exercise.number for exercise in exercises_of(read_notebook(path))]
    assert capsys.readouterr().out == "".join(f"{number}: right.\n" for number in asked) and len(asked) > 30


def test_some_notebooks_link_only_to_each_other(tmp_path: Path) -> None:
    two = [path for path in series() if path.name[:2] in ("01", "02")]
    made = write_course(tmp_path / "two", "students", two)
    assert [path.name for path in made] == [path.name for path in two]
    texts_of = [path.read_text("utf-8") for path in (*made, *(tmp_path / "two").glob("*.md"))]
    links = set(re.findall(r"\]\(([^)#]+\.ipynb)", "".join(texts_of)))
    assert links == {path.name for path in two}


def test_a_solution_that_cannot_be_blanked_stops_the_copy(
    tiny: Callable[..., Path], series: Path, tmp_path: Path
) -> None:
    solution = "def solution_01_1(x):\n    return x ** 2 + 17 * x\n"
    (series / "solutions").mkdir()
    (series / "solutions" / "01.py").write_text(solution)
    path = tiny("print(1)", "print(2)")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="it is: return x ** 2 + 17 * x")]
    nbformat.write(notebook, path)
    write_course(tmp_path / "out", "students")
    assert "17 * x" not in (tmp_path / "out" / path.name).read_text("utf-8")  # the output went
    held = base64.b64encode(b"# return x ** 2 + 17 * x").decode()
    for change in (
        {"source": "def mine(x):\n    return x ** 2 + 17 * x"},
        {"attachments": {"a": {"text/plain": held}}},
    ):
        changed = nbformat.from_dict(notebook)
        changed.cells[-1] |= change
        path.write_text(json.dumps(changed))
        with pytest.raises(UnlearnkitError, match="holds a line of a solution, `return x .* 17 . x`"):
            write_course(tmp_path / "out", "students")
        assert "17 * x" not in (tmp_path / "out" / path.name).read_text("utf-8")


def test_what_others_wrote_is_never_overwritten(tiny: Callable[..., Path], series: Path, tmp_path: Path) -> None:
    path, out = tiny("print(1)"), tmp_path / "out"
    for _ in range(2):  # its own copy is replaced
        write_course(out, "students")
    with pytest.raises(UnlearnkitError, match="out holds the copy for students; name another folder for instructors"):
        write_course(out, "instructors")
    assert json.loads((out / "course.json").read_text())["for"] == "students"
    (out / path.name).write_text((out / path.name).read_text() + " ")
    with pytest.raises(UnlearnkitError, match=r"has been worked in \(01_tiny.ipynb\)"):
        write_course(out, "students")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    for folder, reason in ((tmp_path / "other", "not empty"), (series, "not empty"), (path, "not a folder")):
        with pytest.raises(UnlearnkitError, match=reason):
            write_course(folder, "students")
    with pytest.raises(UnlearnkitError, match="audience 'student' is unknown.*Did you mean 'students'"):
        write_course(tmp_path / "new", "student")
    with pytest.raises(UnlearnkitError, match="can't be reached: File name too long; name another folder"):
        write_course(tmp_path / ("x" * 300), "students")
    with pytest.raises(UnlearnkitError, match="given twice"):
        write_course(tmp_path / "new", "students", [path, path])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "out", "series"]


def test_a_full_disk_leaves_the_folder_as_it_was(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny("print(1)")
    write_course(tmp_path / "out", "students")
    before = (tmp_path / "out" / "course.json").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unlearnkit.runs.course.write_json", full)
    with pytest.raises(UnlearnkitError, match="disk of .* is full"):
        write_course(tmp_path / "out", "students")
    assert (tmp_path / "out" / "course.json").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "series"]


def test_the_command(cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    done = cli("course", "mine", "--for", "students", "07_tradeoff", "01_problem_formulation")
    assert done.returncode == 0 and "2 notebooks for students" in done.stdout, done.stderr
    assert len(list((tmp_path / "mine").glob("*.ipynb"))) == 2
    wrong = cli("course", "other", "--for", "pupils")
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: audience 'pupils' is unknown")


def test_the_syllabus_agrees_with_the_notebooks() -> None:
    section = README.partition("## Course")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| ")]
    sessions = [row for row in rows if row[0].isdigit()]
    assert 4 <= len(sessions) <= 10
    stated = {p.name[:2]: exercises_of(read_notebook(p)) for p in series()}
    taught: list[str] = []
    for _, minutes, used, _, _, asked in sessions:
        numbers = re.findall(r"\d\d\.\d", asked)
        chosen = [e for es in stated.values() for e in es if e.number in numbers]
        total = re.search(r"\((\d+) min", asked)
        assert len(chosen) == len(numbers) and total and sum(e.minutes for e in chosen) == int(total[1])
        assert int(total[1]) <= int(minutes)
        books = re.findall(r"\d\d", used)
        assert {number[:2] for number in numbers} <= set(books)
        taught += books
    assert set(taught) == set(stated), "every notebook has its session"
