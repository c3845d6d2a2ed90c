"""`unlearnkit bench leaderboard`: every method with its tuned settings, several seeds, measured for the shipped table.

One method and seed at a time, appended as it comes: a run that was cut off goes on where it was. Seconds are CPU
seconds of this process on one thread (`unlearnkit.bench.clock`), of the methods as of retraining.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from unlearnkit.bench.clock import clock
from unlearnkit.benchmark.digests import case_digests
from unlearnkit.benchmark.measure import benchmark_rows
from unlearnkit.benchmark.rows import BRANCHES, checked, read_rows
from unlearnkit.errors import UnlearnkitError, unknown, whole_number
from unlearnkit.methods import METHODS
from unlearnkit.models import store
from unlearnkit.problem import load_problem
from unlearnkit.runs.files import unwritable, write
from unlearnkit.runs.freshness import PACKAGE
from unlearnkit.runs.plan import covered
from unlearnkit.unlearning import unlearn

REQUESTS = {"text": ("authors", "forget10", 3), "image": ("canvas", "striped", 2)}  # world, request, shipped oracles
BASELINES = ("oracle",)  # of the registry; the problem's oracles are measured as such


def main(
    branch: str,
    seeds: int = 3,
    out: Path | None = None,
    minutes: float | None = None,
    methods: Sequence[str] | None = None,
) -> Path:
    """Measure what the table does not hold yet; returns its path.

    Args:
        out: default ``leaderboard_<branch>.csv`` here.
        minutes: begin nothing new after so many; the next start goes on.
        methods: registered names; default all. The oracles are measured in any case.

    Raises:
        UnlearnkitError: an unknown branch or method, or a table that can't be read or written.
    """
    if branch not in BRANCHES:
        raise unknown("branch", branch, BRANCHES)
    whole_number("seeds", seeds, 1)
    out = out or Path(f"leaderboard_{branch}.csv")
    begun = time.monotonic()
    for name in methods or ():
        METHODS[branch][name]  # an unknown one is refused before anything is done
    todo = [(name, seed) for seed in range(seeds) for name in methods or METHODS[branch] if name not in BASELINES]
    done = _done(out)
    todo = [("oracle", 0)] * ("oracle" not in {name for name, _ in done}) + [one for one in todo if one not in done]
    world, request, oracles = REQUESTS[branch]
    if todo:
        _writable(out.absolute().parent)
    problem = load_problem(world, request, seed=0, oracles=oracles) if todo else None
    for number, (name, seed) in enumerate(todo, 1):
        if minutes is not None and time.monotonic() - begun > 60 * minutes:
            print(f"{len(todo) - number + 1} of {len(todo)} are left for the next start", flush=True)
            break
        rows = _oracles(problem, branch) if name == "oracle" else _one(problem, name, seed)
        _append(out, rows)
        print(f"{number} of {len(todo)}: {name}, seed {seed}, {time.monotonic() - begun:.0f} s", flush=True)
        gc.collect()
    return out


def _writable(folder: Path) -> None:
    """Raise UnlearnkitError if nothing can be written there, before hours of work."""
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unwritable(folder, error) from error


def _one(problem: Any, name: str, seed: int) -> pd.DataFrame:
    quiet: dict[str, Any] = {} if hasattr(METHODS[problem.modality][name], "apply") else {"trace_every": 0}
    begun = clock()
    try:
        made: Any = unlearn(problem, name, seed=seed, progress=False, **quiet)
        made.cost |= {"seconds": clock() - begun, "prepare_seconds": 0.0}
    except UnlearnkitError as refusal:
        made = refusal
    return benchmark_rows(problem, {name: made}, oracles=False).assign(seed=seed)


def _oracles(problem: Any, branch: str) -> pd.DataFrame:
    """The other oracles measured as a method is, and what training one costs: one of them trained anew."""
    models = [source.get() for source in problem.oracles[1:]]
    rows = benchmark_rows(problem, {"oracle": models}, oracles=False)
    begun = clock()
    with tempfile.TemporaryDirectory(prefix="uk-oracle-") as folder:
        _oracle_build(branch)(Path(folder), True)
    cost = {**rows.iloc[0].to_dict(), "key": "seconds", "value": float(f"{clock() - begun:.6g}")}
    empty = ("original", "oracle", "gap", "floor", "relative", "before", "budget", "n")
    return pd.concat([rows, pd.DataFrame([{**cost, **dict.fromkeys(empty), "why": ""}])], ignore_index=True)


def _oracle_build(branch: str) -> Any:
    world, request, _ = REQUESTS[branch]
    for recipe, build in store.shipped_recipes():
        if recipe.note.startswith(world) and recipe.note.endswith(f"oracle of {request}"):
            return build
    raise UnlearnkitError(f"no recipe of an oracle of {world}/{request} ships.")


def _done(out: Path) -> set[tuple[str, int]]:
    rows = read_rows(out) if out.is_file() else pd.DataFrame({"method": [], "seed": []})
    return {(str(name), int(seed)) for name, seed in zip(rows["method"], rows["seed"], strict=True)}


def _append(out: Path, rows: pd.DataFrame) -> None:
    rows = checked(rows)
    rows = rows.assign(versions=_versions(), code=_code(), digest=case_digests(rows))
    whole = pd.concat([read_rows(out), rows], ignore_index=True) if out.is_file() else rows
    write(out.absolute(), whole.to_csv(index=False).encode())


def _versions() -> str:
    from importlib.metadata import version

    return ", ".join(f"{name} {version(name)}" for name in ("unlearnkit", "torch", "transformers", "diffusers"))


def _code() -> str:
    """Digest of the package's code that numbers can depend on."""
    import hashlib

    whole = hashlib.sha256()
    for name in covered():
        whole.update(name.encode() + b"\0" + (PACKAGE / name).read_bytes().replace(b"\r\n", b"\n"))
    return whole.hexdigest()[:16]
