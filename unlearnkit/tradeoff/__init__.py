"""The trade-off between forgetting and utility: points, fronts, attainment, mixing, tables at equal utility.

>>> from unlearnkit import tradeoff
>>> points = tradeoff.points("runs", forgetting="forget_ks_statistic", utility="retain_model_utility")
>>> tradeoff.indicators(points, by="method")
>>> tradeoff.compare(tradeoff.at_utility(points, 0.9))

Both axes are to be maximised everywhere: forgetting = 1 − gap of a forget metric (1 as retrained, 0 the original), and
utility relative to the original.
"""

from unlearnkit.tradeoff.attainment import Target, attained, attainment, target
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
from unlearnkit.tradeoff.points import of_scores, point, points, relative_forgetting
from unlearnkit.tradeoff.published import published
from unlearnkit.tradeoff.trajectory import trajectory

__all__ = [
    "AXES",
    "REFERENCE",
    "Calibrated",
    "Target",
    "at_utility",
    "attained",
    "attainment",
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
    "nondominated",
    "of_scores",
    "point",
    "points",
    "published",
    "relative_forgetting",
    "target",
    "trajectory",
]
