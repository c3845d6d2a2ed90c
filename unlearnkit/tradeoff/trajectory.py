"""The way a method takes through the plane of forgetting and utility, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch

from unlearnkit.errors import whole_number
from unlearnkit.evaluation import measure, references, score
from unlearnkit.metrics.table import metric_names
from unlearnkit.unlearning import Unlearned, unlearn


def trajectory(
    problem: Any,
    method: Any,
    metrics: Sequence[str],
    *,
    every: int = 10,
    limit: int = 40,
    resamples: int = 0,
    seed: int = 0,
    on_look: Callable[[int, Any], None] | None = None,
    **settings: Any,
) -> tuple[pd.DataFrame, Unlearned]:
    """`unlearn` with a look every few steps: rows of `evaluate` with columns `step`, `method`, `balance`, `seed`.

    The looks don't change the run: the model of the last step is that of `unlearn` without them. `of_scores` makes
    points of the rows, and `Run.scores` keeps them.

    Args:
        metrics: keys of metrics.
        every: steps between two looks; the last step is always looked at.
        limit: questions asked, or pictures sampled, a split and look.
        resamples: bootstrap draws of each look's intervals; 0 for none.
        on_look: called with the step and what `measure` says of the model there, as far as `metrics` need it.
        settings: as in `unlearn`.

    Raises:
        UnlearnkitError: as `unlearn`; an unknown metric.
    """
    whole_number("every", every, 1)
    names = metric_names(problem.modality, metrics)
    quiet: dict[str, Any] = {"progress": False} if problem.modality == "image" else {}
    reference = references(problem, limit)
    tables: dict[int, pd.DataFrame] = {}

    def look(step: int, model: Any) -> None:
        with torch.random.fork_rng():
            mine = measure(problem, model, limit, names, **quiet)
        if on_look:
            on_look(step, mine)
        tables[step] = score(problem, [mine], reference, names, resamples, seed)

    def after(step: int, model: Any) -> None:
        if (step + 1) % every == 0:
            look(step + 1, model)

    unlearned = unlearn(problem, method, seed=seed, on_step=after, **settings)
    if (done := int(unlearned.cost["steps"])) not in tables:
        look(done, unlearned.model)
    rows = pd.concat([table.reset_index().assign(step=step) for step, table in tables.items()], ignore_index=True)
    balance = unlearned.settings.get("balance", "sum")
    return rows.assign(method=unlearned.method, balance=balance, seed=seed), unlearned
