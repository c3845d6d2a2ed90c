"""The verb `evaluate`: original, unlearned and oracle side by side, with gap, noise floor and interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.errors import unknown
from unlearnkit.metrics.measure import Measured, measure
from unlearnkit.metrics.table import METRICS, Items, Metric, NotMeasurable, arrays
from unlearnkit.unlearning import Unlearned

COLUMNS = [
    "split", "metric", "original", "unlearned", "low", "high", "oracle", "gap", "gap_low", "gap_high", "floor",
    "relative", "n", "seeds", "why",
]  # fmt: skip


def evaluate(
    problem: Any,
    unlearned: Any,
    metrics: Sequence[str] | None = None,
    *,
    limit: int = 100,
    resamples: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """A tidy table, one row a metric.

    Columns: `original`, `unlearned` (with 95% interval `low`–`high`), `oracle`; `gap` = |unlearned − oracle| /
    |original − oracle| (0 as retrained, 1 nothing happened, > 1 worse than nothing) with its interval; `floor`, the
    largest such gap of another oracle; `relative` = unlearned / original; `n` items, `seeds` unlearned models;
    `why` a value is missing ("not measurable: …"). Index: metric key.

    Args:
        unlearned: what `unlearn` returned, a model, or a list of either (several seeds of one method).
        metrics: keys of `METRICS`; default all that apply.
        limit: questions asked a split.
        resamples: paired bootstrap draws over items, and over seeds when more than one is given.
    """
    names = list(METRICS) if metrics is None else list(metrics)
    for name in names:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    several = unlearned if isinstance(unlearned, (list, tuple)) else [unlearned]
    models = [u.model if isinstance(u, Unlearned) else u for u in several]
    mine = [measure(problem, model, limit) for model in models]
    return score(problem, mine, references(problem, limit), names, resamples, seed, metrics is None)


def references(problem: Any, limit: int = 100) -> tuple[Measured, list[Measured]]:
    """What the original and the oracles measure; asked once a problem."""
    key = ("references", limit)
    if key not in problem.measured:
        problem.measured[key] = (
            measure(problem, problem.model, limit),
            [measure(problem, source.get(), limit) for source in problem.oracles],
        )
    return problem.measured[key]


def score(
    problem: Any,
    mine: Sequence[Measured],
    reference: tuple[Measured, list[Measured]],
    names: Sequence[str],
    resamples: int = 200,
    seed: int = 0,
    drop_absent: bool = False,
) -> pd.DataFrame:
    """The table of `evaluate` from measured items alone (no model is run).

    Args:
        drop_absent: leave out the rows of splits this problem does not have.
    """
    original, oracles = reference
    arrays_of: dict[str, Any] = {
        "mine": [arrays(m.items) for m in mine],
        "original": arrays(original.items),
        "oracles": [arrays(o.items) for o in oracles],
    }
    sizes = {split: len(next(iter(table.values()))) for split, table in arrays_of["original"].items()}
    draw = np.random.default_rng(seed)
    picks = [{s: draw.integers(0, n, n) for s, n in sizes.items()} for _ in range(resamples)]
    seeds = [draw.integers(0, len(mine), len(mine)) for _ in range(resamples)]
    draws = [_resampled(arrays_of, pick) for pick in picks]
    rows = []
    for name in names:
        row = METRICS[name]
        if drop_absent and row.split not in sizes:
            continue
        rows.append({"key": name, **_row(row, arrays_of, draws, seeds, sizes)})
    return pd.DataFrame(rows, columns=["key", *COLUMNS]).set_index("key")


def _resampled(arrays_of: dict[str, Any], pick: dict[str, np.ndarray]) -> dict[str, Any]:
    def take(model: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
        return {s: {c: v[pick[s]] for c, v in table.items()} for s, table in model.items()}

    return {
        "mine": [take(m) for m in arrays_of["mine"]],
        "original": take(arrays_of["original"]),
        "oracles": [take(o) for o in arrays_of["oracles"]],
    }


def _three(row: Metric, of: dict[str, Any], seeds: Sequence[int]) -> tuple[float, float, float, list[float]]:
    """(original, mean over the unlearned models, oracle, other oracles) of one metric."""
    oracles = of["oracles"]
    original = row.compute(Items(of["original"], oracles))
    mine = float(np.mean([row.compute(Items(of["mine"][s], oracles)) for s in seeds]))
    used = oracles[1:] if row.against_oracle else oracles
    levels = []
    for oracle in used:
        try:
            levels.append(row.compute(Items(oracle, oracles)))
        except NotMeasurable:
            break
    return original, mine, levels[0] if levels else np.nan, levels[1:]


def _row(
    row: Metric, arrays_of: dict[str, Any], draws: list[dict[str, Any]], seeds: list[np.ndarray], sizes: dict[str, int]
) -> dict[str, Any]:
    count = len(arrays_of["mine"])
    out: dict[str, Any] = {"split": row.split, "metric": row.name, "n": sizes.get(row.split, 0), "seeds": count}
    try:
        original, mine, oracle, others = _three(row, arrays_of, range(count))
    except NotMeasurable as reason:
        return {**out, "why": f"not measurable: {reason}"}
    if original < row.ability:
        return {**out, "original": original, "why": f"not measurable: the original itself reaches {original:.2f}"}
    out |= {"original": original, "unlearned": mine, "oracle": oracle}
    out["relative"] = mine / original if original else np.nan
    drawn: list[tuple[float, float, float]] = []
    for draw, pick in zip(draws, seeds, strict=True) if row.interval else ():
        try:
            first, second, third, _ = _three(row, draw, [int(s) for s in pick])
        except NotMeasurable:
            continue
        drawn.append((first, second, third))
    if drawn:
        o, u, r = np.array(drawn).T
        out["low"], out["high"] = np.nanpercentile(u, [2.5, 97.5])
    if np.isnan(oracle):
        needed = "another oracle" if row.against_oracle and arrays_of["oracles"] else "an oracle"
        return {**out, "why": f"gap not measurable: it needs {needed}"}
    distance = abs(original - oracle)
    spread = max((abs(x - oracle) for x in others), default=0.0)
    apart = not drawn or bool(np.sign(np.percentile(o - r, 2.5)) == np.sign(np.percentile(o - r, 97.5)) != 0)
    if distance == 0 or distance <= spread or not apart:
        return {**out, "why": "gap not measurable: original and oracle do not differ beyond noise"}
    out["gap"] = abs(mine - oracle) / distance
    out["floor"] = spread / distance if others else np.nan
    if drawn:
        with np.errstate(divide="ignore", invalid="ignore"):
            gaps = np.abs(u - r) / np.abs(o - r)
        out["gap_low"], out["gap_high"] = np.nanpercentile(gaps, [2.5, 97.5])
    out["why"] = "" if others else "floor not measurable: it needs another oracle"
    return out
