"""Parameters as words of the command line: `-p NAME VALUE`, which papermill has too."""

from __future__ import annotations

from typing import Any

import yaml

from unlearnkit.errors import UnlearnkitError
from unlearnkit.runs.parameters import Scalar


def paired(words: list[str]) -> list[str]:
    """`-p NAME VALUE`, as papermill has it, into `-p NAME=VALUE`, which typer can read."""
    joined, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        joined.append(word)
        if word in ("-p", "--parameter") and rest:
            name = rest.pop(0)
            joined.append(f"{name}={rest.pop(0)}" if "=" not in name and rest else name)
    return joined


def given(pairs: list[str] | None, profile: str | None = None) -> dict[str, Scalar]:
    """Name → word of `NAME=VALUE` pairs, and the profile."""
    found: dict[str, Scalar] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UnlearnkitError(f"-p {pair}: a value is missing; write -p NAME VALUE.")
        found[name] = value
    if profile is not None:
        if found.get("profile", profile) != profile:
            raise UnlearnkitError(f"--profile {profile} and -p profile {found['profile']} contradict each other.")
        found["profile"] = profile
    return found


def settings(pairs: list[str] | None) -> dict[str, Any]:
    """Settings of a method or loop, each as YAML reads its word."""
    return {name: yaml.safe_load(str(value)) for name, value in given(pairs).items()}
