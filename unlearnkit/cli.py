"""The command line: `unlearnkit run | sweep | unlearn | doctor | report | course | models | bench`."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from unlearnkit.bench.commands import bench
from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.commands import models
from unlearnkit.runs.words import given, settings
from unlearnkit.runs.words import paired as _paired

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
app.add_typer(models, name="models")
app.add_typer(bench, name="bench")

Runs = Annotated[Path, typer.Option("--runs", help="Folder of the run records.")]


def _named(about: str) -> Any:
    return typer.Option("-p", "--parameter", metavar="NAME VALUE", help=about)


@app.command()
def run(
    notebooks: Annotated[list[str] | None, typer.Argument(metavar="NOTEBOOK…", help="Names or paths.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="The whole series.")] = False,
    profile: Annotated[str | None, typer.Option("--profile", help="smoke, quick, full or gpu.")] = None,
    parameter: Annotated[list[str] | None, _named("Set a parameter; may be repeated.")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Notebooks side by side; with --all one a GPU or core, at most 4.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Execute even what is complete.")] = False,
    runs: Runs = Path("runs"),
) -> None:
    """Execute notebooks into run folders; what is complete already is found again."""
    from unlearnkit.runs.parallel import run_notebooks, usual_workers
    from unlearnkit.runs.plan import find_notebook, series

    if bool(notebooks) == all_:
        raise UnlearnkitError("name the notebooks to run, or pass --all, not both.")
    paths = series() if all_ else [find_notebook(name) for name in notebooks or []]
    workers = workers if workers is not None else usual_workers() if all_ else 1
    failed = False
    for path, outcome in run_notebooks(paths, given(parameter, profile), runs, force, workers, typer.echo):
        state = "found" if outcome.found else outcome.state
        shown = Path(os.path.relpath(outcome.folder))
        typer.echo(f"{path.stem:<28} {outcome.folder.name}  {state:<8} {outcome.seconds:7.1f} s  {shown}")
        if outcome.state == "failed":
            failed = True
            typer.echo(_reason(outcome.traceback or "", shown), err=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def sweep(
    notebook: Annotated[str, typer.Argument(metavar="NOTEBOOK", help="A name of the series, or a path.")],
    grid: Annotated[Path | None, typer.Option("--grid", metavar="FILE", help="YAML: fixed, grid, resources.")] = None,
    search: Annotated[
        Path | None, typer.Option("--search", metavar="FILE", help="YAML: fixed, space, objectives, seed, storage.")
    ] = None,
    trials: Annotated[int, typer.Option("--trials", help="Of a search, with those of earlier starts.")] = 20,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes here, a run each; by default one a GPU, else one.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="ADDRESS", help="A running Dask scheduler instead.")
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Execute a grid or a search of runs; what is complete is found again. Exit 1: some runs failed."""
    from unlearnkit.runs.spec import read_spec
    from unlearnkit.runs.sweep import carry_out

    if (grid is None) == (search is None):
        raise UnlearnkitError("give a sweep one file: --grid FILE or --search FILE.")
    spec = read_spec(grid, "grid") if grid else read_spec(search or Path(), "search")
    tally = carry_out(notebook, spec, trials=trials, workers=workers, scheduler=scheduler, runs=runs)
    typer.echo(str(tally))
    if tally.failures:
        raise typer.Exit(1)


@app.command("unlearn")
def unlearn_(
    world: Annotated[str, typer.Argument(metavar="WORLD", help="As load_problem takes it: a name or a path.")],
    method: Annotated[str, typer.Argument(metavar="METHOD")],
    out: Annotated[Path, typer.Option("--out", help="Folder for model, tokenizer, settings and trace.")],
    forget: Annotated[str | None, typer.Option("--forget", help="The request.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Folder or hub id of the original.")] = None,
    revision: Annotated[str | None, typer.Option("--revision")] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    parameter: Annotated[list[str] | None, _named("A setting of method or loop; may be repeated.")] = None,
) -> None:
    """Unlearn once and save the model. Under `accelerate launch -m unlearnkit.cli unlearn …`, in several processes."""
    from accelerate import PartialState

    from unlearnkit.models.load import device_of
    from unlearnkit.problem import load_problem
    from unlearnkit.unlearning import free_folder, unlearn

    free_folder(out)  # before minutes of work, not after
    processes = PartialState(cpu=device_of().type == "cpu")
    chosen = settings(parameter)
    with processes.main_process_first():  # one of them trains or fetches what is not there yet
        problem = load_problem(world, forget, model=model, revision=revision, oracles=[] if model else 0)
    made = unlearn(problem, method, seed=seed, progress=processes.is_main_process, **chosen)
    if processes.is_main_process:
        made.save(out, getattr(problem, "tokenizer", None))
        typer.echo(f"{made}\nsaved: {out}")
    processes.wait_for_everyone()


def _reason(traceback: str, folder: Path) -> str:
    """Why a run failed: the one sentence of an error of ours, otherwise the end of the traceback."""
    kind, _, sentence = traceback.strip().rpartition("\n")[2].partition(": ")
    if kind.rpartition(".")[2] in ("UnlearnkitError", "DivergedError"):
        return f"error: {sentence} (traceback: {folder / 'status.json'})"
    return traceback.strip()[-2000:]


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    runs: Runs = Path("runs"),
    model: Annotated[
        str | None, typer.Option("--model", help="Folder or hub id: the memory that unlearning it will take.")
    ] = None,
    method: Annotated[str | None, typer.Option("--method", help="Of that model; default npo, or esd.")] = None,
    parameter: Annotated[list[str] | None, _named("Of that method: batch_size, lora, tokens, gpu …")] = None,
) -> None:
    """What this machine has, what notebooks need and took, whether it fits. Exit 1: something is broken."""
    from unlearnkit.runs.doctor import diagnose, shown

    if model:
        from unlearnkit.estimate import estimate

        typer.echo(f"{model}: {estimate(model, method, **settings(parameter))}")
        return
    if method or parameter:
        raise UnlearnkitError("--method and -p say how a model is unlearned; name it with --model.")
    found = diagnose(runs)
    typer.echo(json.dumps(found, indent=2) if as_json else shown(found))
    if not found["ok"]:
        raise typer.Exit(1)


@app.command()
def report(
    runs: Runs = Path("runs"),
    out: Annotated[Path | None, typer.Option("--out", help="By default report.html among the runs.")] = None,
    check: Annotated[
        Path | None, typer.Option("--check", metavar="FILE", help="Check a results.json instead. Exit 1: a fault.")
    ] = None,
) -> None:
    """Print the verdicts of the claims; write a page of all finished runs, its leaderboards, and their numbers."""
    if check is not None:
        from unlearnkit.benchmark.submission import check_results

        found, faults = check_results(check, runs if runs != Path("runs") or runs.is_dir() else None)
        if faults or found is None:
            typer.echo("\n".join(faults))
            raise typer.Exit(1)
        here = sum((runs / run.notebook / run.run).is_dir() for run in found.runs)
        typer.echo(f"in order: {found.about()}")
        typer.echo(f"compared with its runs in {runs}: {here} of {len(found.runs)}; --runs names another folder")
        return
    from unlearnkit.claims import in_words, verdicts
    from unlearnkit.runs.report import write_report

    page = write_report(runs, out or runs / "report.html")
    typer.echo(in_words(verdicts(runs)))
    typer.echo(f"report: {page}")


@app.command()
def course(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder.")],
    audience: Annotated[str, typer.Option("--for", metavar="students|instructors")],
    notebooks: Annotated[
        list[str] | None, typer.Argument(metavar="NOTEBOOK…", help="Names or paths; by default the whole series.")
    ] = None,
) -> None:
    """Copy the series for a course: to students without solutions, to instructors with solutions and notes."""
    from unlearnkit.runs.course import write_course
    from unlearnkit.runs.plan import find_notebook

    made = write_course(out, audience, [find_notebook(name) for name in notebooks or []])
    typer.echo(f"{len(made)} notebook{'s' * (len(made) != 1)} for {audience}: {out}")


@app.command("stamp", hidden=True)
def stamp_(notebooks: Annotated[list[str] | None, typer.Argument()] = None, runs: Runs = Path("runs")) -> None:
    """Execute notebooks in place with the quick profile, for committing; fresh ones are left alone."""
    from unlearnkit.runs.freshness import is_fresh, stamp
    from unlearnkit.runs.plan import find_notebook, series

    for path in [find_notebook(name) for name in notebooks or []] or series():
        made = "fresh" if is_fresh(path) else f"executed in {stamp(path, runs):.1f} s"
        typer.echo(f"{path.stem:<28} {made}")


def main() -> None:
    """Entry point: bad input is one line and exit code 2, an interrupt 130, SIGTERM 143 after tidying up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app(args=_paired(sys.argv[1:]))
    except UnlearnkitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as ended:
        if ended.code in (130, 143):  # typer makes an exit of Ctrl-C
            print("interrupted" if ended.code == 130 else "terminated", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
