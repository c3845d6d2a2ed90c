"""The leaderboards of a report: one for what can be compared, from run folders and from the shipped tables."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from unlearnkit.benchmark.board import ORACLE, leaderboard
from unlearnkit.benchmark.rows import BRANCHES, measured
from unlearnkit.errors import UnlearnkitError

TOGETHER = ["branch", "world", "forget", "notebook", "profile", "parameters"]  # what one board has in common
MODELS = {"text": "Language models", "image": "Diffusion models"}
MEANINGLESS = "smoke"  # a profile that only shows that everything runs


@dataclass(frozen=True)
class Board:
    """A leaderboard with what it is of; `runs` are the digests of its runs, none for a shipped table."""

    title: str
    source: str
    table: pd.DataFrame
    runs: tuple[str, ...] = ()

    @property
    def branch(self) -> str:
        return str(self.table.attrs["branch"])


def boards_of_runs(rows: pd.DataFrame) -> list[Board]:
    """A board for every group of runs with the same parameters but methods and seeds; smoke runs come last.

    Groups that lack the branch's forget or utility metric, or hold nothing but oracles, make none.

    Args:
        rows: of `rows_of_runs`.
    """
    found = []
    for _, part in rows.groupby(TOGETHER, sort=False, dropna=False) if len(rows) else ():
        first = part.iloc[0]
        try:
            table = leaderboard(part)
        except UnlearnkitError:
            continue
        if set(table.index) == {ORACLE} or table["gap"].isna().all():
            continue
        request = " / ".join(filter(None, (str(first["world"]), str(first["forget"]))))
        meaning = "; of the profile smoke, whose numbers mean nothing" if first["profile"] == MEANINGLESS else ""
        title = f"{MODELS.get(first['branch'], 'Models')}: {request}"
        source = f"runs of {first['notebook']}, profile {first['profile']}{meaning}"
        found.append(Board(title, source, table, tuple(dict.fromkeys(part["run"]))))
    return sorted(found, key=lambda b: (MEANINGLESS in b.source, BRANCHES.index(b.branch), -len(b.table)))


def shipped_boards() -> list[Board]:
    """The boards of the shipped tables that there are."""
    found = []
    for branch in BRANCHES:
        try:
            rows = measured(branch)
        except UnlearnkitError:
            continue
        request = f"{rows['world'].iloc[0]} / {rows['forget'].iloc[0]}"
        found.append(Board(f"{MODELS[branch]}: {request}", SHIPPED.format(branch), leaderboard(rows)))
    return found


SHIPPED = "every registered method with its tuned settings, as shipped in data/measured/leaderboard_{}.csv"


def as_table(boards: list[Board]) -> pd.DataFrame:
    """All boards under each other: `board`, `source`, `method`, and the columns of `leaderboard`."""
    parts = [b.table.copy().reset_index().assign(board=b.title, source=b.source, runs=" ".join(b.runs)) for b in boards]
    if not parts:
        return pd.DataFrame(columns=["board", "source", "runs", "method"])
    whole = pd.concat([p.astype(object) for p in parts], ignore_index=True)
    first = ["board", "source", "runs", "method"]
    return whole[[*first, *(c for c in whole if c not in first)]]
