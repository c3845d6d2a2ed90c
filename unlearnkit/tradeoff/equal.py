"""Methods at equal utility: the only place where their forgetting can be compared as one number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import wilcoxon

from unlearnkit.errors import UnlearnkitError
from unlearnkit.tradeoff.fronts import AXES

LEAST_PAIRS = 6  # of a Wilcoxon test: with five, the smallest two-sided p there can be is 0.0625
RESAMPLES = 2000


def at_utility(points: pd.DataFrame, share: float, by: Sequence[str] = ("method", "seed")) -> pd.DataFrame:
    """The best forgetting of each group among its points with utility ≥ share (ε-constraint).

    Columns: `by`, `forgetting`, `utility`, `feasible` (points that keep the utility), `points`, and the rest of the
    best point's row. Where nothing is feasible, or nothing feasible is better than the original, the answer is the
    original itself: forgetting 0 at utility 1.

    Raises:
        UnlearnkitError: a share that the original itself does not reach.
    """
    if not 0 <= share <= 1:
        raise UnlearnkitError(f"share = {share!r} is not possible; give a share of the original's utility, 0 to 1.")
    rows = []
    for name, part in points.groupby(list(by), sort=False):
        known = part[np.isfinite(part[AXES]).all(axis=1)]
        able = known[known["utility"] >= share]
        row: dict[str, Any] = {"forgetting": 0.0, "utility": 1.0}
        if len(able) and able["forgetting"].max() > 0:
            row = dict(able.loc[able["forgetting"].idxmax()])
        rows.append({**row, **dict(zip(by, name, strict=True)), "feasible": len(able), "points": len(known)})
    first = [*by, *AXES, "feasible", "points"]
    table = pd.DataFrame(rows)
    return table[first + [c for c in table if c not in first]]


def compare(
    values: pd.DataFrame,
    value: str = "forgetting",
    pair: str | Sequence[str] = "seed",
    *,
    against: str | None = None,
    maximise: bool = True,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Methods side by side on the same pairs: mean with its 95% interval, and the difference from one of them.

    Columns: `mean`, `low`, `high` (bootstrap over pairs), `n` pairs; `difference` from the method `against` on the
    pairs both have, with `difference_low`, `difference_high` (paired bootstrap) and `pairs`; `p` (Wilcoxon's
    signed-rank test, two-sided) and `p_holm`, corrected for all methods that were tested (Holm 1979); `why` what is
    not measurable. Index: method, the best first.

    Args:
        values: a row a method and pair.
        pair: what makes values of two methods belong together: a seed, an item, or both.
        against: default the method with the best mean.

    Raises:
        UnlearnkitError: an unknown method or column, or several rows of a method for one pair.
    """
    keys = [pair] if isinstance(pair, str) else list(pair)
    if lacking := [c for c in ("method", value, *keys) if c not in values]:
        raise UnlearnkitError(f"the values have no column '{lacking[0]}'; they have {', '.join(map(str, values))}.")
    known = values.dropna(subset=[value])
    if known.duplicated(["method", *keys]).any():
        raise UnlearnkitError(f"a method has several values for one {' and '.join(keys)}; a pair needs one of each.")
    wide = known.pivot(index=keys, columns="method", values=value)  # (pairs, methods)
    order = wide.mean().sort_values(ascending=not maximise).index.tolist()
    if not order:
        raise UnlearnkitError("there is nothing to compare: no method has a value.")
    best = against or order[0]
    if best not in order:
        raise UnlearnkitError(f"method '{best}' has no value; those that have are {', '.join(map(str, order))}.")
    draw = np.random.default_rng(seed)
    rows = {}
    for method in order:
        mine = wide[method].dropna().to_numpy()
        row: dict[str, Any] = {"mean": mine.mean(), "n": len(mine)}
        row["low"], row["high"] = _interval(mine, resamples, draw)
        why = [] if len(mine) > 1 else ["interval not measurable: one pair"]
        if method != best:
            both = wide[[method, best]].dropna()
            difference = (both[method] - both[best]).to_numpy()
            row |= {"difference": difference.mean() if len(difference) else np.nan, "pairs": len(difference)}
            row["difference_low"], row["difference_high"] = _interval(difference, resamples, draw)
            if np.count_nonzero(difference) < LEAST_PAIRS:
                why.append(f"test not measurable: {np.count_nonzero(difference)} pairs differ, it needs {LEAST_PAIRS}")
            else:
                row["p"] = float(wilcoxon(difference).pvalue)
        rows[method] = {**row, "why": "; ".join(why)}
    columns = [
        "mean",
        "low",
        "high",
        "n",
        "difference",
        "difference_low",
        "difference_high",
        "pairs",
        "p",
        "p_holm",
        "why",
    ]
    table = pd.DataFrame(rows).T.reindex(columns=columns).rename_axis("method")
    table["p_holm"] = holm(table["p"].astype(float))
    table.attrs["against"] = best
    return table.astype({c: float for c in columns if c != "why"})


def holm(p: pd.Series) -> pd.Series:
    """p-values corrected for their number, step by step from the smallest (Holm 1979); NaN stay what they are."""
    known = p.dropna().sort_values()
    scaled = known * np.arange(len(known), 0, -1)
    return scaled.cummax().clip(upper=1.0).reindex(p.index)


def _interval(values: np.ndarray, resamples: int, draw: np.random.Generator) -> tuple[float, float]:
    if len(values) < 2:
        return np.nan, np.nan
    means = values[draw.integers(0, len(values), (resamples, len(values)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
