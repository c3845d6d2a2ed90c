"""Figures of real models as they were published, typed in with their sources."""

from __future__ import annotations

import pandas as pd

from unlearnkit.errors import unknown
from unlearnkit.paths import data_dir


def published(name: str) -> pd.DataFrame:
    """One table of ``data/published``; its columns `source` and `version` say where each row comes from.

    Raises:
        UnlearnkitError: no such table.
    """
    files = {path.stem: path for path in sorted((data_dir() / "published").glob("*.csv"))}
    if name not in files:
        raise unknown("published table", name, files)
    return pd.read_csv(files[name])
