"""Digests of rows, so that a changed number is seen."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import pandas as pd

from unlearnkit.benchmark.rows import CASE, COLUMNS, checked


def rows_digest(rows: pd.DataFrame) -> str:
    """Sixteen hex digits over every value of the columns `COLUMNS`; the order of the rows does not matter."""
    lines = sorted(
        json.dumps([_plain(value) for value in row]) for row in checked(rows)[COLUMNS].itertuples(index=False)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def case_digests(rows: pd.DataFrame) -> pd.Series:
    """`rows_digest` of the rows of each model, beside every one of its rows."""
    rows = checked(rows)
    found = {at: rows_digest(part) for at, part in rows.groupby(CASE, sort=False)}
    return pd.Series([found[tuple(row)] for row in rows[CASE].itertuples(index=False)], rows.index, dtype=object)


def _plain(value: Any) -> Any:
    """A cell as it is after any way through CSV or JSON: whole numbers as such, what is missing as null."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return None
    if isinstance(value, str):
        return value
    number = float(value)
    return int(number) if number.is_integer() else number
