"""Does a metric tell models that know from models that don't, and does it stand still when nothing was learnt?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
Values = NDArray[np.float64]


def separation(above: Sequence[float], below: Sequence[float]) -> float:
    """AUC: the probability that a value of `above` exceeds one of `below`, ties counted half; NaN when one is empty."""
    a, b = np.asarray(above, float)[:, None], np.asarray(below, float)[None]
    return float(((a > b) + 0.5 * (a == b)).mean()) if a.size and b.size else float("nan")


def stratified(values: Values, above: NDArray[np.bool_], below: NDArray[np.bool_], cases: NDArray[Any]) -> float:
    """AUC over the pairs of one case (request) only, pooled over the cases; all (models,).

    A level that means "forgotten" on one request need not mean it on another, so models of different ones are not
    compared.
    """
    won, pairs = 0.0, 0
    for case in np.unique(cases):
        here = cases == case
        a, b = values[here & above], values[here & below]
        if a.size and b.size:
            won += separation(a, b) * a.size * b.size
            pairs += a.size * b.size
    return won / pairs if pairs else float("nan")


def separation_interval(
    values: Values,
    above: NDArray[np.bool_],
    below: NDArray[np.bool_],
    cases: NDArray[Any],
    clusters: NDArray[Any],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float, float]:
    """(AUC, low, high): `stratified` with its 95% interval by bootstrap over models.

    Models that were made from the same trained one (a cluster) vary together and are drawn together, within each case.
    Where no pair is in the wrong order, or every one is, resampling can't widen the interval; see `no_error_bound`.
    """
    known = ~np.isnan(values) & (above | below)
    values, above, below = values[known], above[known], below[known]
    cases, clusters = cases[known], clusters[known]
    found = stratified(values, above, below, cases)
    if np.isnan(found):
        return found, np.nan, np.nan
    if found in (0.0, 1.0):
        low = no_error_bound(
            [
                (len(set(clusters[above & (cases == case)])), len(set(clusters[below & (cases == case)])))
                for case in np.unique(cases)
            ]
        )
        return (found, low, 1.0) if found else (found, 0.0, 1 - low)
    draw = np.random.default_rng(seed)
    groups = [
        [np.flatnonzero((cases == case) & (clusters == c)) for c in np.unique(clusters[cases == case])]
        for case in np.unique(cases)
    ]
    drawn = []
    for _ in range(resamples):
        rows = np.concatenate([part[i] for part in groups for i in draw.integers(0, len(part), len(part))])
        drawn.append(stratified(values[rows], above[rows], below[rows], cases[rows]))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return found, float(low), float(high)


def no_error_bound(sides: Sequence[tuple[int, int]]) -> float:
    """The AUC below which it would be a surprise (2.5%) that no pair of independent models is in the wrong order.

    Exact for Lehmann alternatives, F₊ = F₋^k, whose AUC is k/(k+1): m against n models are all in order with the
    probability Γ(x+1)·m!/Γ(x+m+1), x = n/k. Of both roles that m and n can play, the smaller bound counts.

    Args:
        sides: (m, n) of each case; cases are independent. One with nothing on a side says nothing.
    """
    from scipy.optimize import brentq
    from scipy.special import gammaln

    pairs = [(m, n) for m, n in sides if m and n]

    def bound(pairs: list[tuple[int, int]]) -> float:
        def excess(log_k: float) -> float:
            x = [n / np.exp(log_k) for _, n in pairs]
            each = [gammaln(a + 1) + gammaln(m + 1) - gammaln(a + m + 1) for a, (m, _) in zip(x, pairs, strict=True)]
            return float(np.sum(each) - np.log(0.025))

        k = np.exp(brentq(excess, -12, 12))
        return float(k / (k + 1))

    return min(bound(pairs), bound([(n, m) for m, n in pairs])) if pairs else 0.0


def symmetric_robustness(before: Any, after: Any) -> Any:
    """1 − |a − b|/(|a| + |b|), elementwise: 1 = unmoved, 0 = from or to zero, or past it; NaN where both are zero.

    Of unlearning-depth-score (data/published/metric_quality.csv). It hangs on where a metric has its zero: an AUC that
    goes all the way from 0.5 to 1 keeps 0.67.
    """
    a, b = np.asarray(before, float), np.asarray(after, float)
    total = np.abs(a) + np.abs(b)
    with np.errstate(invalid="ignore"):
        return np.where(total > 0, 1 - np.abs(a - b) / np.where(total > 0, total, 1), np.nan)


def mean_interval(
    values: Values, clusters: NDArray[Any], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """(mean, low, high): 95% bootstrap over clusters of models; NaN is left out, one cluster has no interval."""
    known = ~np.isnan(values)
    values, clusters = values[known], clusters[known]
    if not values.size:
        return np.nan, np.nan, np.nan
    parts = [values[clusters == c] for c in np.unique(clusters)]
    mean = float(values.mean())
    if len(parts) < 2:
        return mean, np.nan, np.nan
    draw = np.random.default_rng(seed)
    sums, sizes = np.array([p.sum() for p in parts]), np.array([p.size for p in parts])
    picks = draw.integers(0, len(parts), (resamples, len(parts)))
    low, high = np.percentile(sums[picks].sum(1) / sizes[picks].sum(1), [2.5, 97.5])
    return mean, float(low), float(high)
