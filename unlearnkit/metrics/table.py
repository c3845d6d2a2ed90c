"""The table of metrics: each a function of the measured items, or the reason why it can't be measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.errors import UnlearnkitError, unknown
from unlearnkit.registry import Registry

MODALITIES = ("text", "image")
SMALLEST = 10  # items below which nothing is reported
UTILITY = ("retain", "neighbours", "real_authors", "general", "world_facts")  # splits that should stay as they were


class NotMeasurable(Exception):
    """Why a number would not be trustworthy."""


Table = Mapping[str, Mapping[str, np.ndarray]]  # split → column → one entry an item


@dataclass(frozen=True)
class Items:
    """The measured items a metric is computed from, by split; `model["forget"]["mean_nll"]` is an array.

    Of images also `model["forget"]["features"]` (items, d) and `model["forget"]["picture"]` (items, h, w, 3).
    """

    model: Table
    oracles: Sequence[Table]  # the same of the retrained models
    missing: Mapping[str, str] = field(default_factory=dict)  # column or split → why it has no numbers

    def column(self, split: str, name: str, of: Table | None = None) -> np.ndarray:
        """One column of one split; raises NotMeasurable when items lack it or are too few."""
        table = self.model if of is None else of
        if not table.get(split):
            raise NotMeasurable(self.missing.get(split, f"there is no {split} split"))
        values = table[split].get(name, np.empty(0))
        known = int((~np.isnan(values.reshape(len(values), -1)).any(1)).sum()) if len(values) else 0
        if not known:
            raise NotMeasurable(self.missing.get(name) or MISSING.get(name, f"records carry nothing for {name}"))
        if known < SMALLEST:
            raise NotMeasurable(f"{known} items are too few (at least {SMALLEST})")
        return values

    def oracle(self, index: int) -> Table:
        if index >= len(self.oracles):
            raise NotMeasurable("there is no oracle" if not self.oracles else f"it needs {index + 1} oracles")
        return self.oracles[index]


MISSING = {
    "paraphrase_nll": "records have no paraphrased answer",
    "perturbed_nll_mean": "records have no perturbed answers",
    "option_nll_min": "records have no options",
    "option_p_sum": "records have no options",
    "correct": "records name no value",
    "paraphrase_correct": "records have no held-out phrasing or no value, or this was not asked for",
    "wrong_value": "records have no answer types",
    "own_nll": "the model answers nothing, or this was not asked for",
    "original_nll": "the model answers nothing, or this was not asked for",
    "grad_norm": "gradients were not asked for",
}


@dataclass(frozen=True)
class Metric:
    """A row of the table: `compute(items)` → number; `split` is where it looks."""

    name: str
    split: str
    compute: Callable[[Items], float]
    ability: float = -math.inf  # the original must reach this much, or the row says nothing
    against_oracle: bool = False  # compares with oracle 0, so the oracle's own value is that of oracle 1
    interval: bool = True  # whether resampling items makes sense of it
    modality: str = "text"
    at_most: float = math.inf  # the original must not exceed this, or the row says nothing
    distribution: bool = False  # of the whole sample: resampling biases it, so its draws are centred on its value
    share_of: str = ""  # a column whose items say 0 or 1 each, if the value is the share of ones (or of zeros)
    needs: str = ""  # a column without which the row is left out of a table of all metrics

    @property
    def built_in(self) -> bool:
        """Whether it is this package's; a function without a module (`exec` in a bare namespace) is somebody's own."""
        return str(self.compute.__module__).startswith("unlearnkit.")


METRICS: Registry[Metric] = Registry("metric")


def register_metric(
    name: str, split: str = "forget", modality: str = "text", **flags: Any
) -> Callable[[Callable[[Items], float]], Any]:
    """Decorator for a metric of your own; it is in every table of its modality from then on.

    Raises:
        UnlearnkitError: a modality there is not, or a key that a built-in metric or one of the other modality has.
    """
    if modality not in MODALITIES:
        raise unknown("modality", modality, MODALITIES)
    key = name if name.startswith(split) else f"{split}_{name}"
    if key in METRICS and METRICS[key].built_in:
        raise UnlearnkitError(f"metric '{key}' is built in; register yours under another name.")
    return file_metric(key, name, split, modality, **flags)


def file_metric(
    key: str, name: str, split: str, modality: str, **flags: Any
) -> Callable[[Callable[[Items], float]], Any]:
    """`register_metric` under a key of its own."""
    if key in METRICS and METRICS[key].modality != modality:
        raise UnlearnkitError(f"metric '{key}' is one of {METRICS[key].modality} problems; give yours another name.")

    def put(compute: Callable[[Items], float]) -> Callable[[Items], float]:
        if not callable(compute):
            raise UnlearnkitError(f"metric '{name}' is {compute!r}; register a function of `Items`.")
        METRICS[key] = Metric(name, split, compute, modality=modality, **flags)
        return compute

    return put


def metric_names(modality: str, asked: Sequence[str] | None = None) -> list[str]:
    """The keys asked for, or all of a modality.

    Raises:
        UnlearnkitError: an unknown key, or one of the other modality.
    """
    known = [key for key, row in METRICS.items() if row.modality == modality]
    for key in asked or ():
        if key in METRICS and key not in known:
            raise UnlearnkitError(
                f"metric '{key}' is one of {METRICS[key].modality} problems, and this is one of {modality}; "
                f"known here: {', '.join(sorted(known))}."
            )
        if key not in known:
            raise unknown(f"{modality} metric", key, known)
    return known if asked is None else list(asked)


def arrays(items: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """A `Measured.items` table as arrays by split and column; cells that hold arrays are stacked, text is left out."""
    return {str(split): _columns(part) for split, part in items.groupby(level=0, sort=False)}


def _columns(part: pd.DataFrame) -> dict[str, np.ndarray]:
    out = {}
    for name, cells in part.items():
        if pd.api.types.is_numeric_dtype(cells):
            out[str(name)] = cells.to_numpy(float)
        elif all(isinstance(cell, np.ndarray) for cell in cells):
            out[str(name)] = np.stack(list(cells))
    return out
