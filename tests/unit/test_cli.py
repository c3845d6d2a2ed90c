"""The command line as a user meets it: one-line errors, exit codes, light start."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def test_run_records_and_a_failed_notebook_exits_1(cli: Cli, tiny: Callable[..., Path], tmp_path: Path) -> None:
    tiny("1")
    tiny("1/0", name="02_bad")
    done = cli("run", "--all", "--profile", "smoke", "-p", "seed", "2", "--runs", "runs", "--workers", "1")
    assert done.returncode == 1
    first, second = done.stdout.splitlines()
    assert "01_tiny" in first and "complete" in first and "02_bad" in second and "failed" in second
    assert "ZeroDivisionError" in done.stderr
    (folder,) = (path.parent for path in tmp_path.glob("runs/01_tiny/*/status.json"))
    config = json.loads((folder / "config.json").read_text())
    assert config["values"]["seed"] == 2 and config["values"]["steps"] == 1
    assert "found" in cli("run", "01_tiny", "--profile", "smoke", "-p", "seed", "2").stdout
    assert cli("report", "--runs", "runs", "--out", "all.html").returncode == 0
    assert "ZeroDivisionError" in (tmp_path / "all.html").read_text()


def test_notebooks_side_by_side(cli: Cli, tiny: Callable[..., Path], tmp_path: Path) -> None:
    """Two wait for each other, so they run at once; one that shows what others found comes after them; one fails."""
    meet = """import os, pathlib, time
assert int(os.environ["MALLOC_TRIM_THRESHOLD_"]) > 2**20  # not what Dask sets, with which torch is slow
here = pathlib.Path({folder!r})
(here / {mine!r}).touch()
deadline = time.monotonic() + 60
while not (here / {other!r}).exists():
    assert time.monotonic() < deadline
    time.sleep(0.1)"""
    last = tiny(f"import pathlib\nassert len(list(pathlib.Path({str(tmp_path)!r}).glob('[ab]'))) == 2", name="09_last")
    last.write_text(json.dumps(json.loads(last.read_text()) | {"metadata": {"unlearnkit": {"after": "all"}}}))
    for name, mine, other in (("01_tiny", "a", "b"), ("02_too", "b", "a")):
        tiny(meet.format(folder=str(tmp_path), mine=mine, other=other), name=name)
    tiny("1/0", name="03_bad")
    done = cli("run", "--all", "--profile", "smoke", "--workers", "2")
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
    first, *lines = done.stdout.splitlines()
    assert first == "3 notebooks, 2 side by side"
    assert {line.split()[0]: line.split()[2] for line in lines} == {
        "01_tiny": "complete", "02_too": "complete", "03_bad": "failed", "09_last": "complete",
    }  # fmt: skip
    assert lines[-1].startswith("09_last")
    again = cli("run", "--all", "--profile", "smoke", "--workers", "2")
    assert again.stdout.count(" found ") == 3 and "side by side" not in again.stdout
    assert "workers = 0 is not possible" in cli("run", "--all", "--workers", "0").stderr


def test_bad_data_in_a_notebook_is_one_line(cli: Cli, tiny: Callable[..., Path], tmp_path: Path) -> None:
    tiny("import unlearnkit as uk", "uk.load_problem('nowhere.jsonl')")
    done = cli("run", "01_tiny", "--profile", "smoke")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: nowhere.jsonl can't be read: No such file or directory; give the path")
    (status,) = tmp_path.glob("runs/01_tiny/*/status.json")
    assert line.endswith(f"(traceback: {status.relative_to(tmp_path)})")
    assert "Traceback" in json.loads(status.read_text())["traceback"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "01_tine"], "notebook '01_tine' is unknown; known: 01_tiny. Did you mean '01_tiny'?"),
        (["run", "nowhere/01_tiny.ipynb"], "there is no notebook nowhere/01_tiny.ipynb"),
        (["run"], "name the notebooks to run, or pass --all"),
        (["run", "01_tiny", "-p", "sed", "1"], "parameter 'sed' is unknown"),
        (["run", "01_tiny", "-p", "seed", "x y"], "parameter 'seed' of 01_tiny is 'x y' (str)"),
        (["run", "01_tiny", "-p", "seed"], "a value is missing"),
        (["run", "01_tiny", "-p", "steps", "-5"], "parameter 'steps' of 01_tiny is -5; expected 0 to 2147483647."),
        (["doctor", "--model", ".", "-p", "gpu", "maybe"], "gpu = 'maybe' is not possible; give true or false."),
        (["run", "01_tiny", "--profile", "quik"], "profile 'quik' is unknown; known: quick, smoke"),
        (["report", "--runs", "empty"], "no finished run in empty"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    cli: Cli, tiny: Callable[..., Path], tmp_path: Path, words: list[str], message: str
) -> None:
    tiny("1")
    done = cli(*words)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")
    assert not (tmp_path / "runs").exists()


def test_doctor_is_honest(cli: Cli, series: Path) -> None:
    text = "01_tiny:\n  needs: {seconds: 1, memory_gb: 1000000}\n02_small:\n  needs: {memory_gb: 0.001}\n"
    (series / "profiles" / "smoke.yml").write_text(text)
    done = cli("doctor", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["ok"] else 1) and found["ok"] == (not found["problems"])
    assert all(row["ok"] and row["found"] for row in found["packages"]) and len(found["packages"]) > 10
    fits = {(row["notebook"], row["profile"]): row["fits"] for row in found["notebooks"]}
    assert fits[("01_tiny", "smoke")] is False and fits[("02_small", "smoke")] is True
    assert found["memory_gb"] > 0 and found["disk_gb"] > 0


def test_doctor_exits_1_when_something_is_broken(cli: Cli, series: Path) -> None:
    (series / "profiles" / "smoke.yml").write_text("- not a mapping")
    done = cli("doctor")
    assert done.returncode == 1 and "problem: profile 'smoke'" in done.stdout


def test_start_is_light() -> None:
    code = "import sys, unlearnkit.cli, unlearnkit.runs.report, unlearnkit.runs.plan; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
