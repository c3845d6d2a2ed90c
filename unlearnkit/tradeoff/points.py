"""Points of the trade-off, from tables of `evaluate` and from run folders alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.errors import UnlearnkitError
from unlearnkit.runs.record import Record, read_runs

MARKS = ["method", "balance", "seed", "settings", "step"]  # columns of scores.csv that tell models apart
BOOKKEEPING = ("profile", "seed", "seeds", "runs", "methods")  # parameters that are no setting of a method
COLUMNS = [
    *MARKS, "forgetting", "forgetting_low", "forgetting_high", "utility", "utility_low", "utility_high", "why",
    "notebook", "run",
]  # fmt: skip


def relative_forgetting(value: Any, original: float, oracle: float) -> Any:
    """1 − |value − oracle|/|original − oracle|: 1 as retrained, 0 the original, below 0 worse than nothing.

    Raises:
        UnlearnkitError: original and oracle are the same.
    """
    if original == oracle:
        raise UnlearnkitError(f"forgetting is not measurable: original and oracle are both at {original:g}.")
    return 1 - np.abs(np.asarray(value, float) - oracle) / abs(original - oracle)


def point(table: pd.DataFrame, forgetting: str, utility: str) -> dict[str, Any]:
    """One model's point from its table of `evaluate`: forgetting and utility with 95% intervals, and `why` not.

    Args:
        forgetting: key of a forget metric; its gap is used.
        utility: key of a metric where more is better; its share of the original's is used.

    Raises:
        UnlearnkitError: a metric that is not in the table.
    """
    for key in (forgetting, utility):
        if key not in table.index:
            raise UnlearnkitError(f"metric '{key}' is not in the table; it has {', '.join(map(str, table.index))}.")
    f, u = table.loc[forgetting], table.loc[utility]
    before = float(u["original"]) if pd.notna(u["original"]) else np.nan
    lost = [
        f"{key}: {row['why'] if isinstance(row['why'], str) and row['why'] else 'not measurable'}"
        for key, row, wanted in ((forgetting, f, "gap"), (utility, u, "relative"))
        if pd.isna(row[wanted])
    ]
    return {
        "forgetting": 1 - float(f["gap"]), "forgetting_low": 1 - float(f["gap_high"]),
        "forgetting_high": 1 - float(f["gap_low"]), "utility": float(u["relative"]),
        "utility_low": float(u["low"]) / before if before else np.nan,
        "utility_high": float(u["high"]) / before if before else np.nan, "why": "; ".join(lost),
    }  # fmt: skip


def of_scores(scores: pd.DataFrame, forgetting: str, utility: str) -> pd.DataFrame:
    """A row for every model in scores: rows of `evaluate` with column `key` and those of `MARKS` that there are.

    Models without both metrics are passed over; columns: the marks, and those of `point`.
    """
    marks = [c for c in MARKS if c in scores]
    rows = []
    ours = scores[scores["key"].isin([forgetting, utility])]
    for own, part in ours.groupby(marks, dropna=False, sort=False):
        table = part.drop_duplicates("key", keep="last").set_index("key")
        if {forgetting, utility} <= set(table.index):
            rows.append({**dict(zip(marks, own, strict=True)), **point(table, forgetting, utility)})
    return pd.DataFrame(rows)


def points(
    runs: Path | str | Iterable[Record] | None = None,
    forgetting: str = "forget_ks_statistic",
    utility: str = "retain_model_utility",
    notebook: str | None = None,
) -> pd.DataFrame:
    """A row for every model whose scores the run folders hold, with columns `COLUMNS`.

    Models are told apart by the columns `MARKS` of ``scores.csv``, of which `method` is needed; `seed` and `settings`
    (JSON) are the run's own where there is no column. Tables without both metrics are passed over.

    Args:
        runs: a folder as in `read_runs`, or records.
        forgetting, utility: as in `point`.

    Raises:
        UnlearnkitError: no run holds both metrics.
    """
    records = read_runs(runs, notebook) if isinstance(runs, str | Path | None) else list(runs)
    found = []
    for record in records:
        if not {"key", "method", "gap", "relative"} <= set(record.scores.columns):
            continue
        values = record.config["values"]
        settings = {k: v for k, v in values.items() if k not in BOOKKEEPING and v is not None}
        own = {"seed": values.get("seed"), "settings": json.dumps(settings, sort_keys=True), "balance": "sum"}
        rows = of_scores(record.scores, forgetting, utility)
        rows = rows.assign(**{k: v for k, v in own.items() if k not in rows})
        found.append(rows.assign(notebook=record.notebook, run=str(record.folder)))
    if not sum(map(len, found)):
        where = f"the folder {runs}" if isinstance(runs, str | Path) else "the runs"
        raise UnlearnkitError(
            f"no complete run in {where} has scores of methods with both {forgetting} and {utility}; "
            "run a notebook first, or name other metrics."
        )
    return pd.concat([rows for rows in found if len(rows)], ignore_index=True).reindex(columns=COLUMNS)
