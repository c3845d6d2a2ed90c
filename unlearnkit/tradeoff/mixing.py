"""Unlearning with control (UWC, Wang et al. 2024, arXiv 2406.09179): mix with the original until utility is equal.

The mixed model θ_a = (1 − a)θ₀ + aθ is the original at a = 0 and the unlearned one at a = 1. Every method is brought to
the same utility by its own a; then forgetting is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn

from unlearnkit.errors import UnlearnkitError
from unlearnkit.evaluation import measure, references, score
from unlearnkit.metrics.measure import Measured
from unlearnkit.metrics.table import metric_names
from unlearnkit.models.adapters import merged
from unlearnkit.unlearning import model_of

LOOKS = 6  # bisections: a is known to 1/64


@dataclass
class Calibrated:
    """A model mixed down to a utility.

    Attributes:
        a: share of the unlearned model in the mixture; 1 when it kept the utility by itself.
        model: the mixture.
        utility: relative to the original.
        looks: every a that was tried: columns `a`, `utility`.
        measured: what `measure` says of the mixture, for `evaluate`.
    """

    a: float
    model: Any
    utility: float
    looks: pd.DataFrame
    measured: Measured


@torch.no_grad()
def mix(problem: Any, unlearned: Any, a: float) -> Any:
    """(1 − a)θ₀ + aθ as a model of its own; a LoRA adapter is merged into a copy first.

    Args:
        unlearned: what `unlearn` returned, or a model.
        a: 0 (the original, exactly) to 1 (the unlearned model, exactly).

    Raises:
        UnlearnkitError: a outside [0, 1]; weights of other names or shapes than the original's; or a method that
            changed no weights but the way the model is asked or sampled.
    """
    if not 0 <= a <= 1:
        raise UnlearnkitError(f"a = {a!r} is not possible; give a share of the unlearned model, 0 to 1.")
    ends = _weights(merged(model_of(problem, unlearned)))
    mixed = problem.original.fresh()
    starts = _weights(mixed)
    other = [n for n in {**starts, **ends} if n not in starts or n not in ends or starts[n].shape != ends[n].shape]
    if other:
        raise UnlearnkitError(
            f"the model can't be mixed with its original: they don't share the weight '{other[0]}'; mixing is for "
            "methods that change weights, not for those that put something around the model."
        )
    if all(torch.equal(w, ends[n].to(w)) for n, w in starts.items()):
        raise UnlearnkitError(
            "the model has the weights of its original, so that mixing would change nothing; a method that only "
            "changes how the model is asked or sampled can't be calibrated."
        )
    for name, weight in starts.items():
        if weight.is_floating_point():
            weight.copy_(torch.lerp(weight, ends[name].to(weight), a))
    return mixed.eval()


def bisect(utility: Callable[[float], float], share: float, looks: int = LOOKS) -> tuple[float, pd.DataFrame]:
    """The largest a, to 2^−looks, at which `utility(a)` is still ≥ share, if it falls from 1 at a = 0.

    Returns a and every look (columns `a`, `utility`). Where utility is not monotone, it is one a of several: the
    looks show.

    Raises:
        UnlearnkitError: a share above 1 or not above 0.
    """
    if not 0 < share <= 1:
        raise UnlearnkitError(f"share = {share!r} is not possible; give a share of the original's utility, up to 1.")
    seen = {0.0: 1.0, 1.0: float(utility(1.0))}
    low, high = 0.0, 1.0
    if seen[1.0] >= share:
        low = 1.0
    else:
        for _ in range(looks):
            middle = (low + high) / 2
            seen[middle] = float(utility(middle))
            low, high = (middle, high) if seen[middle] >= share else (low, middle)
    return low, pd.DataFrame(sorted(seen.items()), columns=["a", "utility"])


def calibrate(
    problem: Any, unlearned: Any, utility: str, share: float = 0.95, *, limit: int = 100, looks: int = LOOKS
) -> Calibrated:
    """The mixture of model and original that keeps `share` of the original's utility.

    Args:
        utility: key of a metric where more is better; `relative` of its row in `evaluate` is what is compared.
        limit: questions asked, or pictures sampled, a split, at every look.

    Raises:
        UnlearnkitError: as `mix` and `bisect`; an unknown metric, or one that is not measurable here.
    """
    metric_names(problem.modality, [utility])
    quiet: dict[str, Any] = {"progress": False} if problem.modality == "image" else {}
    kept: list[Any] = []  # the last mixture that kept the utility, and what was measured of it

    def look(a: float) -> float:
        model = mix(problem, unlearned, a)
        found = measure(problem, model, limit, **quiet)
        row = score(problem, [found], references(problem, limit), [utility], resamples=0).loc[utility]
        if pd.isna(row["relative"]):
            raise UnlearnkitError(f"utility can't be made equal: {utility} is {row['why']}.")
        if row["relative"] >= share:
            kept[:] = [model, found]
        return float(row["relative"])

    a, seen = bisect(look, share, looks)
    if not kept:  # every mixture that was tried lost too much
        kept[:] = [mix(problem, unlearned, 0.0), references(problem, limit)[0]]
    return Calibrated(a, kept[0], float(seen.set_index("a").loc[a, "utility"]), seen, kept[1])


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
