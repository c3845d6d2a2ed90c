"""What a run costs beside its own work, and how a sweep grows with its workers: elapsed seconds, one thread each.

The runs are those of a small notebook made here: it loads the built-in world and takes gradient steps.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import psutil
from nbformat.v4 import new_code_cell, new_notebook

from unlearnkit.runs.execute import run_notebook
from unlearnkit.runs.record import read_runs
from unlearnkit.runs.spec import Grid
from unlearnkit.runs.sweep import carry_out

NAME = "01_bench"
PARAMETERS = """profile: str = "quick"  # quick
seed: int = 0  # of the run
steps: int = 20  # gradient steps"""
CONFIGURE = f"""import unlearnkit as uk
config = uk.configure(globals(), notebook="{NAME}")
run = uk.open_run(config)"""
IMPORTS = """import pandas, torch, transformers
import unlearnkit.problem, unlearnkit.unlearning"""
WORK = """made = uk.unlearn(uk.load_problem("authors", oracles=0), "grad_diff", seed=config.seed, steps=config.steps,
                  trace_every=0, progress=False)
run.scores(made.trace.tail(1).assign(seed=config.seed)[["seed", "forget_loss", "retain_loss"]])"""


def series(folder: Path) -> Path:
    """A series of one notebook, its path."""
    (folder / "profiles").mkdir(parents=True, exist_ok=True)
    (folder / "profiles" / "quick.yml").write_text(f"{NAME}: {{}}\n")
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
    cells += [new_code_cell(text) for text in (CONFIGURE, IMPORTS, WORK)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / f"{NAME}.ipynb")
    os.environ["UNLEARNKIT_NOTEBOOKS"] = str(folder)
    return folder / f"{NAME}.ipynb"


def bench_overhead(path: Path, runs: Path, turns: int = 3) -> dict[str, float]:
    """Seconds of whole runs, of their imports, of their work, and what is left: papermill, kernel, bookkeeping."""
    rows = []
    for turn in range(turns):
        outcome = run_notebook(path, {"seed": 1000 + turn}, runs)
        if outcome.state != "complete":
            raise AssertionError(f"the benchmark's run failed:\n{outcome.traceback}")
        cells = nbformat.read(outcome.folder / "executed.ipynb", 4).cells
        spent = [cell.metadata.papermill["duration"] for cell in cells]
        imports, work = spent[-2], spent[-1]
        rows.append((outcome.seconds, imports, work, outcome.seconds - imports - work))
    names = ("run s", "imports s", "work s", "papermill and bookkeeping s")
    return dict(zip(names, np.median(rows, axis=0).tolist(), strict=True))


def import_seconds(statement: str, turns: int = 3) -> float:
    """Of one statement in a fresh interpreter, without the interpreter's own start."""

    def elapsed(text: str) -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", text], check=True)
        return time.perf_counter() - begun

    return float(np.median([elapsed(statement) - elapsed("pass") for _ in range(turns)]))


def bench_throughput(path: Path, root: Path, count: int = 8) -> dict[str, float]:
    """Runs a minute with one worker and with two, on the same grid, one thread each."""
    os.environ["OMP_NUM_THREADS"] = "1"
    spec, rate = Grid(fixed={"steps": 60}, grid={"seed": list(range(count))}), {}
    for workers in (1, 2):
        begun = time.perf_counter()
        tally = carry_out(str(path), spec, workers=workers, runs=root / f"of{workers}", progress=False)
        if tally.done != count:
            raise AssertionError(f"the benchmark's sweep is not whole: {tally}")
        rate[workers] = 60 * count / (time.perf_counter() - begun)
    return {"one worker, runs/min": rate[1], "two workers, runs/min": rate[2], "ratio": rate[2] / rate[1]}


def bench_kills(path: Path, runs: Path, count: int = 200, kills: int = 2) -> dict[str, int]:
    """A sweep over two workers, of which one is killed (SIGKILL) now and then; runs done, lost, doubled."""
    spec, stop = Grid(fixed={"steps": 2}, grid={"seed": list(range(count))}), threading.Event()
    killed = 0

    def kill() -> None:
        nonlocal killed
        while killed < kills and not stop.wait(5):
            done = len(list((runs / NAME).glob("[!.]*/status.json")))
            workers = [p for p in psutil.Process().children(recursive=True) if _is_worker(p)]
            if workers and done >= (killed + 1) * count // (kills + 1):
                os.kill(workers[killed % len(workers)].pid, signal.SIGKILL)
                killed += 1

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    tally = carry_out(str(path), spec, workers=2, runs=runs, progress=False)
    stop.set()
    thread.join()
    seeds = [record.config["seed"] for record in read_runs(runs)]
    again = carry_out(str(path), spec, workers=2, runs=runs, progress=False)
    return {
        "runs": count,
        "workers killed": killed,
        "complete": len(set(seeds)),
        "doubled": len(seeds) - len(set(seeds)),
        "failed": len(tally.failures),
        "executed by a second start": again.done,
    }


def _is_worker(process: psutil.Process) -> bool:
    """A process that runs notebooks: it has a kernel among its children."""
    try:
        return any("ipykernel_launcher" in " ".join(child.cmdline()) for child in process.children())
    except psutil.Error:
        return False


def main(json_file: Path | None = None, count: int = 200) -> dict[str, Any]:
    """Run the benchmark, print it, and write it when a file is given."""
    result: dict[str, Any] = {"about": {"clock": "elapsed seconds", "threads": 1, "cores": os.cpu_count()}}
    with tempfile.TemporaryDirectory(prefix="uk-bench-") as work:
        root = Path(work)
        path = series(root / "series")
        parts: dict[str, Callable[[], Mapping[str, Any]]] = {
            "run": lambda: bench_overhead(path, root / "overhead"),
            "import": lambda: {
                "import unlearnkit": import_seconds("import unlearnkit"),
                "import torch": import_seconds("import torch"),
                "unlearnkit.load_problem": import_seconds("import unlearnkit; unlearnkit.load_problem"),
            },
            "throughput": lambda: bench_throughput(path, root),
            "kills": lambda: bench_kills(path, root / "kills", count),
        }
        for name, measure in parts.items():  # each is said at once: the last one takes a while
            figures = result[name] = dict(measure())
            print(name, {k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}, flush=True)
    if json_file:
        json_file.write_text(json.dumps(result, indent=1) + "\n")
    return result
