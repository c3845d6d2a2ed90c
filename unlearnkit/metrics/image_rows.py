"""The rows of the image table; importing this fills METRICS with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from unlearnkit.metrics import image as metric
from unlearnkit.metrics.table import SMALLEST, Items, NotMeasurable, file_metric
from unlearnkit.metrics.text import auc

ABLE = 0.5  # what the original must reach for a retain row to say anything


def _put(key: str, name: str, split: str, **flags: Any) -> Callable[[Callable[[Items], float]], Any]:
    return file_metric(key, name, split, "image", **flags)


def _mean(split: str, column: str) -> Callable[[Items], float]:
    return lambda items: float(np.nanmean(items.column(split, column)))


_put("ua", "unlearning accuracy (UA)", "forget", at_most=1 - ABLE, share_of="shown")(
    lambda items: 1 - _mean("forget", "shown")(items)
)
_put("ira", "in-domain retain accuracy (IRA)", "retain", ability=ABLE, share_of="in_domain")(
    _mean("retain", "in_domain")
)


@_put("cra", "cross-domain retain accuracy (CRA)", "retain", ability=ABLE)
def cross_domain_retain_accuracy(items: Items) -> float:
    """Mean over all prompts, the erased ones too where they count, each prompt with the same weight (UnlearnCanvas)."""
    right, weight = items.column("retain", "cross_domain"), items.column("retain", "weight")
    erased = items.model.get("forget", {})
    if "cross_domain" in erased and not np.isnan(erased["cross_domain"]).all():
        right = np.concatenate([right, erased["cross_domain"]])
        weight = np.concatenate([weight, erased["weight"]])
    known = ~np.isnan(right)
    return float(np.average(right[known], weights=weight[known]))


_put("prompt_accuracy", "all that is asked for is read", "retain", ability=ABLE, share_of="correct")(
    _mean("retain", "correct")
)


@_put("related_accuracy", "accuracy on the concept nearest to the erased one", "retain", ability=ABLE)
def related_accuracy(items: Items) -> float:
    """Share of the pictures of the nearest retained concept that are read right; `related_damage` has all concepts."""
    distance, right = items.column("retain", "distance"), items.column("retain", "correct")
    nearest = distance == np.nanmin(distance)
    if nearest.sum() < SMALLEST:
        raise NotMeasurable(f"{nearest.sum()} pictures of the nearest concept are too few (at least {SMALLEST})")
    return float(right[nearest].mean())


for _split in ("forget", "retain"):
    _put(f"{_split}_alignment", "alignment", _split)(_mean(_split, "alignment"))
    _put(f"{_split}_clip_score", "CLIP score", _split, needs="clip_score")(_mean(_split, "clip_score"))


def _pair(items: Items) -> tuple[np.ndarray, np.ndarray, float]:
    """Features of the model's and of oracle 0's pictures of the erased prompts, and the kernel's bandwidth.

    The bandwidth is the median distance within oracle 0's pictures, so that every model is held to one yardstick.
    """
    oracle = items.oracle(0)
    mine, theirs = items.column("forget", "features"), items.column("forget", "features", oracle)
    bandwidth = metric.median_distance(theirs)
    if not bandwidth > 0:
        raise NotMeasurable("the oracle's pictures are all alike")
    return mine, theirs, bandwidth


@_put("oracle_mmd", "squared MMD to the oracle (features = judge)", "forget", against_oracle=True, distribution=True)
def oracle_mmd(items: Items) -> float:
    """Gaussian kernel, bandwidth the median distance within oracle 0's pictures; paired by prompt and seed."""
    return metric.paired_mmd(*_pair(items))


@_put("oracle_mmd_p", "its permutation p-value", "forget", against_oracle=True, interval=False)
def oracle_mmd_p(items: Items) -> float:
    """Small: the pictures can be told from the oracle's. 999 permutations, so never below 0.001."""
    return metric.permutation_p(*_pair(items))


def _beside_real(items: Items) -> tuple[np.ndarray, np.ndarray]:
    """Features of the pictures of retained prompts, and of real pictures that show the same."""
    real = items.column("retain", "real_features")
    known = ~np.isnan(real).any(1)
    return items.column("retain", "features")[known], real[known]


@_put("retain_kid", "KID (features = judge)", "retain", distribution=True)
def retain_kid(items: Items) -> float:
    """Kernel distance of the pictures of retained prompts from real ones."""
    return metric.kid(*_beside_real(items))


@_put("retain_frechet", "Fréchet distance (features = judge)", "retain", distribution=True)
def retain_frechet(items: Items) -> float:
    """The same by the Fréchet distance, which needs more pictures than there are features."""
    mine, real = _beside_real(items)
    if len(mine) <= mine.shape[1]:
        raise NotMeasurable(f"{len(mine)} pictures are too few for {mine.shape[1]} features; see KID")
    return metric.frechet_distance(mine, real)


@_put("mia_denoising_loss", "membership AUC of the denoising loss", "members")
def mia_denoising_loss(items: Items) -> float:
    """0.5 = nothing leaks. Individual images against unseen ones (Matsumoto et al. 2023, arXiv 2302.03262)."""
    return auc(-items.column("members", "denoising_loss"), -items.column("holdout", "denoising_loss"))


_put("members_denoising_loss", "denoising loss of the forgotten images", "members")(_mean("members", "denoising_loss"))
