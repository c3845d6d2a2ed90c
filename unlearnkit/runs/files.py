"""Files that are on the disk whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unlearnkit.errors import UnlearnkitError


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def write_json(path: Path, value: Any) -> None:
    """As `write`, in readable JSON."""
    write(path, json.dumps(value, indent=1).encode() + b"\n")


def write(path: Path, content: bytes) -> None:
    """Write a file whole and on the disk, or not at all.

    Raises:
        UnlearnkitError: the disk is full, or the folder can't be written to.
    """
    work = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")  # of two writers one wins, whole
    try:
        path.parent.mkdir(exist_ok=True)
        with work.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        work.replace(path)
    except OSError as error:
        with suppress(OSError):
            work.unlink(missing_ok=True)
        raise unwritable(path.parent, error) from error


def unwritable(folder: Path, error: OSError) -> UnlearnkitError:
    """One sentence about a folder that takes nothing; a temporary one goes by the name of the one it lies in."""
    folder = next((place for place in (folder, *folder.parents) if not place.name.startswith(".")), folder)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UnlearnkitError(f"the disk of {folder} is full; free some space or choose another folder.")
    return UnlearnkitError(f"{folder} can't be written to ({error.strerror or error}); choose another folder.")
