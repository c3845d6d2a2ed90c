"""The trade-off between forgetting and utility: points, fronts, attainment, mixing, tables at equal utility.

>>> from unlearnkit import tradeoff
>>> points = tradeoff.points("runs", forgetting="forget_ks_statistic", utility="retain_model_utility")
>>> tradeoff.indicators(points, by="method")
>>> tradeoff.compare(tradeoff.at_utility(points, 0.9))

Both axes are to be maximised everywhere: forgetting = 1 − gap of a forget metric (1 as retrained, 0 the original), and
utility relative to the original.
"""

from unlearnkit.tradeoff.attainment import Target, attained, attainment, oracle_scores, target
from unlearnkit.tradeoff.choice import RULES, best_feasible, preference, preferred
from unlearnkit.tradeoff.equal import at_utility, compare, holm
from unlearnkit.tradeoff.fronts import (
    AXES,
    REFERENCE,
    epsilon,
    front,
    hypervolume,
    igd_plus,
    indicators,
    knee,
    nondominated,
)
from unlearnkit.tradeoff.mixing import Calibrated, bisect, calibrate, mix
from unlearnkit.tradeoff.points import named, of_scores, point, points, relative_forgetting, scores_of
from unlearnkit.tradeoff.published import published
from unlearnkit.tradeoff.samples import samples
from unlearnkit.tradeoff.trajectory import trajectory

__all__ = [
    "AXES",
    "REFERENCE",
    "RULES",
    "Calibrated",
    "Target",
    "at_utility",
    "attained",
    "attainment",
    "best_feasible",
    "bisect",
    "calibrate",
    "compare",
    "epsilon",
    "front",
    "holm",
    "hypervolume",
    "igd_plus",
    "indicators",
    "knee",
    "mix",
    "named",
    "nondominated",
    "of_scores",
    "oracle_scores",
    "point",
    "points",
    "preference",
    "preferred",
    "published",
    "relative_forgetting",
    "samples",
    "scores_of",
    "target",
    "trajectory",
]
