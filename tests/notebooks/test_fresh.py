"""Committed notebooks: outputs made by the code at hand, small, with one parameters cell and the right kernel."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from unlearnkit.runs.execute import run_notebook
from unlearnkit.runs.freshness import is_fresh, parameters_cell, stamp
from unlearnkit.runs.plan import PACKAGE, plan

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_fit_to_be_committed(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    parameters_cell(notebook, path.stem)
    assert notebook.metadata.kernelspec.name == "python3"
    assert path.stat().st_size <= 400_000
    for profile in (file.stem for file in (FOLDER / "profiles").glob("*.yml")):
        assert {"seconds", "memory_gb"} <= set(plan(path, {"profile": profile}).config.needs)
    text = path.read_text("utf-8")
    assert not [trace for trace in ("site-packages", "/tmp/", "/root/", "/home/", "jupyter.widget") if trace in text]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_outputs_are_fresh(path: Path) -> None:
    assert is_fresh(path), f"the code changed after {path.name} was executed; run `make notebooks`"


def test_a_stamp_holds_until_code_or_profile_change(
    tiny: Callable[..., Path], series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny("print(6 * 7)\nfrom ipywidgets import IntProgress\ndisplay(IntProgress())")
    assert not is_fresh(path)
    marked = nbformat.read(path, as_version=4)
    marked.metadata["unlearnkit"] = {"after": "all"}
    nbformat.write(marked, path)
    stamp(path, series.parent / "runs")
    assert is_fresh(path)
    again = run_notebook(path, {}, series.parent / "runs")
    assert again.found and len(nbformat.read(again.folder / "executed.ipynb", 4).cells) == len(marked.cells)
    made = nbformat.read(path, as_version=4)
    (output,) = made.cells[-1].outputs  # the progress bar is left out
    assert output.text == "42\n" and "widgets" not in made.metadata
    assert (
        made.metadata.unlearnkit.after == "all"
        and made.metadata.unlearnkit.profile == "quick"
        and made.metadata.unlearnkit.seconds > 0
    )
    assert str(series) not in path.read_text()

    profile = series / "profiles" / "quick.yml"
    before = profile.read_text()
    profile.write_text(before.replace("steps: 5", "steps: 6"))
    assert not is_fresh(path)
    profile.write_text(before)

    copy = shutil.copytree(PACKAGE, series / "package", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr("unlearnkit.runs.plan.PACKAGE", copy)
    (copy / "unlearning.py").write_text("this notebook doesn't load it")
    assert is_fresh(path)
    with (copy / "runs" / "config.py").open("a") as file:
        file.write("# changed")
    assert not is_fresh(path)
    monkeypatch.undo()
    monkeypatch.setenv("UNLEARNKIT_NOTEBOOKS", str(series))

    made.cells[-1].source = "print(43)"
    nbformat.write(made, path)
    assert not is_fresh(path)
