"""Execution of a plan by papermill into its run folder: once, whole or not there, found again, kept when it fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from unlearnkit.runs.doctor import shortfalls
from unlearnkit.runs.files import now, unwritable, write_json
from unlearnkit.runs.parameters import Scalar
from unlearnkit.runs.plan import Plan, plan
from unlearnkit.runs.record import RUN_DIR, RUNS, contents, damage, described

HEARTBEAT = 60.0  # seconds between lines of progress where there is no terminal


@dataclass(frozen=True)
class Outcome:
    """``state``: complete or failed; ``found``: it was complete before; ``seconds``: of its execution.

    ``again``: a process had begun it before, and died.
    """

    folder: Path
    state: str
    found: bool
    seconds: float
    traceback: str | None = None
    again: bool = False


def run_notebook(
    path: Path,
    given: Mapping[str, Scalar] | None = None,
    runs: Path | str = "runs",
    force: bool = False,
    say: Callable[[str], object] | None = None,
    source: Path | None = None,
) -> Outcome:
    """Execute a notebook into ``runs/<notebook>/<digest>/``, unless that run is complete.

    Of two processes on one run the first executes it, the other waits and finds it. A failed or cut off run is
    executed again.

    Args:
        given: parameter → value; the rest is declared in the notebook or comes from the profile.
        force: execute even what is complete.
        say: takes lines about waiting, missing memory and progress.
        source: a copy of the notebook with more cells, executed in its place.

    Raises:
        UnlearnkitError: bad parameters or a bad notebook (before any work); the disk is full.
    """
    planned = plan(path, given)
    home = Path(runs).absolute() / planned.path.stem
    folder = home / planned.digest
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _alone(home / f".{planned.digest}.lock", planned, say):
            again = sweep(home, planned.digest)
            status = _status(folder)
            lost = damage(folder, status)
            if lost and say:
                say(f"{planned.path.stem} {planned.digest}: {lost}; it is executed again")
            if status.get("state") == "complete" and not lost and not force:
                return Outcome(folder, "complete", True, status.get("seconds", 0.0))
            for lack in shortfalls(planned.config.needs, home) if say else []:
                say(f"{planned.path.stem} {lack}")  # type: ignore[misc]
            status = _recorded(planned, source or planned.path, home, folder, say)
    except OSError as error:
        raise unwritable(Path(runs), error) from error
    return Outcome(folder, status["state"], False, status["seconds"], status["traceback"], again)


def complete(runs: Path, planned: Plan) -> bool:
    """Whether this run's record is there and complete."""
    folder = runs / planned.path.stem / planned.digest
    status = _status(folder)
    return status.get("state") == "complete" and not damage(folder, status)


def _recorded(
    planned: Plan, source: Path, home: Path, folder: Path, say: Callable[[str], object] | None
) -> dict[str, Any]:
    """Execute into a temporary folder and put it in place; whatever stops this, nothing half is left behind."""
    work = Path(tempfile.mkdtemp(prefix=f".{planned.digest}.", suffix=".tmp", dir=home))
    try:
        work.chmod(0o755)
        write_json(work / "config.json", described(planned.config) | {"digest": planned.digest})
        environment = {RUN_DIR: str(work), RUNS: str(home.parent)}
        started, begun = now(), time.monotonic()
        failure, peak = execute(source, work / "executed.ipynb", planned, environment, say)
        status = {
            "state": "failed" if failure else "complete",
            "started": started,
            "seconds": round(time.monotonic() - begun, 3),
            "peak_memory_mb": peak,
            "traceback": failure,
            "files": contents(work),
        }
        for file in work.rglob("*"):
            if file.is_file():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
        write_json(work / "status.json", status)  # last: a folder without it is not a run
        old = home / f".{planned.digest}.old.tmp"
        if folder.exists():
            folder.rename(old)
        work.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return status


def execute(
    source: Path,
    out: Path,
    planned: Plan,
    environment: Mapping[str, str],
    say: Callable[[str], object] | None = None,
) -> tuple[str | None, float | None]:
    """Run a notebook in a kernel of this very Python, in the folder of the plan's notebook.

    Args:
        source: the notebook to execute: that of the plan, or a changed copy.
        out: where to write it with its outputs.
        environment: variables for the kernel.

    Returns:
        The traceback, None when all cells ran; the kernel's peak resident memory in MB, where known.
    """
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook

    from unlearnkit.runs.kernel import own_kernel

    name, begun, told = planned.path.stem, time.monotonic(), time.monotonic()
    cells = len(json.loads(source.read_text("utf-8"))["cells"])

    def heartbeat(cell_index: int, **_: Any) -> None:
        nonlocal told
        if say and time.monotonic() - told > HEARTBEAT and not sys.stderr.isatty():
            told = time.monotonic()
            say(f"{name}: {cell_index} of {cells} cells, {told - begun:.0f} s")

    failure = None
    with own_kernel(environment) as (manager, measured):
        try:
            made = execute_notebook(
                _literal(source),
                _literal(out),
                dict(planned.parameters),
                kernel_name="python3",
                language="python",
                cwd=planned.path.parent,
                kernel_manager_class=manager,
                on_cell_start=heartbeat,
                # a bar on a terminal, nothing elsewhere
                progress_bar={"desc": name, "leave": False, "disable": None} if say else False,
            )
            if made.metadata.papermill.get("exception"):  # papermill lets SystemExit pass
                failure = "SystemExit: the notebook stopped itself before its last cell."
        except PapermillExecutionError as error:
            failure = str(error)
        except (DeadKernelError, RuntimeError):
            failure = traceback.format_exc()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]", "", failure).strip() if failure else None
    return plain, measured.get("peak_memory_mb")


@contextmanager
def _alone(lock: Path, planned: Plan, say: Callable[[str], object] | None) -> Iterator[None]:
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        if say:
            say(f"{planned.path.stem} {planned.digest}: another process executes it; waiting")
        held.acquire()
    try:
        yield
    finally:
        held.release()


def sweep(home: Path, mine: str) -> bool:
    """Remove what killed processes left of runs that nobody is executing now; returns whether they left some of `mine`.

    Of other runs an empty folder stays, from which their next start sees that it is not the first. The lock of `mine`
    is held already.
    """
    again = False
    for left in home.glob(".*.tmp"):
        digest = left.name.split(".")[1]
        lock = FileLock(home / f".{digest}.lock")
        with suppress(Timeout):
            if digest != mine:
                lock.acquire(timeout=0)
            again |= digest == mine
            shutil.rmtree(left, ignore_errors=True)
            if digest != mine:
                left.mkdir(exist_ok=True)
            lock.release()
    return again


def _status(folder: Path) -> dict[str, Any]:
    try:
        status = json.loads((folder / "status.json").read_text("utf-8"))
        return status if isinstance(status, dict) else {}
    except (OSError, ValueError):
        return {}


def _literal(path: Path) -> str:
    """papermill formats paths with the parameters; braces of a real path must survive that."""
    return str(path).replace("{", "{{").replace("}", "}}")
