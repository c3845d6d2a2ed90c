"""Meta-evaluation: metrics judged by models whose truth is known.

>>> import unlearnkit as uk
>>> uk.meta_evaluate(["forget_truth_ratio", "forget_probability"])  # on the shipped pool of language models
>>> uk.meta_evaluate(pool="image")
"""

from unlearnkit.metaevaluation.beside import LEAST, METRIC_NAMES, PICTURES, TOFU, Beside, as_table, beside, findings
from unlearnkit.metaevaluation.known import Known, known_models
from unlearnkit.metaevaluation.measuring import pool_of
from unlearnkit.metaevaluation.pool import INSIDE, TRUTHS, Entry, Pool, merged, read_pool, save_pool
from unlearnkit.metaevaluation.statistics import separation, symmetric_robustness
from unlearnkit.metaevaluation.verb import COLUMNS, meta_evaluate, read_table

__all__ = [
    "COLUMNS",
    "INSIDE",
    "LEAST",
    "METRIC_NAMES",
    "PICTURES",
    "TOFU",
    "TRUTHS",
    "Beside",
    "Entry",
    "Known",
    "Pool",
    "as_table",
    "beside",
    "findings",
    "known_models",
    "merged",
    "meta_evaluate",
    "pool_of",
    "read_pool",
    "read_table",
    "save_pool",
    "separation",
    "symmetric_robustness",
]
