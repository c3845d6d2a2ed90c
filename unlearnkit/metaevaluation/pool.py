"""A pool: what was measured of many models whose truth is known, attacked and not; kept in one file without models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.errors import UnlearnkitError, unknown
from unlearnkit.metrics.table import METRICS, Items, Metric, NotMeasurable, Table, metric_names
from unlearnkit.paths import data_dir

BRANCHES = ("text", "image")
TRUTHS = ("knows", "hides", "ignorant", "ruined")
REFERENCES = ("original", "oracle")  # not judged; they say which way a metric points, and where the oracle is
ATTACKS = ("relearn", "quantize")
VALUES = ["case", "truth", "model", "cluster", "attack", "metric", "value", "before", "why"]


@dataclass(frozen=True, eq=False)
class Entry:
    """One measured model.

    Attributes:
        case: its request, such as "authors a03"; only models of one case are compared.
        truth: one of `TRUTHS`, or of `REFERENCES`.
        cluster: which trained model it was made from; models of one cluster vary together.
        attack: what was done to it before it was measured, "" for nothing.
        items: split → column → an entry an item.
    """

    case: str
    truth: str
    model: str
    cluster: str
    items: Table
    attack: str = ""


@dataclass(frozen=True, eq=False)
class Pool:
    """Measured models of one branch.

    Attributes:
        unshown: case → which forget items an attacker by relearning was not shown: (items,) of bool.
        missing: column or split → why it has no numbers.
    """

    modality: str
    entries: tuple[Entry, ...]
    unshown: Mapping[str, np.ndarray] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def cases(self) -> list[str]:
        return list(dict.fromkeys(e.case for e in self.entries))

    def counts(self) -> pd.DataFrame:
        """How many models of which truth, by case; attacked ones apart."""
        rows = pd.DataFrame([(e.case, e.truth, e.attack or "as it is") for e in self.entries])
        return pd.crosstab([rows[0], rows[2]], rows[1]).rename_axis(["case", "attack"]).rename_axis(None, axis=1)

    def values(self, metrics: Sequence[str] | None = None) -> pd.DataFrame:
        """Every metric of every model, a row each, columns `VALUES`; of attacked ones also `before`, on the same items.

        Args:
            metrics: keys; default all of the branch, and the white-box ones that were read (`INSIDE`).
        """
        rows: list[dict[str, Any]] = []
        for case in self.cases:
            here = [e for e in self.entries if e.case == case]
            oracles = [e.items for e in here if e.truth == "oracle" and not e.attack]
            plain = {e.model: e for e in here if not e.attack}
            for key, metric in self.metrics(metrics).items():
                for e in here:
                    about: dict[str, Any] = {"case": case, "truth": e.truth, "model": e.model, "cluster": e.cluster}
                    about |= {"attack": e.attack, "metric": key, "before": np.nan}
                    if e.truth == "oracle" and metric.against_oracle and e.items is oracles[0]:
                        continue  # it is what the others are compared with
                    keep = self.unshown.get(case) if e.attack == "relearn" else None
                    value, why = self._value(metric, e.items, oracles, keep)
                    if e.attack:
                        about["before"] = self._value(metric, plain[e.model].items, oracles, keep)[0]
                    rows.append({**about, "value": value, "why": why})
        return pd.DataFrame(rows, columns=VALUES)

    def metrics(self, asked: Sequence[str] | None = None) -> dict[str, Metric]:
        """Key → metric, of those asked for.

        Raises:
            UnlearnkitError: an unknown key, or one of the other branch.
        """
        columns = {c for e in self.entries for c in e.items.get("forget", {})}
        inside = {key: metric for key, metric in INSIDE.items() if metric.needs in columns}
        if asked is None:
            return {key: METRICS[key] for key in metric_names(self.modality)} | inside
        return {key: inside.get(key) or METRICS[metric_names(self.modality, [key])[0]] for key in asked}

    def _value(
        self, metric: Metric, items: Table, oracles: Sequence[Table], keep: np.ndarray | None
    ) -> tuple[float, str]:
        try:
            given = Items(_only(items, keep), [_only(o, keep) for o in oracles], self.missing)
            return float(metric.compute(given)), ""
        except NotMeasurable as reason:
            return np.nan, f"not measurable: {reason}"


def _only(items: Table, keep: np.ndarray | None) -> Table:
    """The items with no more than the `keep` ones of the forget split."""
    if keep is None or "forget" not in items:
        return items
    return {**items, "forget": {name: values[keep] for name, values in items["forget"].items()}}


def _mean(column: str) -> Any:
    return lambda items: float(np.nanmean(items.column("forget", column)))


INSIDE = {
    "inside_depth": Metric("what is left in the layers, 1 − UDS", "forget", _mean("depth"), needs="depth"),
    "inside_lens": Metric("logit lens, log-probability of the value", "forget", _mean("lens"), needs="lens"),
    "inside_probe": Metric("accuracy of a linear probe", "forget", _mean("probe"), needs="probe"),
}


def merged(pools: Sequence[Pool]) -> Pool:
    """The models of several pools of one branch as one pool."""
    if len({pool.modality for pool in pools}) != 1:
        raise UnlearnkitError("pools of different branches, or none, can't be put together.")
    unshown = {case: mask for pool in pools for case, mask in pool.unshown.items()}
    missing = {name: why for pool in pools for name, why in pool.missing.items()}
    return Pool(pools[0].modality, tuple(e for pool in pools for e in pool.entries), unshown, missing)


def save_pool(pool: Pool, path: Path) -> Path:
    """One npz: every column stacked over the models of a case (half precision where an item has many numbers)."""
    arrays: dict[str, np.ndarray] = {f"unshown|{case}": mask for case, mask in pool.unshown.items()}
    about = []
    for case in pool.cases:
        entries = [e for e in pool.entries if e.case == case]
        about += [[e.case, e.truth, e.model, e.cluster, e.attack] for e in entries]
        for split, column in sorted({(s, c) for e in entries for s, t in e.items.items() for c in t}):
            known = [e.items.get(split, {}).get(column) for e in entries]
            shape = next(x for x in known if x is not None).shape
            full = np.stack([np.full(shape, np.nan) if x is None else x for x in known])
            arrays[f"items|{case}|{split}|{column}"] = full.astype(np.float16 if full.ndim > 2 else np.float32)
    head = json.dumps({"modality": pool.modality, "entries": about, "missing": dict(pool.missing)})
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f".{path.name}.tmp")
    with work.open("wb") as file:
        np.savez_compressed(file, head=np.array(head), **arrays)  # type: ignore[arg-type]
    work.replace(path)
    return path


def read_pool(source: str | Path = "text") -> Pool:
    """The shipped pool of a branch (``data/measured/meta_pool_<branch>.npz``), or one from a file of `save_pool`.

    Raises:
        UnlearnkitError: no such file, or one that is no pool.
    """
    if isinstance(source, str) and source not in BRANCHES and not Path(source).suffix:
        raise unknown("branch", source, BRANCHES)
    path = data_dir() / "measured" / f"meta_pool_{source}.npz" if source in BRANCHES else Path(source)
    try:
        with np.load(path, allow_pickle=False) as stored:
            head = json.loads(str(stored["head"]))
            arrays = {name: stored[name] for name in stored.files if name != "head"}
        return Pool(head["modality"], tuple(_entries(head["entries"], arrays)), _unshown(arrays), head["missing"])
    except (OSError, ValueError, KeyError) as error:
        raise UnlearnkitError(
            f"{path.name} is no pool of measured models; make one with `unlearnkit bench metrics`."
        ) from error


def _entries(about: Iterable[Sequence[str]], arrays: Mapping[str, np.ndarray]) -> Iterator[Entry]:
    at: dict[str, int] = {}
    for case, truth, model, cluster, attack in about:
        row = at[case] = at.get(case, -1) + 1
        items: dict[str, dict[str, np.ndarray]] = {}
        for name, values in arrays.items():
            kind, _, rest = name.partition("|")
            if kind == "items" and rest.startswith(f"{case}|"):
                split, column = rest.removeprefix(f"{case}|").split("|")
                items.setdefault(split, {})[column] = values[row].astype(float)
        yield Entry(case, truth, model, cluster, items, attack)


def _unshown(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n.removeprefix("unshown|"): a.astype(bool) for n, a in arrays.items() if n.startswith("unshown|")}
