"""The ledger of claims, and what the run folders say about each: supported, contradicted, undecided, not measurable.

>>> from unlearnkit.claims import read_ledger
>>> len(read_ledger().claims) >= 20
True
"""

from unlearnkit.claims.effects import COLUMNS
from unlearnkit.claims.ledger import Claim, Effect, Ledger, Rows, read_ledger
from unlearnkit.claims.verdict import Evidence, Verdict, as_table, in_words, judge, verdicts

__all__ = [
    "COLUMNS", "Claim", "Effect", "Evidence", "Ledger", "Rows", "Verdict", "as_table", "in_words", "judge",
    "read_ledger", "verdicts",
]  # fmt: skip
