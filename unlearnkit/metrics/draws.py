"""Paired bootstrap draws over measured items; what the references reach in them is computed once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unlearnkit.metrics.measure import Measured
from unlearnkit.metrics.table import Items, Metric, NotMeasurable

DISTRIBUTION_DRAWS = 100  # most resamples of a metric of the whole sample: each costs milliseconds, not microseconds


class _Drawn(Mapping[str, np.ndarray]):
    """The columns of a split at resampled rows, taken when asked for."""

    def __init__(self, table: Mapping[str, np.ndarray], rows: np.ndarray) -> None:
        self.table, self.rows = table, rows

    def __getitem__(self, name: str) -> np.ndarray:
        return self.table[name][self.rows]

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)


def interval_of(draws: np.ndarray, value: float, n: int) -> tuple[float, float]:
    """The 95% interval of a value from its bootstrap draws.

    Where all of n items give 0 or all give 1, resampling them shows nothing else; then it is Wilson's, which says how
    often what was not seen may still happen.

    Args:
        n: items that say 0 or 1 each; 0 when the value is no share of such items.
    """
    low, high = (float(end) for end in np.nanpercentile(draws, [2.5, 97.5]))
    if low == high and value in (0.0, 1.0) and n:
        from scipy.stats import binomtest

        wilson = binomtest(round(value * n), n).proportion_ci(method="wilson")
        return float(wilson.low), float(wilson.high)
    return low, high


@dataclass(frozen=True)
class Draws:
    """Paired bootstrap draws: the same items for every model, and which of the unlearned models count."""

    arrays_of: dict[str, Any]
    picks: list[dict[str, np.ndarray]]  # a draw: split → rows
    seeds: list[np.ndarray]  # a draw: numbers of unlearned models
    kept: dict[Any, list[float | None]]  # levels of the references, see `kept_levels`
    views: dict[int, list[dict[str, _Drawn]]] = field(default_factory=dict)  # id of a model's arrays → a view a draw

    def drawn(self, model: Mapping[str, Mapping[str, np.ndarray]]) -> list[dict[str, _Drawn]]:
        """What was measured of a model, as each draw has it."""
        if id(model) not in self.views:
            self.views[id(model)] = [{s: _Drawn(table, pick[s]) for s, table in model.items()} for pick in self.picks]
        return self.views[id(model)]

    def levels(self, row: Metric, model: Mapping[str, Any], most: int) -> list[float | None]:
        """The metric of one model in each draw; None where it can't be measured."""
        out: list[float | None] = []
        oracles = [self.drawn(o) for o in self.arrays_of["oracles"]]
        for k, mine in enumerate(self.drawn(model)[:most]):
            try:
                out.append(row.compute(Items(mine, [o[k] for o in oracles], self.arrays_of["missing"])))
            except NotMeasurable:
                out.append(None)
        return out

    def three(self, row: Metric) -> np.ndarray:
        """(draws, 3): original, mean over the unlearned models, oracle; draws without one of the first two left out."""
        most = len(self.picks) if row.interval else 0
        if row.distribution:
            most = min(most, DISTRIBUTION_DRAWS)
        beside = {"original": self.arrays_of["original"]}
        if len(used := self.arrays_of["oracles"][int(row.against_oracle) :]):
            beside["oracle"] = used[0]
        for who, model in beside.items():
            if (row, who) not in self.kept:
                self.kept[row, who] = self.levels(row, model, most)
        mine = [self.levels(row, model, most) for model in self.arrays_of["mine"]]
        nothing = [None] * most
        first, last = self.kept[row, "original"], self.kept.get((row, "oracle"), nothing)
        drawn = []
        for o, r, pick, *each in zip(first, last, self.seeds[:most], *mine, strict=True):
            found = [each[s] for s in pick]
            if o is not None and None not in found:
                drawn.append((o, float(np.mean(found)), np.nan if r is None else r))
        return np.array(drawn).reshape(-1, 3)


def kept_levels(problem: Any, reference: tuple[Measured, list[Measured]], how: tuple[int, int]) -> dict[Any, Any]:
    """What the references reach at resampled items; computed once, as every model is compared with it.

    Args:
        how: number of resamples, and their seed.
    """
    key, models = ("drawn", len(reference[0].items), *how), [reference[0], *reference[1]]
    known, levels = problem.measured.get(key, ([], {}))
    if len(known) != len(models) or any(a is not b for a, b in zip(known, models, strict=True)):
        levels = {}
        problem.measured[key] = models, levels
    return levels
