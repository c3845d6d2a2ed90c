"""Rows of a benchmark: one measured number of one unlearned model, with original and oracle beside it.

Long and plain, so that they can be appended to a CSV as they come, filtered, joined, and made into a leaderboard.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from unlearnkit.errors import UnlearnkitError
from unlearnkit.paths import data_dir

if TYPE_CHECKING:
    from unlearnkit.runs.record import Record

CASE = ["branch", "world", "forget", "method", "settings", "seed"]  # one unlearned model
COLUMNS = [
    *CASE, "key", "value", "original", "oracle", "gap", "floor", "relative", "before", "budget", "n", "seeds", "why",
]  # fmt: skip
ATTACKS = ("relearn", "quantize")  # what every benchmark row set is put through
COST = ("seconds", "steps", "parameters_touched")
BRANCHES = ("text", "image")
BOOKKEEPING = ("profile", "seed", "seeds", "runs", "methods", "image_methods", "attacks")  # tell no experiments apart
PICTURES = {"world": "canvas", "forget": "striped"}  # what the notebooks of both branches draw


def measured(branch: str) -> pd.DataFrame:
    """The shipped rows of a branch, ``data/measured/leaderboard_<branch>.csv``, by `unlearnkit bench leaderboard`.

    Raises:
        UnlearnkitError: another branch than text and image, or the table is not there.
    """
    if branch not in BRANCHES:
        raise UnlearnkitError(f"branch '{branch}' is unknown; known: {', '.join(BRANCHES)}.")
    return read_rows(data_dir() / "measured" / f"leaderboard_{branch}.csv")


def read_rows(path: Path | str) -> pd.DataFrame:
    """Rows from a CSV file.

    Raises:
        UnlearnkitError: it can't be read, or lacks a column.
    """
    try:
        rows = pd.read_csv(path, float_precision="round_trip", dtype={"settings": str, "why": str, "method": str})
    except (OSError, ValueError) as error:
        raise UnlearnkitError(
            f"{path} can't be read as rows of a benchmark ({error}); make it with `unlearnkit bench leaderboard`."
        ) from error
    return checked(rows)


def checked(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with every column of `COLUMNS` first, words never missing.

    Raises:
        UnlearnkitError: `method`, `key` or `value` is not there.
    """
    needed = [name for name in ("method", "key", "value") if name not in rows]
    if needed:
        raise UnlearnkitError(
            f"the rows have no column '{needed[0]}'; rows of a benchmark have method, key, value, and may have "
            f"{', '.join(c for c in COLUMNS if c not in ('method', 'key', 'value'))}."
        )
    rest = [name for name in rows if name not in COLUMNS]
    out = rows.reindex(columns=[*COLUMNS, *rest])
    words = ["branch", "world", "forget", "method", "settings", "key", "why"]
    out[words] = out[words].astype(object).where(out[words].notna(), "").astype(str)
    out["seed"] = out["seed"].fillna(0)
    return out


def rows_of_scores(scores: pd.DataFrame, **case: Any) -> pd.DataFrame:
    """Rows from tables of `evaluate` with the column `key`; `case` are values of the columns `CASE` they lack.

    Scores that stand for several seeds in one row (`evaluate` of a list) stay one row, with `seeds` saying how many.
    """
    named = scores.rename(columns={"unlearned": "value"})
    lacking = {name: value for name, value in case.items() if name not in named}
    kept = named.assign(**lacking)
    return checked(kept[[c for c in COLUMNS if c in kept]])


def rows_of_runs(runs: Path | str | Iterable[Record] | None = None, notebook: str | None = None) -> pd.DataFrame:
    """Rows of all complete runs that measured methods, with the columns `notebook`, `run`, `profile`, `parameters`.

    `parameters` (JSON) are those of the run that are no bookkeeping: what has the same can be compared.

    Read are a run's own rows of a benchmark (`branch`, `key`, `value`, …) and tables of `evaluate` with a column
    `method`. Models on the way of a run (column `step`) count only at their last step; a mixed model (notebook 07)
    is told apart by its settings. Empty when no run measured a method.

    Args:
        runs: a folder as in `read_runs`, or records.

    Raises:
        UnlearnkitError: a given folder isn't there, or a finished run can't be read.
    """
    from unlearnkit.runs.record import read_runs

    if isinstance(runs, str | Path) and not Path(runs).is_dir():
        raise UnlearnkitError(f"there is no folder {runs}; give the folder that `unlearnkit run` records in.")
    records = read_runs(runs, notebook) if isinstance(runs, str | Path | None) else list(runs)
    found = []
    for record in records:
        scores, values = record.scores, record.config.get("values", {})
        if not {"key", "method"} <= set(scores.columns):
            continue
        about = {"notebook": record.notebook, "run": record.folder.name, "profile": record.config.get("profile")}
        shared = {k: v for k, v in values.items() if k not in BOOKKEEPING and v is not None}
        about["parameters"] = json.dumps(shared, sort_keys=True)
        if {"branch", "value"} <= set(scores.columns):
            found.append(checked(scores[scores["branch"].isin(BRANCHES)]).assign(**about))
        if "unlearned" not in scores:
            continue
        plain = scores[scores["split"].notna()] if "split" in scores else scores  # of `evaluate`
        if "balance" in plain:  # notebook 07 compares balances, which are no methods of their own
            plain = plain[plain["balance"].fillna("sum") == "sum"]
        if "step" in plain:
            marks = [c for c in ("method", "balance", "seed", "key", "settings") if c in plain]
            last = plain["step"].isna() | (plain["step"] == plain.groupby(marks, dropna=False)["step"].transform("max"))
            plain = plain[last]
        for branch, part in plain.groupby(plain["key"].map(_branch_of), sort=False):
            case = {"branch": branch, "world": values.get("world"), "forget": values.get("forget")}
            if branch == "image" and "image_methods" in values:
                case |= PICTURES
            case |= {"seed": values.get("seed"), "settings": "{}"}
            found.append(rows_of_scores(part, **case).assign(**about))
    empty = pd.DataFrame(columns=[*COLUMNS, "notebook", "run", "profile", "parameters"])
    return pd.concat([rows for rows in found if len(rows)], ignore_index=True) if any(map(len, found)) else empty


def rows_of_models(
    models: pd.DataFrame,
    *,
    method: str = "method",
    settings: str = "model",
    original: str = "full",
    oracle: str = "retain",
    leave_out: Iterable[str] = ("alpha", "lr", "epoch"),
    **case: Any,
) -> pd.DataFrame:
    """Rows from a wide table of models, a row a model and a column a number, as real results are published.

    Every configuration of a method becomes a repeat of it (its number stands in `seed`): an interval over them is one
    over configurations, not over seeds. With one retrained model no noise floor is known.

    Args:
        method, settings: columns that name the method, and the model.
        original, oracle: their names in the column `method`.
        leave_out: numeric columns that are settings.

    Raises:
        UnlearnkitError: a column or one of the two references is not there.
    """
    for name in (method, settings):
        if name not in models:
            raise UnlearnkitError(f"the table has no column '{name}'; it has {', '.join(map(str, models))}.")
    ends = {}
    for what, name in (("original", original), ("oracle", oracle)):
        rows = models[models[method] == name]
        if len(rows) != 1:
            raise UnlearnkitError(f"the table has {len(rows)} rows with {method} '{name}'; the {what} must be one row.")
        ends[what] = rows.iloc[0]
    keys = [c for c in models.select_dtypes("number") if c not in leave_out]
    known = models[~models[method].isin([original, oracle])]
    numbers = known.groupby(method).cumcount()
    out = []
    for at, model in known.iterrows():
        for key in keys:
            value, before, target = (float(row[key]) for row in (model, ends["original"], ends["oracle"]))
            apart = abs(before - target)
            out.append({
                "method": model[method], "seed": int(numbers[at]), "settings": json.dumps({"model": model[settings]}),
                "key": key, "value": value, "original": before, "oracle": target,
                "gap": abs(value - target) / apart if apart else math.nan,
                "relative": value / before if before else math.nan,
                "why": "" if apart else "gap not measurable: original and oracle are the same",
                **case,
            })  # fmt: skip
    return checked(pd.DataFrame(out)).replace({np.inf: np.nan, -np.inf: np.nan})


def _branch_of(key: str) -> str:
    from unlearnkit.metrics.table import METRICS

    if key == "judge_accuracy":
        return "image"
    return METRICS[key].modality if key in METRICS else "text"
