"""Where the project's data lie: beside the package in a checkout, inside it in an installed wheel."""

from __future__ import annotations

import os
from pathlib import Path


def data_dir() -> Path:
    """The folder with worlds, prompts, published figures and shipped models."""
    package = Path(__file__).resolve().parent
    beside = package.parent / "data"
    return beside if (beside / "worlds").is_dir() else package / "data"


def notebooks_dir() -> Path:
    """The folder of the series, with ``profiles/``; ``$UNLEARNKIT_NOTEBOOKS`` overrides it."""
    given = os.environ.get("UNLEARNKIT_NOTEBOOKS")
    if given:
        return Path(given).absolute()
    package = Path(__file__).resolve().parent
    beside = package.parent / "notebooks"
    return beside if (beside / "profiles").is_dir() else package / "notebooks"
