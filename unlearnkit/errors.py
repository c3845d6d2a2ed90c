"""Errors a user can act on: one sentence that says what was given, what is allowed, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UnlearnkitError(ValueError):
    """Bad input. The command line prints the message alone and exits with 2."""


def whole_number(name: str, value: object, least: int = 0) -> int:
    """`value` when it is a whole number of at least `least`, otherwise an `UnlearnkitError` that says so."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        said = f"{name} = {value!r} is not possible; give a whole number of at least {least}"
        raise UnlearnkitError(f"{said}{' and below 2^63' * (isinstance(value, int) and value >= 2**63)}.")
    return value


SHOWN = 30  # choices an error names


def unknown(kind: str, name: object, known: Iterable[str]) -> UnlearnkitError:
    """An `UnlearnkitError` naming the known choices (a list in its own order, others sorted) and the closest match."""
    choices = known if isinstance(known, list) else sorted(known)
    spelled = {choice.lower(): choice for choice in choices}
    close = get_close_matches(str(name).lower(), spelled, n=1, cutoff=0.5)
    hint = f" Did you mean '{spelled[close[0]]}'?" if close else ""
    shown = ", ".join(choices[:SHOWN]) or "none"
    more = f" and {len(choices) - SHOWN} more" if len(choices) > SHOWN else ""
    return UnlearnkitError(f"{kind} '{name}' is unknown; known: {shown}{more}.{hint}")
