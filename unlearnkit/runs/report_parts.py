"""Leaderboards and method cards as the report's template takes them: text, numbers to sort by, pictures."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlearnkit.benchmark.boards import Board
    from unlearnkit.claims import Verdict

COLUMNS = {  # column of a leaderboard: (its head, how it is sorted first)
    "place": ("place", "up"), "gap": ("gap", "up"), "floor": ("floor", "up"), "utility": ("utility", "down"),
    "recovered": ("recovered", "up"), "recovered_relearn": ("relearned", "up"),
    "recovered_quantize": ("quantized", "up"), "seconds": ("seconds", "up"),
    "cost_ratio": ("of retraining", "up"), "seeds": ("seeds", "down"), "items": ("items", "down"),
}  # fmt: skip


def shown_board(board: Board, cards: Mapping[str, str], runs: Mapping[str, str]) -> dict[str, Any]:
    """A board for the template; columns in which nothing is known are left out.

    Args:
        cards, runs: name of a method, digest of a run → where it stands on the page.
    """
    table, about = board.table, board.table.attrs
    columns = [c for c in COLUMNS if c == "place" or (c in table and table[c].notna().any())]
    rows = [
        {
            "method": str(name), "card": cards.get(str(name).partition(" (")[0]), "why": row["why"],
            "target": name == "oracle",
            "cells": [_place(name, row) if c == "place" else _number(row, c) for c in columns],
        }
        for name, row in table.iterrows()
    ]  # fmt: skip
    return {
        "title": board.title, "source": board.source, "forgetting": about["forgetting"], "utility": about["utility"],
        "bar": f"{about['bar']:.0%}", "columns": [COLUMNS[c] for c in columns], "rows": rows,
        "runs": [(run, runs.get(run)) for run in board.runs],
    }  # fmt: skip


def shown_cards(boards: Sequence[Board], verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """A card for every registered method of the branches that the boards are of; what it reached, from the last one."""
    from unlearnkit.benchmark import method_card
    from unlearnkit.benchmark.equations import picture
    from unlearnkit.methods import METHODS

    latest = {board.branch: board.table for board in boards}
    out = []
    for kind, table in latest.items():
        for name in METHODS[kind]:
            card = method_card(kind, name, board=table, verdicts=verdicts)
            drawn = picture(card.equation)
            out.append({
                "id": f"card-{kind}-{name}", "name": name, "kind": kind, "title": card.title, "about": card.about,
                "equation": card.equation, "paper": card.paper, "code": card.code, "failure": card.failure,
                "defaults": f"Defaults: {card.defaults}.", "reached": card.number(), "claims": card.claims,
                "settings": ", ".join(f"{k} {v}" for k, v in card.settings.items()) or "none",
                "tests": card.tests, "properties": len(card.properties),
                "picture": f"data:image/png;base64,{base64.b64encode(drawn[0]).decode()}" if drawn else None,
                "width": drawn[1] if drawn else None,
            })  # fmt: skip
    return out


def _place(name: Any, row: Any) -> dict[str, Any]:
    from unlearnkit.benchmark.board import place

    return {
        "text": place(row),
        "value": row["rank"] if row["rank"] == row["rank"] else "",
        "bad": row["usable"] is False,
    }


def _number(row: Any, column: str) -> dict[str, Any]:
    value = float(row[column])
    low, high = row.get(f"{column}_low", math.nan), row.get(f"{column}_high", math.nan)
    digits = 0 if column in ("seeds", "items") or abs(value) >= 100 else 2
    interval = "" if low != low else f"[{low:.{digits}f}, {high:.{digits}f}]"
    failing = column == "utility" and row["usable"] is False
    known = value == value
    return {"text": f"{value:.{digits}f}" if known else "–", "value": repr(value) if known else "",
            "interval": interval, "bad": failing}  # fmt: skip


def cell(value: Any) -> str:
    """Four significant digits for a number that isn't whole, a dash for what is missing."""
    if value is None or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
