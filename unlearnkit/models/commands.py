"""The commands `unlearnkit models …`."""

from __future__ import annotations

from typing import Annotated

import typer

from unlearnkit.models import store

models = typer.Typer(help="The shipped checkpoints.", no_args_is_help=True)


@models.command("build")
def models_build(force: Annotated[bool, typer.Option("--force")] = False) -> None:
    """Train the shipped checkpoints that are missing or out of date."""
    store.build(force=force)


@models.command("list")
def models_list() -> None:
    """The checkpoints of the store."""
    for entry in store.listing():
        typer.echo("  ".join(f"{key} {value}" for key, value in entry.items()))


@models.command("verify")
def models_verify() -> None:
    """Check that recipes and checkpoints belong together. Exit 1: a problem."""
    problems = store.verify()
    typer.echo("\n".join(problems) or "all checkpoints verified")
    if problems:
        raise typer.Exit(1)
