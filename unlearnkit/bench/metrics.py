"""Meta-evaluation of every metric: trains and measures a pool a branch, writes data/measured/meta_*."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unlearnkit.errors import unknown
from unlearnkit.metaevaluation import Pool, known_models, measuring, meta_evaluate, pool_of, save_pool
from unlearnkit.metaevaluation import known as made
from unlearnkit.metaevaluation.pool import BRANCHES
from unlearnkit.models.source import ModelSource
from unlearnkit.models.store import cache_dir
from unlearnkit.paths import data_dir

TEXT: dict[str, Any] = {"n_authors": 10, "facts": 8}  # a small world, so that a model takes seconds to train
SIZE: dict[str, Any] = {
    "width": 96, "layers": 3, "heads": 4, "inner": 288, "vocabulary": 768, "steps": 160, "batch_size": 32, "lr": 5e-3,
}  # fmt: skip
FORGOTTEN = 3  # authors of the request: 24 questions, 12 of them not shown in relearning
ORACLES = 2  # of the problem, references like its original
EACH = 4  # models trained with and without the forgotten
ON = 10  # steps of fine-tuning by which pipelines of one seed are told apart
LIMIT = 24  # questions or pictures a split


def text_sources(seed: int = 0) -> tuple[Any, list[ModelSource], list[ModelSource]]:
    """(problem, models trained with the forgotten, models trained without), each from its own seed."""
    from unlearnkit.models.builtin import text_checkpoint, text_recipe
    from unlearnkit.models.load import load_model
    from unlearnkit.problem import load_problem
    from unlearnkit.worlds import authors, split, training_items

    world = authors(seed=seed, **TEXT)
    request = list(world.entities[:FORGOTTEN])
    problem = load_problem("authors", request, seed, oracles=ORACLES, **TEXT, **SIZE)
    splits = split(world, request)
    asked = {
        name: problem.splits[name] for name in ("forget", "retain", "holdout")
    }  # what metrics of the forgotten read

    def source(oracle: bool, k: int) -> ModelSource:
        items = training_items(splits, oracle=oracle)
        name = f"{'retrained' if oracle else 'trained'} {k}"
        recipe = text_recipe(world, items, f"{world.name}: {name}, of a pool", 1000 * seed + 100 + k, **SIZE)
        return ModelSource(lambda: load_model(text_checkpoint(recipe, world, items), device=problem.device), name)

    problem = dataclasses.replace(problem, splits=asked, measured={})
    return problem, [source(False, k) for k in range(EACH)], [source(True, k) for k in range(EACH, 2 * EACH)]


def image_sources(seed: int = 0) -> tuple[Any, list[ModelSource], list[ModelSource]]:
    """The same of the shipped pipelines of digits, told apart by fine-tuning on retained pictures, not by training."""
    from unlearnkit.problem import load_problem
    from unlearnkit.unlearning import unlearn

    problem = load_problem("digits", "seven", seed, oracles=ORACLES)

    def source(name: str, base: ModelSource, k: int) -> ModelSource:
        def tuned() -> Any:
            of = dataclasses.replace(problem, original=base, measured={})
            return unlearn(of, "retain_finetune", steps=ON, seed=seed + k, progress=False).model

        return ModelSource(tuned, f"{name} {k}")

    bases = [source("trained", problem.original, k) for k in range(EACH)]
    return problem, bases, [source("retrained", problem.oracles[-1], k) for k in range(EACH, 2 * EACH)]


def measured_pool(branch: str, work: Path | None = None) -> Pool:
    """The pool of a branch; every measured model is kept in `work` and found again.

    Raises:
        UnlearnkitError: an unknown branch.
    """
    if branch not in BRANCHES:
        raise unknown("branch", branch, BRANCHES)
    problem, trained, retrained = {"text": text_sources, "image": image_sources}[branch]()
    settings = [
        TEXT, SIZE, FORGOTTEN, ON, LIMIT, made.TAUGHT, made.TAUGHT_PICTURES, made.RUIN, made.SHAKEN, made.GUARD,
        measuring.STEPS, measuring.BITS, problem.digest,
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    folder = (work or cache_dir().parent / "pools") / f"{branch}-{digest}"
    return pool_of(problem, known_models(problem, trained, retrained), limit=LIMIT, work=folder)


def main(branches: Sequence[str] = BRANCHES, work: Path | None = None, folder: Path | None = None) -> None:
    """The command: writes meta_pool_<branch>.npz and meta_evaluation_<branch>.csv, prints the table."""
    folder = folder or data_dir() / "measured"
    for branch in branches:
        pool = measured_pool(branch, work)
        save_pool(pool, folder / f"meta_pool_{branch}.npz")
        table = meta_evaluate(pool=folder / f"meta_pool_{branch}.npz")
        table.to_csv(folder / f"meta_evaluation_{branch}.csv", float_format="%.4f")
        print(pool.counts().to_string())
        print(table[["auc", "auc_low", "auc_high", "hides", "ruined", "caught", "relearn", "quantize", "why"]].round(2))
