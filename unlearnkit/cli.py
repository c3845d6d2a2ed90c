"""The command line: `unlearnkit run | sweep | unlearn | doctor | report | course | models | bench`."""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from unlearnkit.errors import UnlearnkitError

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
models = typer.Typer(help="The shipped checkpoints.", no_args_is_help=True)
bench = typer.Typer(help="Benchmarks.", no_args_is_help=True)
app.add_typer(models, name="models")
app.add_typer(bench, name="bench")

Runs = Annotated[Path, typer.Option("--runs", help="Folder of the run records.")]


@app.command()
def run(
    notebooks: Annotated[list[str] | None, typer.Argument(metavar="NOTEBOOK…", help="Names or paths.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="The whole series.")] = False,
    profile: Annotated[str | None, typer.Option("--profile", help="smoke, quick, full or gpu.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="NAME VALUE", help="Set a parameter; may be repeated."),
    ] = None,
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
        raise UnlearnkitError("name the notebooks to run, or pass --all.")
    paths = series() if all_ else [find_notebook(name) for name in notebooks or []]
    workers = workers if workers is not None else usual_workers() if all_ else 1
    failed = False
    for path, outcome in run_notebooks(paths, _given(parameter or [], profile), runs, force, workers, typer.echo):
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
    from unlearnkit.runs.sweep import carry_out, read_spec

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
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="NAME VALUE", help="A setting of method or loop; may be repeated."),
    ] = None,
) -> None:
    """Unlearn once and save the model. Under `accelerate launch -m unlearnkit.cli unlearn …`, in several processes."""
    import yaml
    from accelerate import PartialState

    from unlearnkit.models.load import device_of
    from unlearnkit.problem import load_problem
    from unlearnkit.unlearning import unlearn

    processes = PartialState(cpu=device_of().type == "cpu")
    settings = {name: yaml.safe_load(str(value)) for name, value in _given(parameter or [], None).items()}
    with processes.main_process_first():  # one of them trains or fetches what is not there yet
        problem = load_problem(world, forget, model=model, revision=revision, oracles=[] if model else 0)
    made = unlearn(problem, method, seed=seed, progress=processes.is_main_process, **settings)
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


def _given(pairs: list[str], profile: str | None) -> dict[str, bool | int | float | str | None]:
    given: dict[str, bool | int | float | str | None] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UnlearnkitError(f"-p {pair}: a value is missing; write -p NAME VALUE.")
        given[name] = value
    if profile is not None:
        if given.get("profile", profile) != profile:
            raise UnlearnkitError(f"--profile {profile} and -p profile {given['profile']} contradict each other.")
        given["profile"] = profile
    return given


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    runs: Runs = Path("runs"),
    model: Annotated[
        str | None, typer.Option("--model", help="Folder or hub id: the memory that unlearning it will take.")
    ] = None,
    method: Annotated[str | None, typer.Option("--method", help="Of that model; default npo, or esd.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="NAME VALUE", help="Of that method: batch_size, lora, tokens, gpu …"),
    ] = None,
) -> None:
    """What this machine has, what notebooks need and took, whether it fits. Exit 1: something is broken."""
    from unlearnkit.runs.doctor import diagnose, shown

    if model:
        import yaml

        from unlearnkit.estimate import estimate

        settings = {name: yaml.safe_load(str(value)) for name, value in _given(parameter or [], None).items()}
        typer.echo(f"{model}: {estimate(model, method, **settings)}")
        return
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

        found, faults = check_results(check, runs)
        typer.echo("\n".join(faults) if faults or found is None else f"in order: {found.about()}")
        if faults:
            raise typer.Exit(1)
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


@models.command("build")
def models_build(force: Annotated[bool, typer.Option("--force")] = False) -> None:
    """Train the shipped checkpoints that are missing or out of date."""
    from unlearnkit.models import store

    store.build(force=force)


@models.command("list")
def models_list() -> None:
    """The checkpoints of the store."""
    from unlearnkit.models import store

    for entry in store.listing():
        typer.echo("  ".join(f"{key} {value}" for key, value in entry.items()))


@models.command("verify")
def models_verify() -> None:
    """Check that recipes and checkpoints belong together. Exit 1: a problem."""
    from unlearnkit.models import store

    problems = store.verify()
    typer.echo("\n".join(problems) or "all checkpoints verified")
    if problems:
        raise typer.Exit(1)


@bench.command("text")
def bench_text(
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here too.")] = None,
) -> None:
    """Our unlearning step and evaluation against the naive way, on one model and data."""
    import_module("unlearnkit.bench.text").main(as_json)


@bench.command("image")
def bench_image(
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here too.")] = None,
) -> None:
    """ESD from a bank of trajectories against fresh ones, guided sampling, evaluation, cost against size."""
    import_module("unlearnkit.bench.image").main(as_json)


@bench.command("verdict")
def bench_verdict(
    branch: Annotated[list[str] | None, typer.Option("--branch", help="text or image; by default both.")] = None,
) -> None:
    """Verdicts on models of known truth: sets the thresholds of data/verdict.yml, prints the confusion tables."""
    import_module("unlearnkit.attribution.calibration").main(branch or ["text", "image"])


@bench.command("lds")
def bench_lds() -> None:
    """The linear datamodeling score of every data attribution, against tiny models retrained on halves."""
    import_module("unlearnkit.attribution.lds").main()


@bench.command("recall")
def bench_recall() -> None:
    """Which records that a request left out each data attribution finds, over many requests."""
    import_module("unlearnkit.attribution.recall").main()


@bench.command("metrics")
def bench_metrics(
    branch: Annotated[list[str] | None, typer.Option("--branch", help="text or image; by default both.")] = None,
) -> None:
    """Faithfulness and robustness of every metric, on a pool of models of known truth; resumable."""
    import_module("unlearnkit.bench.metrics").main(branch or ["text", "image"])


@bench.command("sweep")
def bench_sweep(
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here too.")] = None,
    count: Annotated[int, typer.Option("--runs", help="Of the sweep whose workers are killed.")] = 200,
) -> None:
    """What a run costs beside its work, throughput of two workers against one, and a sweep whose workers are killed."""
    import_module("unlearnkit.bench.sweep").main(as_json, count)


@bench.command("leaderboard")
def bench_leaderboard(
    branch: Annotated[str, typer.Option("--branch", help="text or image.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="A table; what it holds is kept.")] = None,
    seeds: Annotated[int, typer.Option("--seeds")] = 3,
    minutes: Annotated[float | None, typer.Option("--minutes", help="Begin nothing new after so many.")] = None,
    method: Annotated[list[str] | None, typer.Option("--method", help="By default all; may be repeated.")] = None,
) -> None:
    """Every method with its tuned settings, evaluated, relearned and quantized; goes on where it was cut off."""
    typer.echo(import_module("unlearnkit.bench.leaderboard").main(branch, seeds, out, minutes, method))


@bench.callback()
def bench_() -> None:
    """Benchmarks."""


def _paired(words: list[str]) -> list[str]:
    """`-p NAME VALUE`, as papermill has it, into `-p NAME=VALUE`, which typer can read."""
    paired, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        paired.append(word)
        if word in ("-p", "--parameter") and rest:
            name = rest.pop(0)
            paired.append(f"{name}={rest.pop(0)}" if "=" not in name and rest else name)
    return paired


def main() -> None:
    """Entry point: bad input is one line and exit code 2, an interrupt 130, SIGTERM 143 after tidying up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app(args=_paired(sys.argv[1:]))
    except UnlearnkitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
