"""The image metrics as functions of arrays: what a judge read, its features of pictures, denoising losses."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def readings(
    read: Mapping[str, Sequence[int]], asked: Mapping[str, Sequence[int]], erased: Mapping[str, int]
) -> dict[str, Array]:
    """What UA, IRA and CRA are means of, picture by picture (UnlearnCanvas, arXiv 2402.11846), each (items,).

    A concept of one domain is erased: IRA asks, on prompts without it, for the right concept of its domain; CRA, on all
    prompts, for the right concepts of the other domains. A pair is erased: everything asked for must be right, for IRA
    on prompts that share one concept with the pair (the paper's style and object consistency), for CRA on prompts that
    share none (its unrelated prompting).

    Args:
        read: domain → the concept a judge reads, by index.
        asked: domain → the concept the prompt asks for, negative where it asks for none.
        erased: domain → the erased concept; empty when there is none.

    Returns:
        `correct`: all that was asked for is read; `shown`: the erased concept is read (UA is 1 − its mean over erased
        prompts); `in_domain`: IRA's; `cross_domain`: CRA's. NaN where a picture does not count.
    """
    right = {d: np.where(np.asarray(a) < 0, np.nan, np.equal(read[d], a)) for d, a in asked.items()}
    items = len(next(iter(right.values())))
    correct = _mean_known(list(right.values()), items)
    correct = np.where(np.isnan(correct), np.nan, correct == 1)
    nothing = np.full(items, np.nan)
    if not erased:
        return {"correct": correct, "shown": nothing, "in_domain": nothing, "cross_domain": nothing}
    wants = np.array([np.equal(asked[d], c) for d, c in erased.items()])  # (erased domains, items)
    target = wants.all(0)
    shown = np.array([np.equal(read[d], c) for d, c in erased.items()]).all(0).astype(float)
    if len(erased) == 1:
        (domain,) = erased
        inside = np.where(target, np.nan, right[domain])
        across = _mean_known([r for d, r in right.items() if d != domain], items)
    else:
        inside = np.where(wants.any(0) & ~target, correct, np.nan)
        across = np.where(wants.any(0), np.nan, correct)
    return {"correct": correct, "shown": shown, "in_domain": inside, "cross_domain": across}


def _mean_known(rows: list[Array], items: int) -> Array:
    """Mean over rows without NaN; NaN where all are: (rows, items) → (items,)."""
    table = np.array(rows).reshape(-1, items)
    known = (~np.isnan(table)).sum(0)
    return np.where(known > 0, np.nansum(table, 0) / np.maximum(known, 1), np.nan)


def alignment(probabilities: Mapping[str, Array], asked: Mapping[str, Sequence[int]]) -> Array:
    """Probability of every attribute a prompt asked for, the product over domains: (items,); NaN if it asks for none.

    Args:
        probabilities: domain → (items, concepts), a judge's.
        asked: domain → index of the concept each prompt asks for, negative where it asks for none.
    """
    parts = []
    for domain, wanted in asked.items():
        index = np.asarray(wanted)
        given = np.take_along_axis(probabilities[domain], np.maximum(index, 0)[:, None], 1)[:, 0]
        parts.append(np.where(index < 0, np.nan, given))
    table = np.array(parts, float)  # (domains, items)
    return np.where(np.isnan(table).all(0), np.nan, np.nanprod(table, 0))


def median_distance(x: Array) -> float:
    """Median Euclidean distance of the pairs of a sample (items, features): the bandwidth of the MMD's kernel."""
    return float(np.sqrt(np.median(_squares(x, x)[np.triu_indices(len(x), 1)])))


def paired_mmd(x: Array, y: Array, bandwidth: float) -> float:
    """Squared maximum mean discrepancy of paired samples, both (items, features): unbiased, so it can be below 0.

    Mean over i ≠ j of k(x_i, x_j) + k(y_i, y_j) − k(x_i, y_j) − k(x_j, y_i), with k(a, b) = exp(−‖a−b‖²/2σ²): lemma 6
    of Gretton et al. 2012 (JMLR 13). It leaves out the pairs k(x_i, y_i), which share a prompt and a noise.

    Args:
        bandwidth: σ, in the unit of the features.
    """
    return _mean_pairs(_core(x, y, _gaussian(bandwidth)))


def permutation_p(x: Array, y: Array, bandwidth: float, permutations: int = 999, seed: int = 0) -> float:
    """p of `paired_mmd` if x and y came from one distribution: x_i and y_i swapped at random, `permutations` times.

    The smallest possible value is 1/(permutations + 1).
    """
    core = _core(x, y, _gaussian(bandwidth))
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (permutations, len(x)))
    null = ((signs @ core) * signs).sum(1)  # a swap of i turns the sign of every term with i
    # rounding must not make equal sums differ
    return float((1 + (null >= core.sum() - 1e-9 * np.abs(core).sum()).sum()) / (permutations + 1))


def kid(samples: Array, real: Array) -> float:
    """Kernel distance of two sets of features: the same estimate with torchmetrics' kernel (a·b/d + 1)³.

    Binkowski et al. 2018, arXiv 1801.01401. Row i of both sets is of the same prompt: with as many pictures of every
    prompt, the usual mean over all pairs (i, i) included would come out too low, below 0 for perfect samples.
    """
    import torch
    from torchmetrics.image.kid import poly_kernel

    def kernel(a: Array, b: Array) -> Array:
        return poly_kernel(torch.from_numpy(a), torch.from_numpy(b)).numpy()

    return _mean_pairs(_core(np.asarray(samples, np.float64), np.asarray(real, np.float64), kernel))


def _squares(x: Array, y: Array) -> Array:
    """Squared Euclidean distances (len x, len y)."""
    found = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * x @ y.T
    return np.maximum(found, 0)


def _gaussian(bandwidth: float) -> Callable[[Array, Array], Array]:
    return lambda a, b: np.exp(_squares(a, b) / (-2 * bandwidth**2))


def _core(x: Array, y: Array, kernel: Callable[[Array, Array], Array]) -> Array:
    """h(z_i, z_j) of lemma 6, 0 on the diagonal: (items, items)."""
    across = kernel(x, y)
    core = kernel(x, x) + kernel(y, y) - across - across.T
    np.fill_diagonal(core, 0)
    return core


def _mean_pairs(core: Array) -> float:
    return float(core.sum() / (len(core) * (len(core) - 1)))


def frechet_distance(samples: Array, real: Array) -> float:
    """Fréchet distance of two Gaussians fitted to features (items, d), through torchmetrics; biased upwards at small n.

    Heusel et al. 2017, arXiv 1706.08500, call it FID when the features are Inception's. These are the judge's, so its
    numbers compare with nothing outside this table.
    """
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Given(torch.nn.Module):
        """The features are computed already."""

        num_features = int(samples.shape[1])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distance = FrechetInceptionDistance(feature=Given())
        distance.update(torch.from_numpy(np.asarray(real, np.float64)), real=True)
        distance.update(torch.from_numpy(np.asarray(samples, np.float64)), real=False)
        return float(distance.compute())


def concept_distances(features: Array, concepts: Sequence[str], erased: str) -> dict[str, float]:
    """Distance of every other concept from the erased one, nearest first: of the means of their features.

    Args:
        features: a judge's of real pictures, (items, d); concepts: what each shows.
    """
    shown = np.asarray(concepts)
    mean = {c: features[shown == c].mean(0) for c in sorted(set(concepts))}
    found = {c: float(np.linalg.norm(m - mean[erased])) for c, m in mean.items() if c != erased}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def evenly(x: NDArray[Any], count: int) -> NDArray[Any]:
    """`count` rows of x, spread evenly over it; x itself when it has no more."""
    return x if len(x) <= count else x[np.linspace(0, len(x) - 1, count).round().astype(int)]
