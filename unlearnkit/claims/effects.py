"""The effect of a claim's rule in the rows of a run, with its interval, and how repeats and choices change it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlearnkit.claims.ledger import Effect, Rows

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("experiment", "method", "who", "budget", "measure", "value", "low", "high", "n", "seeds")


class Missing(Exception):
    """Why a rule finds nothing to judge."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval, from n items and as many unlearned models as seeds."""

    value: float
    low: float
    high: float
    n: float = math.inf
    seeds: int = 0


def methods_of(effect: Effect, scores: pd.DataFrame) -> list[str]:
    """Methods a rule that names none is about: those with unlearned rows of its first such term."""
    if gone := [c for c in COLUMNS if c not in scores.columns]:
        raise Missing(f"scores.csv has no column {gone[0]}")
    for term in effect.rows:
        if term.method is None and term.who == "unlearned":
            rows = scores[(scores["experiment"] == term.experiment) & (scores["who"] == "unlearned")]
            if rows.empty:
                raise Missing(f"no row of an unlearned model in experiment {term.experiment}")
            return list(dict.fromkeys(rows["method"].fillna("").astype(str)))
    return [""]


def total(effect: Effect, scores: pd.DataFrame, method: str) -> Estimate:
    """Plus minus minus; intervals of independent terms combined in quadrature, side by side (Zou and Donner 2008)."""
    value, down, up, n, seeds = 0.0, 0.0, 0.0, math.inf, []
    for sign, terms in ((1, effect.plus), (-1, effect.minus)):
        for term in terms:
            if not isinstance(term, Rows):
                value += sign * term
                continue
            one = _read(term, scores, method)
            value += sign * one.value
            below, above = one.value - one.low, one.high - one.value
            down += (below if sign > 0 else above) ** 2
            up += (above if sign > 0 else below) ** 2
            n = min(n, one.n)
            seeds += [one.seeds] if term.who == "unlearned" else []
    return Estimate(value, value - math.sqrt(down), value + math.sqrt(up), n, min(seeds, default=0))


def _read(term: Rows, scores: pd.DataFrame, method: str) -> Estimate:
    """The value of a term in one run; several rows (oracles) are repeats."""
    import pandas as pd

    name = term.method if term.method is not None else method
    own = scores["method"].fillna("").astype(str)
    here = scores[
        (scores["experiment"] == term.experiment) & (scores["measure"] == term.measure) & own.isin(["", name])
    ]
    budgets = pd.to_numeric(here["budget"], errors="coerce")
    if term.budget is None:
        here = here[budgets.isna()]
    else:  # the ends are those of the experiment, so that all are compared at one budget
        ends = {"first": budgets.min(), "last": budgets.max()}
        at = ends[term.budget] if isinstance(term.budget, str) else term.budget
        here = here[(budgets - at).abs() < 1e-9]
    who = here["who"].astype(str)
    rows = here[who.str.match(r"oracle( \d+)?$") if term.who == "oracle" else who == term.who]
    if term.who == "unlearned":
        rows = rows[own[rows.index] == name]
    asked = ", ".join(f"{k} {v}" for k, v in term.model_dump().items() if v is not None and k != "method")
    asked += f", method {name}" if name and term.who == "unlearned" else ""
    if rows.empty:
        raise Missing(f"no row with {asked}")
    if rows[["value", "low", "high"]].isna().any(axis=None):
        raise Missing(f"no value or no interval in the row with {asked}")
    return pooled([_row(*row) for row in rows[["value", "low", "high", "n", "seeds"]].itertuples(index=False)])


def _row(value: float, low: float, high: float, n: float, seeds: float) -> Estimate:
    """One row. A bootstrap of nothing but hits, or misses, gives an empty interval: then it is the rule of three."""
    if low == high == value and value in (0, 1) and n > 0:
        low, high = max(0.0, value - 3 / n), min(1.0, value + 3 / n)
    low, high = min(low, value), max(high, value)
    return Estimate(value, low, high, n if n > 0 else math.inf, int(seeds) if seeds > 0 else 0)


def pooled(parts: Sequence[Estimate], spread: bool = True) -> Estimate:
    """Mean of repeats. They ask the same questions, so its interval is no narrower than theirs; with `spread` half the
    range of the repeats, the noise floor, is added in quadrature."""
    value = sum(p.value for p in parts) / len(parts)
    down = sum(p.value - p.low for p in parts) / len(parts)
    up = sum(p.high - p.value for p in parts) / len(parts)
    apart = (max(p.value for p in parts) - min(p.value for p in parts)) / 2 if spread else 0.0
    n, seeds = min(p.n for p in parts), min(p.seeds for p in parts)
    return Estimate(value, value - math.hypot(down, apart), value + math.hypot(up, apart), n, seeds)


def widened(estimate: Estimate, tries: int) -> Estimate:
    """The interval for the one that stands out among several (Bonferroni, normal)."""
    from scipy.stats import norm

    by = float(norm.ppf(1 - 0.025 / tries) / norm.ppf(0.975))
    low, high = (estimate.value + by * (end - estimate.value) for end in (estimate.low, estimate.high))
    return Estimate(estimate.value, low, high, estimate.n, estimate.seeds)
