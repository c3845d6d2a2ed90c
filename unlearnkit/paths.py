"""Where the project's data lie: beside the package in a checkout, inside it in an installed wheel."""

from __future__ import annotations

from pathlib import Path


def data_dir() -> Path:
    """The folder with worlds, prompts, published figures and shipped models."""
    package = Path(__file__).resolve().parent
    beside = package.parent / "data"
    return beside if (beside / "worlds").is_dir() else package / "data"
