"""Which outputs are alike: texts by the words they share, pictures by what a judge sees in them, in clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

TOPICS = 50  # dimensions in which texts are compared


def clustered(outputs: Any, count: int) -> pd.Series:
    """id → cluster, 1 the largest: Ward's agglomeration of unit vectors (answers: TF-IDF of words and pairs of words,
    reduced by a truncated SVD; pictures: the judge's features, or 4 × 4 pixels without one).

    Outputs that are the same are in one cluster, so there can be fewer than `count`.
    """
    from sklearn.cluster import AgglomerativeClustering

    different, where = np.unique(outputs.features.round(6), axis=0, return_inverse=True)
    count = min(count, len(different))
    labels = np.zeros(len(outputs.table), int)
    if count > 1:
        labels = AgglomerativeClustering(count, linkage="ward").fit_predict(different)[where.ravel()]
    sizes = pd.Series(labels).value_counts(sort=False)
    order = sorted(sizes.index, key=lambda k: (-sizes[k], int(np.flatnonzero(labels == k)[0])))
    return pd.Series([order.index(k) + 1 for k in labels], index=outputs.table.index, name="cluster")


def described(outputs: Any, clusters: pd.Series, number: int, words: int = 3) -> tuple[str, str]:
    """The id of a cluster's most typical output, and the words that tell it from the others (answers only)."""
    mine = (clusters == number).to_numpy()
    near = outputs.features @ outputs.features[mine].mean(0)
    typical = outputs.table.index[int(np.argmax(np.where(mine, near, -np.inf)))]
    weights, known = outputs.terms
    if not known:
        return typical, ""
    rest = weights[~mine].mean(0) if (~mine).any() else 0.0
    apart = weights[mine].mean(0) - rest
    best = [known[i] for i in np.argsort(-apart, kind="stable")[:words] if apart[i] > 0]
    return typical, " · ".join(best)


def words_of(texts: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    tool = TfidfVectorizer(
        ngram_range=(1, 2), token_pattern=r"(?u)\w+(?:['’]\w+)*", sublinear_tf=True, max_features=4000
    )
    try:
        return tool.fit_transform(texts).toarray(), tool.get_feature_names_out().tolist()
    except ValueError:  # not one word in all of them
        return np.zeros((len(texts), 0)), []


def topics_of(weights: np.ndarray) -> np.ndarray:
    from sklearn.decomposition import TruncatedSVD

    size = min(TOPICS, *(n - 1 for n in weights.shape))
    return unit(TruncatedSVD(size, random_state=0).fit_transform(weights) if size > 1 else weights)


def unit(values: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, length, out=np.zeros_like(values), where=length > 1e-9)
