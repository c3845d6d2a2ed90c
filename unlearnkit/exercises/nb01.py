"""Checks of notebook 01."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import ks_2samp

from unlearnkit.exercises import exercise


@dataclass(frozen=True)
class _Record:
    """What exercise 01.1 needs of a record."""

    id: str
    sources: tuple[str, ...] = ()


@exercise("01.1")
def scope(answer: Any) -> str:
    """answer(forget, records) → ids of the records that give a forgotten fact away and were not requested."""
    city, french = _Record("a1.city"), _Record("a1.city.fr", ("a1.city",))
    country, mentor = _Record("a1.country", ("a1.city",)), _Record("a2.mentor")
    hop = _Record("a2.mentor_city", ("a2.mentor", "a1.city"))
    records = [city, french, country, mentor, hop, _Record("a2.city"), _Record("a2.city.fr", ("a2.city",))]
    cases: list[tuple[list[_Record], list[str]]] = [
        ([city], ["a1.city.fr", "a1.country", "a2.mentor_city"]),
        ([city, french], ["a1.country", "a2.mentor_city"]),
        ([mentor], ["a2.mentor_city"]),
    ]
    for forget, wanted in cases:
        found = answer(list(forget), list(records))
        if not isinstance(found, (list, tuple, set, frozenset)) or not all(isinstance(i, str) for i in found):
            return f"return the ids, as a set or list of texts, not {found!r}."
        asked = ", ".join(r.id for r in forget)
        if over := sorted({r.id for r in forget} & set(found)):
            return f"with {asked} requested, {over[0]} is part of the request; only what is left over counts."
        if missed := sorted(set(wanted) - set(found)):
            return f"with {asked} requested, {missed[0]} is missing: one of its sources is forgotten."
        if extra := sorted(set(found) - set(wanted)):
            return f"with {asked} requested, {extra[0]} follows from nothing that is forgotten."
    return ""


@exercise("01.2")
def questions_needed(answer: Any) -> str:
    """answer(alpha) → smallest n at which two samples of n, all of one below all of the other, have p < alpha."""
    for alpha in (0.05, 0.02, 0.001, 1e-6):
        wanted = next(
            n for n in range(1, 40) if ks_2samp(range(n), range(n, 2 * n), method="exact").pvalue < alpha * (1 - 1e-9)
        )
        found = answer(alpha)
        if isinstance(found, bool) or not isinstance(found, int):
            return f"return a whole number of questions, not {found!r}."
        if found != wanted:
            ways = "one deal of C(2n, n) separates the samples that way round, and one the other way round"
            return f"for α = {alpha:g} it takes {wanted} questions, not {found}: {ways}."
    return ""


@exercise("01.3")
def side(answer: Any) -> str:
    """answer(original, unlearned, oracle, floor) → 'not measurable', 'at the oracle', 'under' or 'over'."""
    cases: Sequence[tuple[tuple[float, float, float, float], str, str]] = [
        ((1.0, 1.0, 0.1, 0.05), "under", "nothing happened"),
        ((1.0, 0.12, 0.1, 0.05), "at the oracle", "the gap, 0.02 of 0.9, is below the floor"),
        ((1.0, 0.0, 0.5, 0.1), "over", "it went past the oracle"),
        ((0.01, 8.5, 2.9, 0.07), "over", "on a loss, past the oracle means higher"),
        ((0.01, 0.8, 2.9, 0.07), "under", "on a loss, short of the oracle means lower"),
        ((0.50, 0.9, 0.5, 0.05), "not measurable", "original and oracle are equal"),
        ((0.50, 0.9, 0.48, 1.3), "not measurable", "a floor of 1 or more: oracles differ as much as the original does"),
        ((1.0, 1.2, 0.1, 0.05), "under", "it moved away from the oracle"),
    ]
    for given, wanted, why in cases:
        found = answer(*given)
        if found != wanted:
            original, unlearned, oracle, floor = given
            return (
                f"original {original:g}, unlearned {unlearned:g}, oracle {oracle:g}, floor {floor:g}: "
                f"'{wanted}', not {found!r} ({why})."
            )
    return ""


@exercise("01.4")
def verdict(answer: Any) -> str:
    """answer(said, known, relearned, oracle, floor) → 'present', 'suppressed', 'removed' or 'undecided'."""
    oracle = (0.05, 0.10, 0.05)
    cases: Sequence[tuple[tuple[float, float, float], str]] = [
        ((1.0, 1.0, 1.0), "present"),
        ((0.0, 0.9, 0.8), "suppressed"),
        ((0.0, 0.12, 0.05), "removed"),
        ((0.08, 0.12, 0.08), "removed"),
        ((0.0, 0.9, 0.05), "undecided"),
        ((0.0, 0.12, 0.8), "undecided"),
        ((0.3, 0.12, 0.05), "present"),
        ((0.0, 0.0, 0.0), "removed"),
    ]
    for given, wanted in cases:
        found = answer(*given, oracle, 0.05)
        if found != wanted:
            said, known, relearned = given
            return (
                f"said {said:.0%}, known {known:.0%}, relearned {relearned:.0%}, with the oracle at 5%, 10%, 5% and a "
                f"floor of 5 points: '{wanted}', not {found!r}."
            )
    return ""
