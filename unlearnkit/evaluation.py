"""The verb `evaluate`: original, unlearned and oracle side by side, with gap, noise floor and interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.errors import UnlearnkitError, whole_number
from unlearnkit.metrics.draws import Draws, interval_of, kept_levels
from unlearnkit.metrics.measure import Measured
from unlearnkit.metrics.measure import measure as measure_text
from unlearnkit.metrics.table import METRICS, Items, Metric, NotMeasurable, arrays, metric_names
from unlearnkit.unlearning import check_problem, model_of

COLUMNS = [
    "split", "metric", "original", "unlearned", "low", "high", "oracle", "gap", "gap_low", "gap_high", "floor",
    "relative", "n", "seeds", "why",
]  # fmt: skip
COST = ["steps", "seconds", "prepare_seconds", "peak_memory_mb", "parameters_touched"]


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

    Columns: `original`, `unlearned` (with 95% interval `low`–`high`, Wilson's where all items give 0 or all give 1),
    `oracle`; `gap` = |unlearned − oracle| / |original − oracle| (0 as retrained, 1 nothing happened, > 1 worse than
    nothing) with its interval; `floor`, the largest such gap of another oracle; `relative` = unlearned / original; `n`
    items, `seeds` unlearned models; `why` a value is missing ("not measurable: …"). Index: metric key. Of images the
    last row, and `attrs["judge"]`, give the held-out accuracy of the judge behind the others.

    Args:
        unlearned: what `unlearn` returned, a model, what `measure` returned, or a list of these (several seeds of one
            method).
        metrics: keys of `METRICS`; default all that apply.
        limit: questions asked, or pictures sampled, a split.
        resamples: paired bootstrap draws over items, and over seeds when more than one is given.

    Raises:
        UnlearnkitError: an unknown metric, one of the other modality, or something measured with another limit.
    """
    check_problem(problem)
    whole_number("limit", limit, 1)
    whole_number("resamples", resamples)
    whole_number("seed", seed)
    names = metric_names(problem.modality, metrics)
    mine = measured(problem, unlearned, limit, metrics)
    return score(problem, mine, references(problem, limit), names, resamples, seed, metrics is None)


def measure(problem: Any, model: Any, limit: int = 100, metrics: Sequence[str] | None = None, **options: Any) -> Any:
    """Everything the metrics need of one model, asked once: see `measure_text` and `measure_images` (with pictures).

    Args:
        metrics: keys of the metrics it is for (default all): of a language model less is asked then.
    """
    model_of(problem, model)
    if metrics is not None:
        metrics = metric_names(problem.modality, metrics)
    if problem.modality == "image":
        from unlearnkit.metrics.measure_image import measure_images

        return measure_images(problem, model, limit, **options)
    return measure_text(problem, model, limit, metrics=metrics, **options)


def measured(problem: Any, unlearned: Any, limit: int, metrics: Sequence[str] | None = None) -> list[Measured]:
    """What `evaluate` accepts, as what was measured of each; raises UnlearnkitError when limits differ."""
    several = unlearned if isinstance(unlearned, (list, tuple)) else [unlearned]
    if not several:
        raise UnlearnkitError("there is nothing to evaluate: the list of unlearned models is empty.")
    out = []
    for one in several:
        if not isinstance(one, Measured):
            one = measure(problem, model_of(problem, one), limit, metrics)
        out.append(one)
    wanted = references(problem, limit)[0].items.index
    for one in out:
        if not one.items.index.equals(wanted):
            raise UnlearnkitError(
                f"what was measured has {len(one.items)} items, the original with limit = {limit} has {len(wanted)} or "
                "others; measure and evaluate with one limit."
            )
    return out


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
        "missing": getattr(original, "missing", {}),
    }
    sizes = {split: len(next(iter(table.values()))) for split, table in arrays_of["original"].items()}
    draw = np.random.default_rng(seed)
    picks = [{s: draw.integers(0, n, n) for s, n in sizes.items()} for _ in range(resamples)]
    seeds = [draw.integers(0, len(mine), len(mine)) for _ in range(resamples)]
    draws = Draws(arrays_of, picks, seeds, kept_levels(problem, reference, (resamples, seed)))
    rows = []
    for name in names:
        row = METRICS[name]
        known = arrays_of["original"].get(row.split)
        if drop_absent and (known is None or (row.needs and row.needs not in known)):
            continue
        rows.append({"key": name, **_row(row, arrays_of, draws, sizes)})
    if getattr(problem, "modality", "text") != "image":
        return pd.DataFrame(rows, columns=["key", *COLUMNS]).set_index("key")
    accuracy, held_out = getattr(problem.judge, "accuracy", {}), getattr(problem.judge, "held_out", 0)
    rows.append({"key": "judge_accuracy", **_judge_row(accuracy, held_out)})
    table = pd.DataFrame(rows, columns=["key", *COLUMNS]).set_index("key")
    table.attrs["judge"] = {"accuracy": dict(accuracy), "held_out": held_out}
    return table


def _judge_row(accuracy: Mapping[str, float], held_out: int) -> dict[str, Any]:
    """The weakest head of the judge on pictures nobody was trained on, with Wilson's 95% interval."""
    from scipy.stats import binomtest

    row = {"split": "judge", "metric": "held-out accuracy of the judge", "n": held_out, "seeds": 0}
    if not accuracy:
        return {**row, "why": "not measurable: no judge was tested on labelled pictures"}
    value = min(accuracy.values())
    out = {**row, "original": value, "unlearned": value, "oracle": value, "relative": 1.0}
    if held_out:
        interval = binomtest(round(value * held_out), held_out).proportion_ci(method="wilson")
        out["low"], out["high"] = interval.low, interval.high
    return {**out, "why": "gap not measurable: one judge reads every model"}


def _known(row: Metric, models: Sequence[Mapping[str, Mapping[str, np.ndarray]]]) -> int:
    """Items that say 0 or 1 each in every model, if the metric is a share of such items."""
    if not row.share_of:
        return 0
    return min(int((~np.isnan(model[row.split][row.share_of])).sum()) for model in models)


def _point(row: Metric, of: dict[str, Any]) -> tuple[float, float, float, list[float]]:
    """(original, mean over the unlearned models, oracle, other oracles) of one metric."""
    oracles, missing = of["oracles"], of["missing"]
    original = row.compute(Items(of["original"], oracles, missing))
    mine = float(np.mean([row.compute(Items(one, oracles, missing)) for one in of["mine"]]))
    used = oracles[1:] if row.against_oracle else oracles
    levels = []
    for oracle in used:
        try:
            levels.append(row.compute(Items(oracle, oracles, missing)))
        except NotMeasurable:
            break
    return original, mine, levels[0] if levels else np.nan, levels[1:]


def _row(row: Metric, arrays_of: dict[str, Any], draws: Draws, sizes: dict[str, int]) -> dict[str, Any]:
    count = len(arrays_of["mine"])
    out: dict[str, Any] = {"split": row.split, "metric": row.name, "n": sizes.get(row.split, 0), "seeds": count}
    try:
        original, mine, oracle, others = _point(row, arrays_of)
    except NotMeasurable as reason:
        return {**out, "why": f"not measurable: {reason}"}
    if original < row.ability:
        return {**out, "original": original, "why": f"not measurable: the original itself reaches {original:.2f}"}
    if original > row.at_most:
        return {**out, "original": original, "why": f"not measurable: the original itself is at {original:.2f}"}
    out |= {"original": original, "unlearned": mine, "oracle": oracle}
    out["relative"] = mine / original if original else np.nan
    drawn = draws.three(row)
    o, u, r = drawn.T
    if len(drawn):
        if row.distribution:
            # a resample repeats items, which moves distances between samples; only its spread is used, which in
            # simulation is 1.2 to 1.6 times the true one, so these intervals err on the wide side
            o, u, r = (x - x.mean() + value for x, value in ((o, original), (u, mine), (r, oracle)))
        out["low"], out["high"] = interval_of(u, mine, _known(row, arrays_of["mine"]))
    if np.isnan(oracle):
        needed = "another oracle" if row.against_oracle and arrays_of["oracles"] else "an oracle"
        return {**out, "why": f"gap not measurable: it needs {needed}"}
    distance = abs(original - oracle)
    spread = max((abs(x - oracle) for x in others), default=0.0)
    ends = np.sign(np.nanpercentile(o - r, [2.5, 97.5])) if (~np.isnan(r)).any() else np.zeros(2)
    apart = not len(drawn) or bool(ends[0] == ends[1] != 0)
    if distance == 0 or distance <= spread or not apart:
        return {**out, "why": "gap not measurable: original and oracle do not differ beyond noise"}
    out["gap"] = abs(mine - oracle) / distance
    out["floor"] = spread / distance if others else np.nan
    if len(drawn):
        with np.errstate(divide="ignore", invalid="ignore"):
            gaps = np.abs(u - r) / np.abs(o - r)
        # a draw in which original and oracle coincide has no gap (0/0) or an endless one
        gaps = gaps[~np.isnan(gaps)]
        if gaps.size:
            low, high = np.percentile(gaps, [2.5, 97.5], method="nearest" if np.isinf(gaps).any() else "linear")
            out["gap_low"], out["gap_high"] = low, high
    out["why"] = "" if others else "floor not measurable: it needs another oracle"
    return out


def beside_cost(
    tables: Mapping[str, pd.DataFrame], unlearned: Mapping[str, Any], metrics: Sequence[str]
) -> pd.DataFrame:
    """One row a method: what `metrics` give and what it cost, with the original above and the oracle below.

    Args:
        tables: method → its table of `evaluate`.
        unlearned: method → what `unlearn` returned, or a list of these, whose cost is then averaged.
    """
    first = next(iter(tables.values()))
    rows: dict[str, dict[str, float]] = {"original": first["original"].reindex(metrics).to_dict()}
    for name, table in tables.items():
        runs = unlearned[name] if isinstance(unlearned[name], (list, tuple)) else [unlearned[name]]
        cost = pd.DataFrame([run.cost for run in runs]).mean().reindex(COST)
        rows[name] = {**table["unlearned"].reindex(metrics).to_dict(), **cost.to_dict()}
    rows["oracle"] = first["oracle"].reindex(metrics).to_dict()
    return pd.DataFrame(rows).T.reindex(columns=[*metrics, *COST])
