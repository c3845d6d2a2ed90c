"""The doctor beside what runs took: what profiles state is compared with run folders, and what is too low is named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from typer.testing import CliRunner

from unlearnkit.cli import app
from unlearnkit.runs.doctor import diagnose, measured, shown, understated
from unlearnkit.runs.record import read_runs

ROOT = Path(__file__).resolve().parents[2]
GIVEN = os.environ.get("UNLEARNKIT_MEASURED")  # a folder of runs made alone on a machine, such as `make tour` leaves


def keep(runs: Path, number: int, seconds: float = 1.0, memory: float = 50.0, **changed: Any) -> Path:
    """A run folder of the tiny notebook in the profile smoke, as `unlearnkit run` leaves it."""
    folder = runs / "01_tiny" / f"{number:016x}"
    folder.mkdir(parents=True)
    values = {"seed": number, "profile": "smoke", "steps": 1, "rate": 1.0, "world": "authors"} | changed
    (folder / "config.json").write_text(json.dumps({"notebook": "01_tiny", "profile": "smoke", "values": values}))
    status = {"state": "complete", "started": str(number), "seconds": seconds, "peak_memory_mb": memory}
    (folder / "status.json").write_text(json.dumps(status))
    return folder


@pytest.fixture
def smoke(tiny: Callable[..., Path], tmp_path: Path) -> Callable[[], dict[str, Any]]:
    """The doctor's row of the tiny notebook, which states 1 s and 0.1 GB."""
    tiny("1")

    def row() -> dict[str, Any]:
        found = diagnose(tmp_path / "runs")
        assert found["understated"] == understated(found["notebooks"])
        return next(r for r in found["notebooks"] if r["profile"] == "smoke") | {"said": shown(found)}

    return row


def test_without_runs_nothing_is_measured(smoke: Callable[[], dict[str, Any]]) -> None:
    row = smoke()
    assert row["measured"] is None and "measured here" not in row["said"] and not understated([row])


def test_the_most_that_runs_took_stands_beside_the_need(smoke: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    keep(tmp_path / "runs", 1, seconds=0.5, memory=60)
    (keep(tmp_path / "runs", 2, seconds=0.8, memory=40) / "scores.csv").write_bytes(b"0" * 2_000_000)
    keep(tmp_path / "runs", 3, seconds=99, steps=50)  # other values than the profile's: another need
    failed = keep(tmp_path / "runs", 4, seconds=99)
    (failed / "status.json").write_text('{"state": "failed", "seconds": 99}')
    row = smoke()
    assert row["measured"]["runs"] == 2 and row["measured"]["seconds"] == 0.8 and row["measured"]["memory_gb"] == 0.06
    assert 0.002 < row["measured"]["disk_gb"] < 0.003
    assert "(measured here: 1 s, 0.1 GB)" in row["said"] and not understated([row])


@pytest.mark.parametrize(
    ("took", "said"),
    [
        ({"seconds": 1.5}, "01_tiny, profile smoke: 1 s are stated, a run took 1.5."),
        ({"memory": 130}, "01_tiny, profile smoke: 0.1 GB of memory are stated, a run took 0.13."),
    ],
)
def test_a_need_stated_too_low_is_named(
    smoke: Callable[[], dict[str, Any]], tmp_path: Path, took: dict[str, float], said: str
) -> None:
    keep(tmp_path / "runs", 1, **took)
    row = smoke()
    assert understated([row]) == [said] and f"stated too low: {said}" in row["said"]


def test_a_run_that_cannot_be_read_is_a_problem(tmp_path: Path, series: Path) -> None:
    folder = keep(tmp_path / "runs", 1)
    (folder / "config.json").unlink()
    assert any("can't be read" in problem for problem in diagnose(tmp_path / "runs")["problems"])


@pytest.mark.skipif(not GIVEN, reason="set UNLEARNKIT_MEASURED to a folder of runs made alone on a machine")
def test_the_stated_needs_cover_the_runs() -> None:
    """`UNLEARNKIT_MEASURED=runs pytest tests/unit/test_doctor.py` after `make tour`: what profiles state must hold."""
    assert read_runs(GIVEN), f"no complete run in {GIVEN}"
    found = diagnose(GIVEN)
    assert any(row["measured"] for row in found["notebooks"])
    assert not found["understated"], "\n".join(found["understated"])


def test_memory_on_record_is_covered() -> None:
    """What the README says that each notebook took is within what the quick profile states."""
    readme = (ROOT / "README.md").read_text("utf-8")
    quick = {row["notebook"]: row["needs"] for row in diagnose(ROOT / "none")["notebooks"] if row["profile"] == "quick"}
    checked = 0
    for line in readme.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if "](notebooks/" not in line or len(cells) < 6 or not cells[4].endswith("GB"):
            continue
        name = line.partition("](notebooks/")[2].partition(".ipynb")[0]
        minutes, _, seconds = cells[3].partition(" min")
        taken = float(minutes) * 60 + float(seconds.strip(" s") or 0) if seconds else float(cells[3].strip(" s"))
        assert taken <= quick[name]["seconds"] and float(cells[4].strip(" GB")) <= quick[name]["memory_gb"], name
        checked += 1
    assert checked >= 7


def test_measured_reads_only_runs_of_that_notebook(tmp_path: Path, tiny: Callable[..., Path], series: Path) -> None:
    tiny("1", name="02_other")
    keep(tmp_path / "runs", 1)
    assert measured(read_runs(tmp_path / "runs"), "02_other", "smoke", series) is None


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    """`unlearnkit doctor --model FOLDER`: one line, and an adapter takes less."""
    folder = tiny_models.save("llama", tmp_path / "llama", ["What is it?", "It is a test."])
    said = []
    for more in ([], ["-p", "lora=2"]):
        done = CliRunner().invoke(app, ["doctor", "--model", str(folder), "-p", "batch_size=2", *more])
        assert done.exit_code == 0, done.output
        said.append(done.output)
    assert all(" GB of memory (weights " in line and "parameters, " in line for line in said)
    assert "100% of them trained" in said[0] and "100% of them trained" not in said[1]
