"""The commands `unlearnkit bench …`; what they measure is imported when asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

bench = typer.Typer(help="Benchmarks.", no_args_is_help=True)

Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here too.")]
Branches = Annotated[list[str] | None, typer.Option("--branch", help="text or image; by default both.")]


@bench.command("text")
def bench_text(as_json: Json = None) -> None:
    """Our unlearning step and evaluation against the naive way, on one model and data."""
    import_module("unlearnkit.bench.text").main(as_json)


@bench.command("image")
def bench_image(as_json: Json = None) -> None:
    """ESD from a bank of trajectories against fresh ones, guided sampling, evaluation, cost against size."""
    import_module("unlearnkit.bench.image").main(as_json)


@bench.command("verdict")
def bench_verdict(branch: Branches = None) -> None:
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
def bench_metrics(branch: Branches = None) -> None:
    """Faithfulness and robustness of every metric, on a pool of models of known truth; resumable."""
    import_module("unlearnkit.bench.metrics").main(branch or ["text", "image"])


@bench.command("sweep")
def bench_sweep(
    as_json: Json = None,
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
