"""The rows of the text table; importing this fills METRICS with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from unlearnkit.metrics import text as metric
from unlearnkit.metrics.table import METRICS, UTILITY, Items, Metric, NotMeasurable, register_metric

NORMALISED = ("general", "real_authors", "world_facts")


def _mean(split: str, column: str, change: Callable[[np.ndarray], np.ndarray] | None = None) -> Any:
    def compute(items: Items) -> float:
        values = items.column(split, column)
        return float(np.nanmean(change(values) if change else values))

    return compute


def _ratio(items: Items, split: str, of: Any = None) -> np.ndarray:
    right = items.column(split, "paraphrase_nll", of)
    return metric.truth_ratio(right, items.column(split, "perturbed_nll_mean", of)[:, None])


def _truth_ratio(split: str) -> Any:
    change = metric.forget_truth_ratio if split in ("forget", "holdout") else metric.utility_truth_ratio
    return lambda items: float(np.nanmean(change(_ratio(items, split))))


def _probability(split: str, normalised: bool) -> Any:
    def compute(items: Items) -> float:
        p = metric.probability(items.column(split, "mean_nll"))
        return float(np.nanmean(p / (p + items.column(split, "option_p_sum")) if normalised else p))

    return compute


def _options(split: str) -> Any:
    def compute(items: Items) -> float:
        nearest = items.column(split, "option_nll_min")
        known = ~np.isnan(nearest)
        return float((items.column(split, "mean_nll")[known] < nearest[known]).mean())

    return compute


for _split in ("forget", *UTILITY, "holdout"):
    _able = 0.5 if _split in UTILITY else -math.inf
    for _name, _compute, _least, _share in (
        ("accuracy", _mean(_split, "correct"), _able, "correct"),
        ("paraphrase_accuracy", _mean(_split, "paraphrase_correct"), _able, "paraphrase_correct"),
        ("option_accuracy", _options(_split), _able, "option_nll_min"),
        ("probability", _probability(_split, _split in NORMALISED), -math.inf, ""),
        ("rouge_l_recall", _mean(_split, "rouge"), -math.inf, ""),
        ("truth_ratio", _truth_ratio(_split), -math.inf, ""),
        ("answer_nll", _mean(_split, "mean_nll"), -math.inf, ""),
    ):
        METRICS[f"{_split}_{_name}"] = Metric(_name, _split, _compute, _least, share_of=_share)
for _name, _column in (
    ("exact_memorization", "exact"),
    ("extraction_strength", "extraction"),
    ("refusal", "refused"),
    ("repetition", "repetition"),
):
    _share = _column if _column == "refused" else ""
    METRICS[f"forget_{_name}"] = Metric(_name, "forget", _mean("forget", _column), share_of=_share)


@register_metric("wrong_to_right")
def wrong_to_right(items: Items) -> float:
    """Geometric mean of r = P_wrong/P_right: below 1 the right answer is preferred, 1 is indifference."""
    return float(np.exp(np.nanmean(np.log(_ratio(items, "forget")))))


@register_metric("fluency")
def fluency(items: Items) -> float:
    """Perplexity of the generated forget answers under the original model."""
    return float(np.exp(np.nanmean(items.column("forget", "original_nll"))))


@register_metric("hallucination")
def hallucination(items: Items) -> float:
    """Share of forget answers that are a confident wrong value of the right type."""
    from unlearnkit.metrics.measure import CONFIDENT

    wrong = items.column("forget", "wrong_value")
    confident = np.exp(-items.column("forget", "own_nll")) >= CONFIDENT
    return float(np.nanmean(np.where(np.isnan(wrong), np.nan, wrong * confident)))


@register_metric("forget_quality", against_oracle=True, interval=False)
def forget_quality(items: Items) -> float:
    """log10 p of the KS test between the truth ratios of the model and of oracle 0."""
    return _ks(items)[0]


@register_metric("ks_statistic", against_oracle=True, distribution=True)
def ks_statistic(items: Items) -> float:
    """The statistic of that test: the largest distance between the two distributions."""
    return _ks(items)[1]


def _ks(items: Items) -> tuple[float, float]:
    mine, theirs = _ratio(items, "forget"), _ratio(items, "forget", items.oracle(0))
    return metric.forget_quality(mine[~np.isnan(mine)], theirs[~np.isnan(theirs)])


def _members(items: Items, score: Callable[[Mapping[str, np.ndarray]], np.ndarray], of: Any = None) -> float:
    model = items.model if of is None else of
    for split in ("forget", "holdout"):
        items.column(split, "mean_nll", of)
    return metric.auc(score(model["forget"]), score(model["holdout"]))


def _attack(column: str, sign: int) -> Callable[[Items], float]:
    return lambda items: _members(items, lambda table: sign * table[column])


for _name, _column, _sign in (
    ("loss", "mean_nll", -1),
    ("zlib", "zlib", -1),
    ("min_k", "min_k", 1),
    ("min_k_plus", "min_k_plus", 1),
    ("gradient_norm", "grad_norm", -1),
):
    METRICS[f"mia_{_name}"] = Metric(f"mia_{_name}", "forget", _attack(_column, _sign))


@register_metric("mia_reference", against_oracle=True)
def mia_reference(items: Items) -> float:
    """AUC of NLL − NLL_ref with oracle 0 as the reference model."""
    reference = items.oracle(0)
    items.column("holdout", "mean_nll")
    score = {s: reference[s]["mean_nll"] - items.column(s, "mean_nll") for s in ("forget", "holdout")}
    return metric.auc(score["forget"], score["holdout"])


@register_metric("privacy_leakage", against_oracle=True)
def privacy_leakage(items: Items) -> float:
    """Percent, from the min-k AUC of the model and of oracle 0."""
    of_oracle = _members(items, lambda table: table["min_k"], items.oracle(0))
    if of_oracle == 1:
        raise NotMeasurable("the oracle itself tells forget from holdout without an error (AUC 1)")
    return metric.privacy_leakage(_members(items, lambda table: table["min_k"]), of_oracle)


@register_metric("model_utility", split="retain")
def model_utility(items: Items) -> float:
    """Harmonic mean of probability, ROUGE-L recall and truth ratio over the utility splits there are."""
    present = [split for split in UTILITY if items.model.get(split, {}).get("mean_nll", np.empty(0)).size]
    if not present:
        raise NotMeasurable("there is no utility split")
    names = ("probability", "rouge_l_recall", "truth_ratio")
    return metric.harmonic_mean([METRICS[f"{split}_{n}"].compute(items) for split in present for n in names])
