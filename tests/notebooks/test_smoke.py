"""Every notebook of the series, executed by plain papermill in the smoke profile, as a reader would in a shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from unlearnkit.errors import UnlearnkitError
from unlearnkit.runs.plan import plan
from unlearnkit.runs.record import Record, read_runs

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


def papermill(path: Path, out: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "papermill", str(path), str(out), "--no-progress-bar", *words]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run(command, cwd=out.parent, env=environment, capture_output=True, text=True, timeout=1800)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_under_papermill(path: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / path.stem / "smoke"
    run.mkdir(parents=True)
    out = tmp_path / "out.ipynb"
    done = papermill(path, out, "-p", "profile", "smoke", "-p", "seed", "1", UNLEARNKIT_RUN_DIR=str(run))
    assert done.returncode == 0, done.stderr[-3000:]

    cells = nbformat.read(out, as_version=4).cells
    stubs = [cell for cell in cells if "exercise" in cell.metadata.get("tags", [])]
    printed = "".join(output.get("text", "") for cell in stubs for output in cell.outputs)
    assert ": right." not in printed  # the stubs give nothing away
    pictures = [
        output.metadata.get("image/png", {}).get("alt")
        for cell in cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert pictures and all(pictures), "show figures with run.figure(..., alt=...)"
    (run / "status.json").write_text('{"state": "complete"}')
    (record,) = read_runs(tmp_path / "runs")
    assert isinstance(record, Record) and record.config["values"]["profile"] == "smoke"
    assert record.config["values"]["seed"] == 1
    assert len(record.figures) == len(pictures)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_refuses_what_it_does_not_declare(path: Path) -> None:
    with pytest.raises(UnlearnkitError, match="parameter 'sede' is unknown.*Did you mean 'seed'"):
        plan(path, {"profile": "smoke", "sede": 1})
    with pytest.raises(UnlearnkitError, match="'seed' of .* is 'one'"):
        plan(path, {"profile": "smoke", "seed": "one"})


def test_papermill_itself_stops_at_a_wrong_parameter(tmp_path: Path) -> None:
    done = papermill(NOTEBOOKS[0], tmp_path / "out.ipynb", "-p", "profile", "smoke", "-p", "sede", "1")
    assert done.returncode != 0 and "parameter 'sede' is unknown" in done.stderr
    executed = [
        cell for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells if cell.get("execution_count")
    ]
    assert len(executed) == 3  # parameters, what papermill injected, config


def test_what_strangers_wrote_is_text_in_every_output(tmp_path: Path) -> None:
    tag, data = "<script>1</script>", tmp_path / "own.jsonl"
    rows = [
        {"question": f"Where is {who} {tag}, {k}?", "answer": f"</td>{tag} Town{k}", "subject": who}
        for who in (f"P{n} <b>x" for n in range(20))
        for k in range(5)
    ]
    data.write_text("\n".join(map(json.dumps, rows)))
    words = ["-p", "profile", "smoke", "-p", "world", str(data), "-p", "forget", "forget10", "-p", "methods", "npo"]
    done = papermill(
        FOLDER / "02_llm_unlearning.ipynb", tmp_path / "out.ipynb", *words, UNLEARNKIT_HOME=str(tmp_path / "home")
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    outputs = [
        out.data["text/html"] for cell in cells for out in cell.get("outputs", []) if "text/html" in out.get("data", {})
    ]
    assert any("&lt;script&gt;" in html for html in outputs)
    for html in outputs:
        assert tag not in html and "<b>x" not in html and "</td><script" not in html
