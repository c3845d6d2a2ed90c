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


def point(
    table: pd.DataFrame, forgetting: str, utility: str, *, beyond: bool = False, less: bool = False
) -> dict[str, Any]:
    """One model's point from its table of `evaluate`: forgetting and utility with 95% intervals, and `why` not.

    Args:
        forgetting: key of a forget metric; its gap is used.
        utility: key of a metric; its share of the original's is used.
        beyond: what lies beyond the oracle counts as more forgetting, (original − m)/(original − oracle), instead of as
            distance from it. Its interval is of the model alone.
        less: less of the utility metric is better (a loss): original/m is used.

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
    mine = f[["unlearned", "low", "high"]] if beyond else f[["gap", "gap_high", "gap_low"]]
    far = 1 - mine.to_numpy(float)  # value, one end, the other end
    if beyond:
        span = float(f["original"] - f["oracle"]) if pd.notna(f["gap"]) else np.nan
        far = (float(f["original"]) - mine.to_numpy(float)) / span
    kept = np.array([u["relative"], *(u[["low", "high"]].to_numpy(float) / (before or np.nan))], float)
    if less:
        if kept[0] == 0:
            lost.append(f"{utility}: a loss of 0 has no share")
        kept = 1 / np.where(kept > 0, kept, np.nan)
    ends = [*sorted(far[1:]), *sorted(kept[1:])]
    return {
        "forgetting": float(far[0]), "forgetting_low": float(ends[0]), "forgetting_high": float(ends[1]),
        "utility": float(kept[0]), "utility_low": float(ends[2]), "utility_high": float(ends[3]),
        "why": "; ".join(lost),
    }  # fmt: skip


def of_scores(
    scores: pd.DataFrame, forgetting: str, utility: str, *, beyond: bool = False, less: bool = False
) -> pd.DataFrame:
    """A row for every model in scores: rows of `evaluate` with column `key` and those of `MARKS` that there are.

    Models without both metrics are passed over; columns: the marks, those of `point`, and where the scores were read
    from run folders `notebook` and `run`.
    """
    marks = [c for c in (*MARKS, "notebook", "run") if c in scores]
    rows = []
    ours = scores[scores["key"].isin([forgetting, utility])]
    for own, part in ours.groupby(marks, dropna=False, sort=False):
        table = part.drop_duplicates("key", keep="last").set_index("key")
        if {forgetting, utility} <= set(table.index):
            values = point(table, forgetting, utility, beyond=beyond, less=less)
            rows.append({**dict(zip(marks, own, strict=True)), **values})
    return pd.DataFrame(rows)


def scores_of(runs: Path | str | Iterable[Record] | None = None, notebook: str | None = None) -> pd.DataFrame:
    """The rows of `evaluate` that run folders hold, with the columns `MARKS`, `notebook` and `run`.

    `method` must be a column of ``scores.csv``; `seed` and `settings` (JSON) are the run's own where there is none.
    """
    records = read_runs(runs, notebook) if isinstance(runs, str | Path | None) else list(runs)
    found = []
    for record in records:
        if not {"key", "method", "gap", "relative"} <= set(record.scores.columns):
            continue
        values = record.config["values"]
        settings = {k: v for k, v in values.items() if k not in BOOKKEEPING and v is not None}
        own = {"seed": values.get("seed"), "settings": json.dumps(settings, sort_keys=True), "balance": "sum"}
        rows = record.scores.assign(**{k: v for k, v in own.items() if k not in record.scores})
        found.append(rows.assign(notebook=record.notebook, run=str(record.folder)))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["key", "method", "gap", "relative"])


def points(
    runs: Path | str | Iterable[Record] | None = None,
    forgetting: str = "forget_ks_statistic",
    utility: str = "retain_model_utility",
    notebook: str | None = None,
    *,
    beyond: bool = False,
    less: bool = False,
) -> pd.DataFrame:
    """A row for every model whose scores the run folders hold, with columns `COLUMNS`.

    Models are told apart by the columns `MARKS` of ``scores.csv``, of which `method` is needed; `seed` and `settings`
    (JSON) are the run's own where there is no column. Tables without both metrics are passed over.

    Args:
        runs: a folder as in `read_runs`, or records.
        forgetting, utility, beyond, less: as in `point`.

    Raises:
        UnlearnkitError: no run holds both metrics.
    """
    found = of_scores(scores_of(runs, notebook), forgetting, utility, beyond=beyond, less=less)
    if not len(found):
        where = f"the folder {runs}" if isinstance(runs, str | Path) else "the runs"
        raise UnlearnkitError(
            f"no complete run in {where} has scores of methods with both {forgetting} and {utility}; "
            "run a notebook first, or name other metrics."
        )
    return found.reindex(columns=COLUMNS)


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """With a column `name`: the method, and its balance where it is another than the sum (``npo · mgda``)."""
    balance = rows["balance"] if "balance" in rows else pd.Series("sum", rows.index)
    apart = balance.fillna("sum").map(lambda rule: "" if rule == "sum" else f" · {rule}")
    return rows.assign(name=rows["method"].astype(str) + apart.astype(str))
