"""Rankings of one leaderboard under several aggregates: whether a method leads depends on what is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.benchmark.board import ORACLE
from unlearnkit.errors import UnlearnkitError, unknown

Aggregate = Callable[[pd.DataFrame], pd.Series]  # a board's rows without the oracle → a number a method, small is good
PARTS = {"gap": 1, "utility": -1, "recovered": 1}  # forgetting, utility, robustness; +1: the smaller the better


def rankings(
    board: pd.DataFrame, how: Sequence[str] | Mapping[str, Aggregate] | None = None, bar: float | None = None
) -> pd.DataFrame:
    """Places of every method under each aggregate; 1 is best, equal values share the better place.

    Forgetting is `gap`, utility the share of the original's, robustness `recovered`. A method that lacks one of these
    has no place where it counts (it is not measurable), unless all methods lack it: then it is left out for all.

    - "forgetting", "utility", "robustness", "cost": by that alone. Ruin wins the first, doing nothing the second.
    - "mean rank", "worst rank": mean and worst of the places by the first three.
    - "pareto layer": 1 for what no other method beats on all three, 2 for what is then left, …
    - "harmonic mean": of 1 − gap, utility and 1 − recovered, each cut to 0–1, as some papers aggregate.
    - "equal utility": by gap among the methods that keep `bar` of the utility; the others share the place after them.

    Args:
        board: what `leaderboard` returned.
        how: names from above (default all), or name → your own function of the board, smaller is better.
        bar: share of the original's utility; default the board's.

    Raises:
        UnlearnkitError: an unknown aggregate, or something that is no leaderboard.
    """
    if lacking := [c for c in PARTS if c not in board]:
        raise UnlearnkitError(f"this table has no column '{lacking[0]}'; give rankings what leaderboard returned.")
    asked: dict[str, Aggregate] = dict(how) if isinstance(how, Mapping) else {n: _known(n) for n in how or AGGREGATES}
    playing = board[board.index != ORACLE].copy()
    playing.attrs["bar"] = board.attrs.get("bar", 0.9) if bar is None else bar
    ranks = {name: pd.Series(made(playing), dtype=float).rank(method="min") for name, made in asked.items()}
    table = pd.DataFrame(ranks, index=playing.index)
    return table.sort_values(list(table)[0], na_position="last", kind="stable")


def agreement(ranks: pd.DataFrame) -> pd.DataFrame:
    """Kendall's τ-b between every two columns of `rankings` over the methods both place: 1 same order, −1 reversed."""
    return ranks.corr(method="kendall", min_periods=2)


def _known(name: str) -> Aggregate:
    if name not in AGGREGATES:
        raise unknown("aggregate", name, AGGREGATES)
    return AGGREGATES[name]


def _column(name: str) -> Aggregate:
    return lambda board: PARTS.get(name, 1) * board[name]


def _parts(board: pd.DataFrame) -> pd.DataFrame:
    """What counts, all to be minimised; methods that lack a part are left out, parts that all lack too."""
    whole = pd.DataFrame({name: better * board[name] for name, better in PARTS.items()})
    return whole.dropna(axis="columns", how="all").dropna()


def _mean_rank(board: pd.DataFrame) -> pd.Series:
    return _parts(board).rank(method="min").mean(axis=1).reindex(board.index)


def _worst_rank(board: pd.DataFrame) -> pd.Series:
    return _parts(board).rank(method="min").max(axis=1).reindex(board.index)


def _pareto_layer(board: pd.DataFrame) -> pd.Series:
    import moocore

    parts = _parts(board)
    if parts.empty:
        return pd.Series(np.nan, board.index)
    layers = moocore.pareto_rank(parts.to_numpy(float))
    return pd.Series(np.asarray(layers, float), parts.index).reindex(board.index)


def _harmonic_mean(board: pd.DataFrame) -> pd.Series:
    parts = _parts(board)
    shares = pd.DataFrame({c: -parts[c] if c == "utility" else 1 - parts[c] for c in parts}).clip(0, 1)
    with np.errstate(divide="ignore"):
        return -(len(shares.columns) / (1 / shares).sum(axis=1)).reindex(board.index)


def _equal_utility(board: pd.DataFrame) -> pd.Series:
    known = board["gap"].where(board["utility"].notna())
    return known.where(board["utility"] >= board.attrs["bar"], known * 0 + np.inf)


AGGREGATES: dict[str, Aggregate] = {
    "forgetting": _column("gap"),
    "utility": _column("utility"),
    "robustness": _column("recovered"),
    "cost": _column("seconds"),
    "mean rank": _mean_rank,
    "worst rank": _worst_rank,
    "pareto layer": _pareto_layer,
    "harmonic mean": _harmonic_mean,
    "equal utility": _equal_utility,
}


def flips(ranks: pd.DataFrame) -> list[dict[str, Any]]:
    """Pairs of methods whose order depends on the aggregate: `a` before `b` under some, `b` before `a` under others."""
    found = []
    names = list(ranks.index)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            ahead = [str(c) for c in ranks if ranks.at[a, c] < ranks.at[b, c]]
            behind = [str(c) for c in ranks if ranks.at[a, c] > ranks.at[b, c]]
            if ahead and behind:
                found.append({"a": a, "b": b, "a first": ahead, "b first": behind})
    return found
