"""The language-model metrics as functions of arrays; METRICS and papers name the definitions."""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]


def probability(mean_nll: Array) -> Array:
    """exp(−L/|y|) of each answer: (items,) → (items,), as in TOFU."""
    return np.exp(-mean_nll)


def option_probability(mean_nll: Array, wrong_nll: Array) -> Array:
    """p_c/(p_c + Σ p_wrong) from mean NLLs: (items,), (items, wrong) → (items,), TOFU's for real-world questions."""
    right = np.exp(-mean_nll)
    return right / (right + np.exp(-wrong_nll).sum(-1))


def truth_ratio(paraphrase_nll: Array, perturbed_nll: Array) -> Array:
    """r = P_wrong/P_right, geometric mean over perturbed answers: (items,), (items, wrong) → (items,).

    P_wrong = exp(−mean over perturbed of their mean NLL), P_right = exp(−mean NLL of the paraphrased answer).
    """
    return np.exp(paraphrase_nll - perturbed_nll.mean(-1))


def forget_truth_ratio(r: Array) -> Array:
    """min(r, 1/r): 1 when right and wrong answers are equally likely."""
    return np.minimum(r, 1 / r)


def utility_truth_ratio(r: Array) -> Array:
    """max(0, 1 − r): 1 when wrong answers are impossible."""
    return np.maximum(0, 1 - r)


def forget_quality(r: Array, r_oracle: Array) -> tuple[float, float]:
    """Two-sample KS test between truth ratios of a model and of the oracle: (log10 p, statistic), TOFU's.

    log10 p is computed where p itself underflows: from the asymptotic series when p is 0 in double precision.
    """
    with warnings.catch_warnings():  # scipy warns where rounding puts an exact p of 1 above 1
        warnings.simplefilter("ignore", RuntimeWarning)
        result: Any = stats.ks_2samp(r, r_oracle)
    p, d = float(result.pvalue), float(result.statistic)
    if p > 0:
        return math.log10(p), d
    n = len(r) * len(r_oracle) / (len(r) + len(r_oracle))
    return (math.log(2) - 2 * n * d * d) / math.log(10), d


def harmonic_mean(values: Sequence[float]) -> float:
    """Harmonic mean; 0 when any value is 0 or less (TOFU's model utility of nine numbers)."""
    return 0.0 if min(values) <= 0 else len(values) / sum(1 / v for v in values)


@lru_cache(maxsize=1)
def _scorer() -> Any:
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)


def rouge_l_recall(reference: str, answer: str) -> float:
    """ROUGE-L recall of an answer against the reference, Google's rouge_score with stemming."""
    return float(_scorer().score(reference, answer)["rougeL"].recall)


def extraction_strength(matches: Sequence[bool]) -> float:
    """1 − k/n, k the shortest prefix of the answer after which every argmax is its label; no match = 0."""
    n = len(matches)
    tail = 0
    while tail < n and matches[n - 1 - tail]:
        tail += 1
    return tail / n if n else 0.0


def min_k(log_probs: Array, k: float = 0.4) -> float:
    """Mean of the lowest share `k` of a sequence's token scores (Shi et al. 2024; with z-scores: min-k++)."""
    count = max(1, int(len(log_probs) * k))
    return float(np.sort(log_probs)[:count].mean())


def zlib_score(nll: float, text: str) -> float:
    """Summed NLL per byte of the zlib-compressed text (Carlini et al. 2021)."""
    return nll / len(zlib.compress(text.encode()))


def auc(members: Array, others: Array) -> float:
    """Area under the ROC curve of a score that is higher for members, ties counted half (Mann-Whitney)."""
    ranks = stats.rankdata(np.concatenate([members, others]))
    n, m = len(members), len(others)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def privacy_leakage(auc_model: float, auc_oracle: float) -> float:
    """100·((1−AUC) − (1−AUC_oracle))/(1−AUC_oracle), percent (MUSE): < 0 under-, > 0 over-unlearned.

    NaN where the oracle's AUC is 1: there is nothing to divide by.
    """
    if auc_oracle == 1:
        return math.nan
    return 100 * (auc_oracle - auc_model) / (1 - auc_oracle)


def repetition(tokens: Sequence[Any], n: int = 4) -> float:
    """Share of a text's n-grams of tokens that occurred in it before: seq-rep-n of arXiv 1908.04319; 0 for one or none.

    Of tokens, not words: a loop without spaces is a loop.
    """
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if len(grams) > 1 else 0.0
