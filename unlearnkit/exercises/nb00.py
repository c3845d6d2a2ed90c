"""Checks of notebook 00."""

from __future__ import annotations

from typing import Any

from unlearnkit.exercises import exercise, near


@exercise("00.1")
def gap(answer: Any) -> str:
    """answer(original, unlearned, oracle) → distance to the oracle, in units of the original's."""
    for original, unlearned, oracle in ((0.0, 1.5, 3.0), (0.0, 4.5, 3.0), (1.0, 0.2, 0.0), (2.0, 2.0, 5.0)):
        found, wanted = answer(original, unlearned, oracle), abs(unlearned - oracle) / abs(original - oracle)
        if near(found, wanted):
            continue
        if near(found, (unlearned - oracle) / (original - oracle)):
            return "a gap is a distance: a model that overshot is as far away as one that fell short. Take |…|."
        if near(found, 1 - wanted):
            return "that is the share of the way that was made; the gap is what is left of it."
        if near(found, abs(unlearned - oracle)):
            return "divide by the distance of the original, or nobody can compare two metrics."
        return (
            f"for original {original:g}, unlearned {unlearned:g}, oracle {oracle:g} it is {wanted:.3f}, not {found!r}."
        )
    return ""


@exercise("00.2")
def floor(answer: Any) -> str:
    """answer(original, oracles) → the largest gap of another oracle to the first."""
    for original, oracles in ((0.0, [3.0, 2.4]), (0.0, [3.0, 3.3, 2.4]), (1.0, [0.1, 0.1, 0.0])):
        found = answer(original, list(oracles))
        gaps = [abs(o - oracles[0]) / abs(original - oracles[0]) for o in oracles[1:]]
        if near(found, max(gaps)):
            continue
        if near(found, max(gaps) * abs(original - oracles[0])):
            return "in the unit of the gap: divided by the distance of the original from the first oracle."
        if len(gaps) > 1 and near(found, sum(gaps) / len(gaps)):
            return "the floor is the largest of these gaps, not their mean: any oracle would have been a right answer."
        return f"for original {original:g} and oracles {oracles} it is {max(gaps):.3f}, not {found!r}."
    return ""


@exercise("00.3")
def back(answer: Any) -> str:
    """answer(low, oracles) → whether an attack found more than it finds in retrained models."""
    for low, oracles, wanted in ((0.65, [0.0, 0.05], True), (0.05, [0.0, 0.1], False), (0.5, [0.45, 0.2], False)):
        found = answer(low, list(oracles))
        if found is None:
            return ""
        if bool(found) == wanted:
            continue
        if found and low > oracles[0]:
            return "beyond the first oracle is not enough: oracles differ among themselves by that much, too."
        return (
            f"with the interval's lower end at {low:g} and oracles at {oracles} the answer is {wanted}, not {found!r}."
        )
    return ""
