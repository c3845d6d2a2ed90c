"""Several notebooks side by side, each in a process of its own with its share of the cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from unlearnkit.errors import UnlearnkitError
from unlearnkit.runs.execute import HEARTBEAT, Outcome, complete, run_notebook
from unlearnkit.runs.parameters import Scalar
from unlearnkit.runs.plan import plan

MOST = 4  # workers by default: each notebook wants about 1.5 GB


def usual_workers() -> int:
    """One a GPU; without any, one a core, four at most."""
    import torch

    return torch.cuda.device_count() or min(MOST, os.cpu_count() or 1)


def run_notebooks(
    paths: Sequence[Path],
    given: Mapping[str, Scalar],
    runs: Path,
    force: bool = False,
    workers: int = 1,
    say: Callable[[str], object] | None = None,
) -> Iterator[tuple[Path, Outcome]]:
    """Execute each notebook as `run_notebook` does; all are checked before the first one works.

    With several workers each has one notebook at a time, and outcomes come as they end. A notebook whose metadata
    say ``{"unlearnkit": {"after": "all"}}`` reads what others found: it waits for all of them.

    Raises:
        UnlearnkitError: bad parameters, a bad notebook, workers below 1, a full disk.
    """
    if workers < 1:
        raise UnlearnkitError(f"workers = {workers} is not possible; give 1 or more.")
    plans = {path: plan(path, given) for path in paths}
    readers = [path for path in paths if plans[path].reads_others]
    rest = [path for path in paths if path not in readers]
    if workers > 1:  # the longest first, so that none is left to run alone
        rest.sort(key=lambda path: -plans[path].config.needs.get("seconds", 0))
    for batch in (rest, *([path] for path in readers)):
        waiting = [path for path in batch if force or not complete(runs, plans[path])]
        for path in batch:
            if path not in waiting or min(workers, len(waiting)) == 1:
                yield path, run_notebook(path, given, runs, force, say)
        if min(workers, len(waiting)) > 1:
            yield from _side_by_side(waiting, given, runs.absolute(), force, workers, say)


def _side_by_side(
    paths: Sequence[Path],
    given: Mapping[str, Scalar],
    runs: Path,
    force: bool,
    workers: int,
    say: Callable[[str], object] | None,
) -> Iterator[tuple[Path, Outcome]]:
    from unlearnkit.runs.cluster import connected

    ended: SimpleQueue[Any] = SimpleQueue()
    with connected(min(workers, len(paths)), None) as client:
        if say:
            say(f"{len(paths)} notebooks, {min(workers, len(paths))} side by side")
        futures = {client.submit(run_notebook, path, dict(given), runs, force, pure=False): path for path in paths}
        for future in futures:
            future.add_done_callback(ended.put)
        while futures:
            try:
                future = ended.get(timeout=HEARTBEAT)
            except Empty:
                if say:
                    say(f"{len(futures)} of {len(paths)} notebooks to go")
                continue
            path = futures.pop(future)
            if future.status == "finished":
                yield path, future.result()
                continue
            error = future.exception()
            if isinstance(error, UnlearnkitError):
                raise error
            folder = runs / path.stem / plan(path, given).digest
            yield path, Outcome(folder, "failed", False, 0.0, f"{type(error).__name__}: {error}")
