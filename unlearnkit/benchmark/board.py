"""The leaderboard: one row a method, every number with its interval, and no place that ruin could buy."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.benchmark.rows import ATTACKS, COST, checked
from unlearnkit.errors import UnlearnkitError, unknown

BAR = 0.9  # share of the original's utility below which a method is not usable
ORACLE = "oracle"  # the yardstick stands in the table and holds no place in it
AXES = {  # branch: (forget metric whose gap is the first axis, metric whose share of the original's is the second)
    "text": ("forget_ks_statistic", "retain_model_utility"),
    "image": ("ua", "prompt_accuracy"),
}
ATTACKED = {"text": ("accuracy", "option_accuracy", "nll"), "image": ("shown", "probability")}  # what attacks report
FIRST = [
    "gap", "gap_low", "gap_high", "floor", "utility", "utility_low", "utility_high", "usable", "recovered",
    "recovered_low", "recovered_high", *(f"recovered_{name}" for name in ATTACKS), "seconds", "cost_ratio", "seeds",
    "items", "rank", "rank_low", "rank_high", "rank_gap", "rank_utility", "rank_recovered", "rank_seconds", "why",
]  # fmt: skip
LARGER = ("utility", "usable", "seeds", "items")  # is better


def leaderboard(
    rows: pd.DataFrame,
    *,
    by: str = "rank",
    forgetting: str | None = None,
    utility: str | None = None,
    bar: float = BAR,
    ascending: bool | None = None,
) -> pd.DataFrame:
    """One row a method from rows of a benchmark (`benchmark_rows`, `benchmark.measured`, `rows_of_runs`, …).

    The same for our worlds and for published models. Where one seed of a method ran with several settings, each of
    them is an entrant of its own, such as `uce (preserve_scale 0.1)`. Columns, numbers being means over seeds:

    - `gap`: |value − oracle| / |original − oracle| of the forget metric, each seed by itself and then averaged, so that
      seeds on both sides of the oracle don't cancel; `floor`: the largest such gap of another oracle;
    - `utility`: share of the original's; `usable`: whether it is at least `bar`;
    - `recovered_relearn`, `recovered_quantize`: how far each attack leads back from the oracle to the original, both
      attacked alike (0 the oracle, 1 the original), by the measure that shows most, since a saturated one (no right
      answer is spoken) hides what a graded one (they are likely again) shows; `recovered`: the worse, seed by seed;
    - `seconds`, and `cost_ratio` = seconds / seconds of retraining, where the rows of the oracle hold these;
    - `seeds`, `items` behind the gap, and `why` something is missing;
    - for every key of the rows: its mean under its own name, `<key>_low`, `<key>_high`, `<key>_gap`, `<key>_floor`
      (`measured_<key>` where a column above has that name).

    `…_low` and `…_high` are 95% intervals by Student's t over seeds (missing with one seed; of no width where the
    seeds don't differ, as with an edit in closed form). `rank_<column>` are places by one column. `rank` is the place
    by gap among the usable methods; those below the bar share the place after them, those not measurable
    have none. Gaps below the floor count as equal.
    `rank_low`–`rank_high` are the places the intervals leave open. The oracle has no place.

    Args:
        by: column to sort by: the largest utility first, of every other column the smallest value.
        forgetting: key of the forget metric; default the branch's.
        utility: key of the utility metric, of which more is better; default the branch's.
        bar: share of the original's utility that is asked for.
        ascending: overrides the direction.

    Raises:
        UnlearnkitError: no rows, rows of several branches or requests, an unknown key or column.
    """
    rows = checked(rows)
    if rows.empty:
        raise UnlearnkitError("there are no rows to make a leaderboard of; measure methods with benchmark_rows.")
    branch = _only(rows)
    keys = list(dict.fromkeys(rows["key"]))
    usual = AXES.get(branch, (None, None))
    forgetting, utility = forgetting or usual[0], utility or usual[1]
    for key in (forgetting, utility):
        if key not in keys:
            raise unknown("forget or utility key", key or "", keys)
    assert forgetting and utility
    if not 0 <= bar <= 1:
        raise UnlearnkitError(f"bar = {bar!r} is not possible; give a share of the original's utility, 0 to 1.")
    cases = rows.drop_duplicates(["method", "settings", "seed", "key"], keep="last", ignore_index=True)
    rows_of = {str(name): part for name, part in cases.groupby(_entrants(cases), sort=False)}
    board = pd.DataFrame({name: _row(part, branch, forgetting, utility, bar) for name, part in rows_of.items()}).T
    board = board.reindex(columns=[*FIRST, *(c for c in board if c not in FIRST)]).rename_axis("method")
    retraining = board["seconds"].get(ORACLE, np.nan)
    board["cost_ratio"] = board["seconds"].astype(float) / retraining
    board = _typed(board)
    _ranked(board)
    if by not in board:
        raise unknown("column", by, list(board.columns))
    up = by not in (*LARGER, utility) if ascending is None else ascending
    board = board.sort_values(by, ascending=up, kind="stable", na_position="last")
    board.attrs |= {"branch": branch, "forgetting": forgetting, "utility": utility, "bar": bar, "by": by}
    return board


def _entrants(cases: pd.DataFrame) -> pd.Series:
    """Whom each row is of: its method, with what sets it apart where a seed of the method ran with several settings."""
    names = cases["method"].copy()
    for method, part in cases.groupby("method", sort=False):
        if not part.duplicated(["seed", "key"]).any():
            continue
        found = {text: _parsed(text) for text in part["settings"].unique()}
        every = dict.fromkeys(name for settings in found.values() for name in settings)
        apart = [name for name in every if len({json.dumps(s.get(name)) for s in found.values()}) > 1]
        said = {text: ", ".join(f"{k} {s[k]}" for k in apart if k in s) for text, s in found.items()}
        named = {text: f"{method} ({words})" if words else str(method) for text, words in said.items()}
        names[part.index] = part["settings"].map(named)
    return names


def _parsed(settings: str) -> dict[str, Any]:
    try:
        found = json.loads(settings or "{}")
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"as": settings}


def _only(rows: pd.DataFrame) -> str:
    for column in ("branch", "world", "forget"):
        found = [str(value) for value in dict.fromkeys(rows[column])]
        if len(found) > 1:
            raise UnlearnkitError(
                f"the rows are of several values of {column} ({', '.join(found)}); a leaderboard compares like with "
                f"like: give it rows[rows['{column}'] == '{found[0]}']."
            )
    return str(rows["branch"].iloc[0])


def _row(part: pd.DataFrame, branch: str, forgetting: str, utility: str, bar: float) -> dict[str, Any]:
    of = {str(key): own for key, own in part.groupby("key", sort=False)}
    missing = pd.DataFrame(columns=part.columns)
    gap, kept = of.get(forgetting, missing), of.get(utility, missing)
    out: dict[str, Any] = _summary("gap", gap["gap"]) | _summary("utility", kept["relative"])
    out["floor"] = gap["floor"].astype(float).mean()
    out["usable"] = bool(out["utility"] >= bar) if not math.isnan(out["utility"]) else None
    back = {}
    for attack in ATTACKS:
        rows = [of.get(f"{attack}_{measure}", missing) for measure in ATTACKED.get(branch, ())]
        each = pd.concat([signed(own).groupby(own["seed"]).mean() for own in (missing, *rows)], axis=1)
        back[attack] = each.max(axis=1).astype(float)
        out[f"recovered_{attack}"] = back[attack].mean()
    both = pd.DataFrame(back)
    out |= _summary("recovered", both.max(axis=1)[both.notna().all(axis=1)])
    for key in COST:
        out[key] = of[key]["value"].mean() if key in of else np.nan
    out["seeds"] = int(max(part["seed"].nunique(), part["seeds"].max() if part["seeds"].notna().any() else 0))
    out["items"] = gap["n"].astype(float).mean()
    whys = [own["why"].iloc[0] for own in (gap, kept, of.get("refused", missing)) if len(own) and own["why"].iloc[0]]
    out["why"] = "; ".join(dict.fromkeys(whys)) if math.isnan(out["gap"] + out["utility"]) else ""
    for key, own in of.items():
        if key not in (*COST, "refused"):
            key = f"measured_{key}" if key in FIRST else key
            out |= _summary(key, own["value"])
            out[f"{key}_gap"], out[f"{key}_floor"] = own["gap"].astype(float).mean(), own["floor"].astype(float).mean()
    return out


def signed(rows: pd.DataFrame) -> pd.Series:
    """(value − oracle) / (original − oracle) of each row: 0 at the oracle, 1 at the original, missing without a gap."""
    apart = (rows["original"] - rows["oracle"]).astype(float)
    return ((rows["value"] - rows["oracle"]).astype(float) / apart).where(rows["gap"].notna())


def _summary(name: str, values: pd.Series) -> dict[str, float]:
    """Mean, and its 95% interval by Student's t over seeds; one value has none."""
    from scipy.stats import t

    known = values.dropna().astype(float).to_numpy()
    if not len(known) or len(known) < len(values):  # a mean over the seeds that went well would flatter
        return {name: math.nan, f"{name}_low": math.nan, f"{name}_high": math.nan}
    mean, half = float(known.mean()), math.nan
    if len(known) > 1:
        half = float(t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known)))
    return {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}


def _typed(board: pd.DataFrame) -> pd.DataFrame:
    words = ("usable", "why")
    return board.astype({c: float for c in board if c not in words})


def _ranked(board: pd.DataFrame) -> None:
    """Fill the columns of ranks, in place; equal values share the better place."""
    playing = board.index != ORACLE
    for column, better in (("gap", 1), ("utility", -1), ("recovered", 1), ("seconds", 1)):
        board[f"rank_{column}"] = (better * board[column].where(playing)).rank(method="min")
    usable = playing & (board["usable"] == True)  # noqa: E712 (None is neither)
    least = board["gap"].clip(lower=board["floor"].fillna(0.0))  # below the floor two oracles differ as much
    able, unable = least.where(usable), least.where(playing & (board["usable"] == False))  # noqa: E712
    board["rank"] = able.rank(method="min").fillna(unable.notna().map({True: able.count() + 1, False: np.nan}))
    low, high = board["gap_low"].fillna(board["gap"]), board["gap_high"].fillna(board["gap"])
    for name in board.index[usable]:
        board.loc[name, "rank_low"] = 1 + int((high[usable] < low[name]).sum())
        board.loc[name, "rank_high"] = int(usable.sum() - (low[usable] > high[name]).sum())


def compact(board: pd.DataFrame, columns: Sequence[str] = ("gap", "utility", "recovered", "seconds")) -> pd.DataFrame:
    """A board as text for reading: `value [low, high]`, a dash for what is missing, and what fails the bar marked."""
    out = pd.DataFrame(index=board.index)
    out["place"] = [place(row) for _, row in board.iterrows()]
    for column in columns:
        if column not in board:
            raise unknown("column", column, list(board.columns))
        ends = [board.get(f"{column}_{end}", board[column] * np.nan) for end in ("low", "high")]
        out[column] = [_spelled(*three) for three in zip(board[column], *ends, strict=True)]
    out["seeds"] = board["seeds"].map("{:.0f}".format)
    return out


def place(row: pd.Series) -> str:
    if row.name == ORACLE:
        return "target"
    if row["usable"] is False:
        return "fails the bar"
    if math.isnan(row["rank"]):
        return "not measurable"
    spread = "" if row["rank_low"] == row["rank_high"] else f" ({row['rank_low']:.0f}–{row['rank_high']:.0f})"
    return f"{row['rank']:.0f}{spread}"


def _spelled(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return "–"
    digits = 2 if abs(value) < 100 else 0
    interval = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{value:.{digits}f}{interval}"
