"""Whether the hub can be asked at all: its library would try for a minute before it says no."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from urllib.parse import urlsplit
from urllib.request import getproxies

PATIENCE = 5  # seconds to wait for a connection


def hub_answers() -> bool:
    """Whether a connection to the hub can be had; a proxy or offline mode is left to its library."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or getproxies():
        return True
    url = urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection((url.hostname or "", url.port or 443), timeout=PATIENCE):
            return True
    except OSError:
        return False


def cached(name: str, files: Sequence[str], revision: str | None = None, kind: str = "model") -> bool:
    """Whether one of these files of a repository was downloaded before; a name that can't be is left to the hub."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(name, file, revision=revision, repo_type=kind) for file in files]
    except HFValidationError:
        return True
    return any(isinstance(path, str) for path in found)
