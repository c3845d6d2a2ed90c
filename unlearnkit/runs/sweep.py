"""Sweeps: many runs of one notebook, from a grid or a search, on the workers of a Dask cluster.

>>> from unlearnkit.runs.sweep import carry_out, read_spec
>>> spec = read_spec("grid.yml", "grid")  # fixed: {world: authors}; grid: {methods: [npo, simnpo], seed: [0, 1, 2]}
>>> carry_out("07_tradeoff", spec, workers=2)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from unlearnkit.errors import UnlearnkitError
from unlearnkit.runs.execute import Outcome, complete, run_notebook
from unlearnkit.runs.files import write_json
from unlearnkit.runs.parameters import Scalar
from unlearnkit.runs.plan import find_notebook, plan
from unlearnkit.runs.spec import Grid, Point, Search, digest_of_spec, read_spec

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Grid", "Search", "Tally", "carry_out", "read_spec"]

TOLD = 300  # characters of a failure that are shown


class GridSource:
    """Points of a list, one after the other."""

    found = 0  # ended before this start: only a search remembers

    def __init__(self, points: Iterable[Mapping[str, Scalar]]) -> None:
        self.points = [Point(k, given) for k, given in enumerate(points)]
        self.total = len(self.points)
        self._next = iter(self.points)

    def ask(self) -> Point | None:
        return next(self._next, None)

    def tell(self, point: Point, outcome: Outcome) -> None:
        pass


@dataclass
class Tally:
    """What became of a sweep's runs."""

    notebook: str
    done: int = 0  # executed now
    found: int = 0  # complete before
    again: int = 0  # of those executed now: begun before, by a process that died
    failures: dict[str, str] = field(default_factory=dict)  # run folder or parameters → why
    folders: list[str] = field(default_factory=list)  # of the complete runs, relative to the folder of runs

    def __str__(self) -> str:
        words = f"{self.done} runs executed, {self.found} found, {len(self.failures)} failed"
        if self.again:
            words += f"; {self.again} {'was' if self.again == 1 else 'were'} begun again after a process died"
        return "\n".join([words, *(f"failed: {which}: {why}" for which, why in self.failures.items())])


def carry_out(
    notebook: str,
    spec: Grid | Search,
    *,
    trials: int = 20,
    workers: int | None = None,
    scheduler: str | None = None,
    runs: Path | str = "runs",
    progress: bool = True,
) -> Tally:
    """Execute every run of a sweep that isn't complete yet; a failed run doesn't stop the others.

    Args:
        notebook: a name of the series, or a path.
        trials: of a search, those of earlier starts included.
        workers: processes of a local cluster, one run each at a time; by default one a GPU, else one.
        scheduler: address of a running Dask scheduler instead; its workers need the package and the folder of runs.
        runs: folder of the run records, shared by all workers.

    Raises:
        UnlearnkitError: a parameter that the notebook doesn't take (before any work), an unreachable scheduler,
            objectives that no run has.
    """
    path, home = find_notebook(notebook), Path(runs).absolute()
    if workers is not None and workers < 1:
        raise UnlearnkitError(f"workers = {workers} is not possible; give 1 or more.")
    if workers is not None and scheduler is not None:
        raise UnlearnkitError("--workers and --scheduler contradict each other; a scheduler has workers of its own.")
    source: Any
    if isinstance(spec, Grid):
        source = GridSource(spec)
        for point in source.points:
            plan(path, point.given)
    else:
        from unlearnkit.runs.search import SearchSource

        source = SearchSource(path, spec, home, trials)
    tally = Tally(path.stem, found=source.found)
    with ExitStack() as stack:
        _work(lambda: _client(stack, workers, scheduler), path, source, tally, home, spec.resources, progress)
    file = home / path.stem / f"sweep-{digest_of_spec(spec)}.json"
    complete_now = {*tally.folders, *_listed(file, home)}
    write_json(file, {"spec": spec.model_dump(), "runs": sorted(complete_now), "failed": sorted(tally.failures)})
    return tally


def _listed(file: Path, home: Path) -> list[str]:
    """The runs that an earlier start of this sweep listed and that are still there: a search begins none of them."""
    try:
        earlier = json.loads(file.read_text("utf-8"))["runs"]
    except (FileNotFoundError, ValueError, KeyError):
        return []
    return [folder for folder in earlier if (home / folder / "status.json").is_file()]


def _client(stack: ExitStack, workers: int | None, scheduler: str | None) -> Client:
    from unlearnkit.runs.cluster import connected

    return stack.enter_context(connected(workers, scheduler))


def _work(
    connect: Callable[[], Client],
    path: Path,
    source: Any,
    tally: Tally,
    home: Path,
    resources: dict[str, float],
    progress: bool,
) -> None:
    """Keep every worker at one run until the source has no more.

    What is complete already is never sent, and without anything to send no cluster is started.
    """
    from tqdm.auto import tqdm

    running: dict[Any, Point] = {}
    ended: SimpleQueue[Any] = SimpleQueue()
    client: Client | None = None
    bar = tqdm(total=source.total, desc=f"sweep {path.stem}", unit="run", disable=None if progress else True)

    def settle(point: Point, outcome: Outcome) -> None:
        _settle(tally, source, point, outcome, home)
        bar.update()
        bar.set_postfix(found=tally.found, failed=len(tally.failures))

    while True:
        while not client or len(running) < max(1, len(client.scheduler_info(n_workers=-1)["workers"])):
            point = source.ask()
            if point is None:
                break
            if complete(home, plan(path, point.given)):
                settle(point, run_notebook(path, point.given, home))
                continue
            client = client or connect()
            future = client.submit(run_notebook, path, dict(point.given), home, pure=False, resources=resources or None)
            running[future] = point
            future.add_done_callback(ended.put)
        if not running:
            break
        future = ended.get()
        point = running.pop(future)
        settle(point, future.result() if future.status == "finished" else _lost(future, path, point, home))
    bar.close()


def _lost(future: Any, path: Path, point: Point, home: Path) -> Outcome:
    """A run whose worker died again and again, or that could not begin."""
    folder = home / path.stem / plan(path, point.given).digest
    return Outcome(folder, "failed", False, 0.0, f"{type(future.exception()).__name__}: {future.exception()}")


def _settle(tally: Tally, source: Any, point: Point, outcome: Outcome, home: Path) -> None:
    source.tell(point, outcome)
    if outcome.state != "complete":
        why = (outcome.traceback or "").strip().rpartition("\n")[2][:TOLD]
        tally.failures[f"{outcome.folder.name} {json.dumps(dict(point.given))}"] = why
        return
    tally.folders.append(str(outcome.folder.relative_to(home)))
    if outcome.found:
        tally.found += 1
    else:
        tally.done += 1
        tally.again += outcome.again
