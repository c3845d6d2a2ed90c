"""Run folders: executed once, whole or not there, found again, resumed after failure and death."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import psutil
import pytest
from filelock import FileLock

from unlearnkit.errors import UnlearnkitError
from unlearnkit.runs.config import Config
from unlearnkit.runs.execute import run_notebook, sweep
from unlearnkit.runs.files import write
from unlearnkit.runs.plan import covered, plan
from unlearnkit.runs.record import open_run, read_runs

Notebook = Callable[..., Path]
RECORD = """from unlearnkit.runs.record import open_run
import pandas as pd
import matplotlib.pyplot as plt
run = open_run(config)
run.scores(pd.DataFrame({"method": ["npo"], "score": [config.steps + config.seed]}))
run.trace(pd.DataFrame({"step": [0]}))
run.trace(pd.DataFrame({"step": [1]}))
figure, axes = plt.subplots()
run.figure(figure, "curve", alt="a flat curve")"""


def mark(path: Path) -> str:
    """Code that leaves one line a time it is executed."""
    return f"with open({str(path)!r}, 'a') as file:\n    file.write('x')"


def visible(runs: Path) -> list[str]:
    return sorted(path.name for path in (runs / "01_tiny").glob("*") if not path.name.startswith("."))


def test_a_run_is_recorded_and_found_again(tiny: Notebook, tmp_path: Path) -> None:
    path, count = tiny(RECORD, mark(tmp_path / "count")), tmp_path / "count"
    runs = tmp_path / "of {seed} $HOME é"  # papermill formats paths, kernels substitute in variables
    first = run_notebook(path, {"seed": "3"}, runs)
    again = run_notebook(path, {"seed": 3, "rate": 1}, runs)  # the same resolved config
    assert (first.state, first.found) == ("complete", False)
    assert (again.folder, again.found) == (first.folder, True)
    assert count.read_text() == "x"

    (record,) = read_runs(runs)
    assert record.scores.to_dict("records") == [{"method": "npo", "score": 8}]
    assert pd.read_csv(record.folder / "trace.csv")["step"].tolist() == [0, 1]
    assert [figure.name for figure in record.figures] == ["curve.png"]
    assert record.config["values"]["steps"] == 5 and record.config["seed"] == 3
    assert record.config["device"]["kind"] in ("cpu", "cuda", "mps")
    assert record.status["seconds"] > 0 and record.status["peak_memory_mb"] > 20
    shown = nbformat.read(record.folder / "executed.ipynb", as_version=4).cells[-2].outputs
    pictures = [output for output in shown if "image/png" in output.get("data", {})]
    assert len(pictures) == 1 and pictures[0].metadata["image/png"]["alt"] == "a flat curve"

    assert not run_notebook(path, {"seed": 3}, runs, force=True).found
    assert count.read_text() == "xx" and visible(runs) == [first.folder.name]


def test_digest_covers_code_config_and_given_files(tiny: Notebook, tmp_path: Path) -> None:
    data = tmp_path / "facts.jsonl"
    data.write_text("1")
    path = tiny("1")
    base = plan(path, {"world": str(data)}).digest
    assert plan(path, {"world": str(data)}).digest == base
    assert plan(path, {"world": str(data), "seed": 1}).digest != base
    data.write_text("2")
    assert plan(path, {"world": str(data)}).digest != base
    data.write_text("1")
    assert plan(tiny("2"), {"world": str(data)}).digest != base


def test_digest_covers_the_data_that_code_names(
    tiny: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the measured tables only those named, in full or without the last part of their name; no pictures."""
    measured = tmp_path / "data" / "measured"
    measured.mkdir(parents=True)
    picture = tmp_path / "data" / "figures" / "board.png"
    picture.parent.mkdir()
    picture.write_text("1")
    monkeypatch.setattr("unlearnkit.runs.plan.data_dir", lambda: tmp_path / "data")
    for name in ("board_zz_text.csv", "other_zz.csv"):
        (measured / name).write_text("1")
    path = tiny("f'board_zz_{1} figures'")
    base = plan(path).digest
    (measured / "other_zz.csv").write_text("2")
    picture.write_text("2")
    assert plan(path).digest == base
    (measured / "board_zz_text.csv").write_text("2")
    assert plan(path).digest != base


def test_what_differs_has_another_digest(tiny: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither concatenation nor a likeness of values makes two runs one."""
    codes = [("a", "b"), ("ab",), ("a\nb",), ("b", "a")]
    plans = [plan(tiny(*code)).digest for code in codes] + [plan(tiny("1", name="02_other")).digest]
    given: list[dict[str, Any]] = [{}, {"world": "1"}, {"world": "1.0"}, {"seed": 1}, {"rate": 1.5}, {"world": "a,b"}]
    plans += [plan(tiny("1"), some).digest for some in given]
    assert len(set(plans)) == len(plans)
    monkeypatch.chdir(tmp_path)
    Path("authors").mkdir()  # a folder of a world's name is not meant by it
    Path("mine.jsonl").write_text("1")
    path = tiny("1")
    assert plan(path, {"world": "authors"}).config.world == "authors"
    assert plan(path, {"world": "./authors,mine.jsonl"}).config.world == f"{tmp_path}/authors,{tmp_path}/mine.jsonl"
    (tmp_path / "authors" / "config.json").write_text("{}")  # a model's folder needs no ./ in front
    assert plan(path, {"world": "authors"}).config.world == f"{tmp_path}/authors"
    before = plan(path, {"world": "authors,mine.jsonl"}).digest
    Path("mine.jsonl").write_text("2")
    assert plan(path, {"world": "authors,mine.jsonl"}).digest != before


def test_a_bare_word_can_name_a_folder_of_runs(tiny: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    path = tiny("1")
    assert plan(path, {"world": "runs"}).config.world == "runs"  # nothing finished is in it yet
    run_notebook(path, {}, "runs")
    assert plan(path, {"world": "runs"}).config.world == f"{tmp_path}/runs"


def test_a_run_that_reads_the_folder_it_lies_in_is_found_again(tiny: Notebook, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    parameters = 'seed: int = 0\nprofile: str = "quick"\nruns: str = ""'
    other, reads = tiny("1"), tiny("2", name="02_reads", parameters=parameters)
    run_notebook(other, {}, runs)
    first = run_notebook(reads, {"runs": str(runs)}, runs)
    assert run_notebook(reads, {"runs": str(runs), "seed": 1}, runs).state == "complete"
    (runs / "report.html").write_text("made of them")
    again = run_notebook(reads, {"runs": str(runs)}, runs)
    assert again.found and again.folder == first.folder
    run_notebook(other, {"seed": 1}, runs)  # one more to read
    assert not run_notebook(reads, {"runs": str(runs)}, runs).found


def test_the_digest_covers_code_that_can_change_numbers_and_no_other() -> None:
    files = covered()
    assert {"unlearning/loop.py", "methods/text/npo.py", "runs/record.py", "runs/config.py"} <= set(files)
    assert not {"cli.py", "runs/report.py", "runs/doctor.py", "bench/text.py"} & set(files)
    assert covered(["runs/report.py", "unlearning/loop.py"]) == ["unlearning/loop.py"]


def test_a_failure_keeps_its_traceback_and_is_run_again(tiny: Notebook, tmp_path: Path) -> None:
    flag, runs = tmp_path / "flag", tmp_path / "runs"
    path = tiny("print('before')", f"assert __import__('os').path.exists({str(flag)!r}), 'no flag'")
    failed = run_notebook(path, {}, runs)
    assert failed.state == "failed" and "AssertionError: no flag" in str(failed.traceback)
    assert read_runs(runs) == []
    (record,) = read_runs(runs, state="failed")
    assert "no flag" in record.status["traceback"] and "\x1b" not in record.status["traceback"]
    assert "before" in (record.folder / "executed.ipynb").read_text()
    flag.touch()
    again = run_notebook(path, {}, runs)
    assert (again.state, again.found, again.folder) == ("complete", False, failed.folder)
    assert len(read_runs(runs)) == 1 and read_runs(runs, state="failed") == []


def test_a_dead_kernel_is_a_failure(tiny: Notebook, tmp_path: Path) -> None:
    outcome = run_notebook(tiny("import os\nos._exit(9)"), {}, tmp_path / "runs")
    assert outcome.state == "failed" and "DeadKernel" in str(outcome.traceback)


def test_an_early_exit_is_a_failure(tiny: Notebook, tmp_path: Path) -> None:
    path = tiny("import sys\nsys.exit(0)", mark(tmp_path / "count"))
    outcome = run_notebook(path, {}, tmp_path / "runs")
    assert outcome.state == "failed" and "SystemExit" in str(outcome.traceback)
    assert not (tmp_path / "count").exists() and read_runs(tmp_path / "runs") == []


def test_the_kernel_is_this_python_over_ipc(tiny: Notebook, tmp_path: Path, monkeypatch: Any) -> None:
    other = tmp_path / "jupyter" / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    code = f"""import json, os, sys
from ipykernel.connect import get_connection_info
info = json.loads(get_connection_info())
seen = [sys.executable, info["transport"], info["ip"], os.getcwd(), os.environ["PYTHONHASHSEED"]]
with open({str(tmp_path / "seen")!r}, "w") as file:
    json.dump(seen, file)"""
    path = tiny(code)
    assert run_notebook(path, {}, tmp_path / "runs").state == "complete"
    python, transport, socket, folder, hash_seed = json.loads((tmp_path / "seen").read_text())
    assert (python, transport, hash_seed) == (sys.executable, "ipc", "0")
    assert Path(folder) == path.parent
    assert not Path(socket).parent.exists()  # the sockets are gone


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_kill_leaves_nothing_that_looks_complete(tiny: Notebook, tmp_path: Path, how: signal.Signals) -> None:
    flag, seen, runs = tmp_path / "flag", tmp_path / "pid", tmp_path / "runs"
    path = tiny(
        f"import os, time\nwith open({str(seen)!r}, 'w') as file:\n    file.write(str(os.getpid()))\n"
        f"while not os.path.exists({str(flag)!r}):\n    time.sleep(0.1)"
    )
    command = [sys.executable, "-m", "unlearnkit.cli", "run", str(path), "--runs", str(runs)]
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores Ctrl-C
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heeded)
    wait(lambda: seen.exists() and seen.read_text() != "")
    kernel = int(seen.read_text())
    os.kill(process.pid, how)
    said = process.communicate(timeout=60)[1]
    code, last = {
        signal.SIGKILL: (-signal.SIGKILL, []),
        signal.SIGTERM: (143, ["terminated"]),
        signal.SIGINT: (130, ["interrupted"]),
    }[how]
    assert process.returncode == code and said.splitlines()[-1:] == last
    assert visible(runs) == [] and read_runs(runs) == []
    wait(lambda: not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == psutil.STATUS_ZOMBIE)
    assert bool(list((runs / "01_tiny").glob(".*.tmp"))) == (how == signal.SIGKILL)  # the others leave time to tidy up
    if how == signal.SIGKILL:
        flag.touch()
        outcome = run_notebook(path, {}, runs)
        assert outcome.state == "complete" and outcome.again
        assert len(read_runs(runs)) == 1
        assert not list((runs / "01_tiny").glob(".*.tmp"))


def test_leftovers_are_swept_unless_someone_works_on_them(tmp_path: Path) -> None:
    for name in (".aaaa.1.tmp", ".bbbb.2.tmp", ".cccc.3.tmp", "dddd"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notebook.ipynb").touch()
    with FileLock(tmp_path / ".aaaa.lock"), FileLock(tmp_path / ".bbbb.lock"):
        subprocess.run(
            [sys.executable, "-c", "import sys; from pathlib import Path; from unlearnkit.runs.execute import sweep; "
             "sweep(Path(sys.argv[1]), 'aaaa')", str(tmp_path)], check=True
        )  # fmt: skip
    left = {path.name: len(list(path.iterdir())) for path in tmp_path.iterdir() if path.is_dir()}
    assert left == {".bbbb.2.tmp": 1, ".cccc.3.tmp": 0, "dddd": 1}
    assert sweep(tmp_path, "cccc") and not sweep(tmp_path, "cccc")  # its next start knows of the first, and clears up
    assert not (tmp_path / ".cccc.3.tmp").exists()


def test_of_two_writers_one_wins_whole(tmp_path: Path) -> None:
    path, words = tmp_path / "table.csv", [b"a" * 4_000_000, b"b" * 3_000_000]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(8):
            list(pool.map(partial(write, path), words))
            assert path.read_bytes() in words
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_a_folder_that_takes_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tidying up fails there, too."""

    def refuses(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "open", refuses)
    monkeypatch.setattr(Path, "unlink", refuses)
    with pytest.raises(
        UnlearnkitError, match=f"{tmp_path} can't be written to .Read-only file system.; choose another"
    ):
        write(tmp_path / "table.csv", b"1")


@pytest.mark.parametrize("content", [b"garbage", b'{"cells": [', b"[]", b""])
def test_a_notebook_that_is_none_any_more_is_run_again(tiny: Notebook, tmp_path: Path, content: bytes) -> None:
    path, runs = tiny("1"), tmp_path / "runs"
    kept = run_notebook(path, {}, runs).folder / "executed.ipynb"
    kept.write_bytes(kept.read_bytes() + b"\n")  # saved again by somebody: no loss
    assert run_notebook(path, {}, runs).found
    kept.write_bytes(content)
    with pytest.raises(UnlearnkitError, match=r"can't be read .*executed.ipynb has \d+ bytes"):
        read_runs(runs)
    assert not run_notebook(path, {}, runs).found and len(read_runs(runs)) == 1


@pytest.mark.parametrize("name", ["status.json", "config.json"])
def test_a_record_that_is_no_object_is_said_to_be_none(tiny: Notebook, tmp_path: Path, name: str) -> None:
    run_notebook(tiny("1"), {}, tmp_path / "runs").folder.joinpath(name).write_text("null")
    with pytest.raises(UnlearnkitError, match=r"can't be read .*must hold an object"):
        read_runs(tmp_path / "runs")


def wait(reached: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_two_processes_on_one_run_execute_it_once(tiny: Notebook, tmp_path: Path) -> None:
    path = tiny(mark(tmp_path / "count") + "\nimport time\ntime.sleep(3)")
    command = [sys.executable, "-m", "unlearnkit.cli", "run", str(path), "--runs", str(tmp_path / "runs")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=60)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert (tmp_path / "count").read_text() == "x"
    assert sum(" found " in text for text in said) == 1 and sum("waiting" in text for text in said) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sed": "1"}, "parameter 'sed' is unknown"),
        ({"seed": "abc"}, "'seed' of 01_tiny is 'abc'"),
        ({"steps": "1.5"}, "'steps' of 01_tiny is 1.5"),
        ({"profile": "fast"}, "profile 'fast' is unknown; known: quick, smoke"),
    ],
)
def test_bad_parameters_stop_before_any_work(
    tiny: Notebook, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnlearnkitError, match=message):
        run_notebook(tiny(mark(tmp_path / "count")), given, tmp_path / "runs")
    assert not (tmp_path / "count").exists() and not (tmp_path / "runs").exists()


def test_words_become_what_the_declaration_says(tiny: Notebook) -> None:
    given = {"rate": "2", "world": "5", "steps": "None", "seed": "7"}
    assert dict(plan(tiny("1"), given).config.values) == {
        "seed": 7,
        "profile": "quick",
        "steps": 5,
        "rate": 2.0,
        "world": "5",
    }


@pytest.mark.parametrize("line", ["n: int | None = None  # papermill can't", "n: int = 1  # a = b"])
def test_a_parameter_papermill_cannot_read_is_refused(tiny: Notebook, line: str) -> None:
    with pytest.raises(UnlearnkitError, match="papermill can't read parameter 'n'"):
        plan(tiny("1", parameters=f'profile: str = "quick"\n{line}'), {})


@pytest.mark.parametrize("where", ["notebook", "status"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tiny: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "notebook":
        monkeypatch.setattr("papermill.iorw.LocalHandler.write", full)
    else:
        monkeypatch.setattr("unlearnkit.runs.record.os.fsync", full)
    with pytest.raises(UnlearnkitError, match="disk .* is full"):
        run_notebook(tiny("1"), {}, tmp_path / "runs")
    assert visible(tmp_path / "runs") == [] and read_runs(tmp_path / "runs") == []
    assert not list((tmp_path / "runs" / "01_tiny").glob(".*.tmp"))


def test_a_notebook_must_configure_what_was_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNLEARNKIT_RUN_DIR", str(tmp_path))
    open_run(Config("01_tiny", "quick", {"seed": 0}))
    for other in (Config("02_tiny", "quick", {"seed": 0}), Config("01_tiny", "quick", {"seed": 1})):
        with pytest.raises(UnlearnkitError, match="was planned as 01_tiny"):
            open_run(other)


@pytest.mark.parametrize("name", ["../out", "a/b", "", "a.b", "x\n", "a" * 200])
def test_names_cannot_leave_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from matplotlib.figure import Figure

    monkeypatch.setenv("UNLEARNKIT_RUN_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    run = open_run(Config("01_tiny", "quick", {"seed": 0}))
    with pytest.raises(UnlearnkitError, match="letters, digits"):
        run.figure(Figure(), name)
    if name:
        with pytest.raises(UnlearnkitError, match="letters, digits"):
            run.trace(pd.DataFrame({"a": [1]}), name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.json", "run"]


def test_interactive_work_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("UNLEARNKIT_RUN_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    run = open_run(Config("01_tiny", "quick", {"seed": 0}))
    run.scores(pd.DataFrame({"a": [1]}))
    run.trace(pd.DataFrame({"a": [1]}), "more")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out.count("not recorded") == 1


@pytest.mark.parametrize("how", ["emptied", "cut", "gone"])
def test_a_run_that_lost_something_is_not_complete(tiny: Notebook, tmp_path: Path, how: str) -> None:
    path, count, told = tiny(RECORD, mark(tmp_path / "count")), tmp_path / "count", list[str]()
    folder = run_notebook(path, {}, tmp_path / "runs").folder
    file = folder / "scores.csv"
    whole = file.read_bytes()
    (folder / "executed.ipynb").write_bytes((folder / "executed.ipynb").read_bytes() + b"\n")  # saved again: no loss
    assert run_notebook(path, {}, tmp_path / "runs").found
    file.unlink() if how == "gone" else file.write_bytes(b"" if how == "emptied" else whole[:-2])
    with pytest.raises(UnlearnkitError, match=r"can't be read \(ValueError: scores.csv (is gone|has \d+ bytes)"):
        read_runs(tmp_path / "runs")
    again = run_notebook(path, {}, tmp_path / "runs", say=told.append)
    assert (again.state, again.found, count.read_text()) == ("complete", False, "xx")
    assert file.read_bytes() == whole and any("scores.csv" in line and "again" in line for line in told)


@pytest.mark.parametrize(("name", "words"), [("config.json", "[]"), ("config.json", '{"values": [1]}'),
                                             ("status.json", '{"state": "complete", "seconds": "long"}')])  # fmt: skip
def test_a_run_of_wrong_kinds_is_named(tiny: Notebook, tmp_path: Path, name: str, words: str) -> None:
    folder = run_notebook(tiny(RECORD), {}, tmp_path / "runs").folder
    (folder / name).write_text(words)
    if name == "config.json":  # the list of sizes would tell first
        status = json.loads((folder / "status.json").read_text())
        status["files"].pop("config.json")
        (folder / "status.json").write_text(json.dumps(status))
    with pytest.raises(UnlearnkitError, match="can't be read"):
        read_runs(tmp_path / "runs")


def test_an_unreadable_finished_run_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "01_tiny" / "0123"
    folder.mkdir(parents=True)
    (folder / "status.json").write_text('{"state": "complete"}')
    with pytest.raises(UnlearnkitError, match="0123 can't be read"):
        read_runs(tmp_path)
