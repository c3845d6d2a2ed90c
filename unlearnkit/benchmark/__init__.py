"""The benchmark as an artefact: rows of measured methods, leaderboards and rankings, method cards, results to submit.

>>> import unlearnkit as uk
>>> from unlearnkit import benchmark
>>> board = uk.leaderboard(benchmark.measured("text"), by="gap")
>>> uk.rankings(board, ["mean rank", "equal utility"])
>>> uk.method_card("text", "npo")

The same code makes the boards of our worlds and of published models (`rows_of_models`).
"""

from unlearnkit.benchmark.board import AXES, BAR, compact, leaderboard
from unlearnkit.benchmark.cards import MethodCard, method_card
from unlearnkit.benchmark.measure import benchmark_rows
from unlearnkit.benchmark.ranks import AGGREGATES, agreement, flips, rankings
from unlearnkit.benchmark.rows import COLUMNS, measured, read_rows, rows_of_models, rows_of_runs, rows_of_scores

__all__ = [
    "AGGREGATES",
    "AXES",
    "BAR",
    "COLUMNS",
    "MethodCard",
    "agreement",
    "benchmark_rows",
    "compact",
    "flips",
    "leaderboard",
    "measured",
    "method_card",
    "rankings",
    "read_rows",
    "rows_of_models",
    "rows_of_runs",
    "rows_of_scores",
]
