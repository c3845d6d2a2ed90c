"""The verb `meta_evaluate`: is a metric to be believed?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.errors import UnlearnkitError, unknown, whole_number
from unlearnkit.metaevaluation.pool import ATTACKS, BRANCHES, TRUTHS, VALUES, Pool, read_pool
from unlearnkit.metaevaluation.statistics import (
    RESAMPLES,
    mean_interval,
    separation_interval,
    symmetric_robustness,
)
from unlearnkit.paths import data_dir

ESTIMATES = ("auc", "hides", "ruined", "caught", *ATTACKS)
COLUMNS = [
    "direction", *(f"{name}{end}" for name in ESTIMATES for end in ("", "_low", "_high")),
    *(f"{name}_moved" for name in ATTACKS), *(f"n_{truth}" for truth in TRUTHS), "n_attacked", "clusters", "why",
]  # fmt: skip


def meta_evaluate(
    metrics: Sequence[str] | str | None = None,
    pool: Pool | pd.DataFrame | str | Path = "text",
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Faithfulness and robustness of metrics, a row each (index: key), on models whose truth is known.

    A metric is read as knowledge in the `direction` in which the original lies from the oracle (+1: higher); neither of
    the two is among the models judged. AUCs, each with its 95% interval (bootstrap over models, those made from one
    trained model drawn together; pairs within a request only):

    - `auc`: faithfulness, models that know against models that don't; 0.5 is a coin;
    - `hides`: models that know but were kept from saying it, against models that don't;
    - `ruined`: models that know against models that neither know nor work. Near 1, gibberish counts as forgotten;
    - `caught`: |value − oracle| of ruined models against that of ignorant ones: 1, the distance to the oracle catches
      the ruin; 0.5 or less, it takes it for retraining.

    Robustness, of models that a user would have to judge (hidden, and retrained): `relearn` (on half of the
    forgotten facts, read on the other half) and `quantize` (4 bits), each the mean of 1 − |a − b|/(|a| + |b|), a before
    and b after; a pair of zeros says nothing and is left out. `…_moved`: the mean change as a share of the way from
    the oracle to the original, positive towards the original, which does not hang on where a metric has its zero.

    `n_…` count models, `clusters` trained ones. `why`: what is not measurable, and the reason.

    Args:
        metrics: keys (or one) of `METRICS`, yours included, or of the white box (`metaevaluation.INSIDE`); default all.
        pool: a branch, "text" or "image", whose shipped pool is read; a `Pool`; a file of one; or a table of values
            with columns `metric`, `truth`, `value`, and if need be `case`, `model`, `cluster`, `attack`, `before`.
            Without rows of "original" and "oracle" a higher value is read as knowing, and nothing is `caught`.
        resamples: of each bootstrap.

    Raises:
        UnlearnkitError: an unknown metric or truth, no pool there, or a table that lacks a column.
    """
    if isinstance(metrics, str):
        metrics = [metrics]
    whole_number("resamples", resamples, 1)
    whole_number("seed", seed)
    if isinstance(pool, pd.DataFrame):
        values = _checked(pool)
        if metrics is not None:
            values = values[values["metric"].isin(list(metrics))]
    else:
        values = (pool if isinstance(pool, Pool) else read_pool(pool)).values(metrics)
    if values.empty:
        asked = ", ".join(metrics or ()) or "none was named"
        raise UnlearnkitError(f"there is nothing to judge a metric by ({asked}); leave metrics out for all of them.")
    rows = {str(key): _row(part, resamples, seed) for key, part in values.groupby("metric", sort=False)}
    return pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS).rename_axis("metric")


def read_table(branch: str = "text") -> pd.DataFrame:
    """The shipped result of a branch, ``data/measured/meta_evaluation_<branch>.csv``, by `unlearnkit bench metrics`.

    Raises:
        UnlearnkitError: another branch than text and image, or the table is not there.
    """
    if branch not in BRANCHES:
        raise unknown("branch", branch, BRANCHES)
    path = data_dir() / "measured" / f"meta_evaluation_{branch}.csv"
    try:
        return pd.read_csv(path, index_col="metric").fillna({"why": ""})
    except OSError as error:
        raise UnlearnkitError(
            f"{path.name} is not there; make it with `unlearnkit bench metrics --branch {branch}`."
        ) from error


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    if gone := [c for c in ("metric", "truth", "value") if c not in table]:
        raise UnlearnkitError(f"the table of values has no column '{gone[0]}'; it needs metric, truth and value.")
    known = (*TRUTHS, "original", "oracle")
    if strange := sorted(set(table["truth"]) - set(known)):
        raise UnlearnkitError(f"truth '{strange[0]}' is unknown; known: {', '.join(known)}.")
    table = table.reset_index(drop=True)
    given = table.get("model", table.index.to_series()).astype(str)
    filled: dict[str, Any] = {"case": "", "attack": "", "why": "", "model": given, "cluster": given}
    for name, value in filled.items():
        table[name] = table[name].fillna(value) if name in table else value
    return table.reindex(columns=VALUES)


def _row(part: pd.DataFrame, resamples: int, seed: int) -> dict[str, Any]:
    """One metric."""
    plain, reference, oracle = _settled(part)
    draws: dict[str, Any] = {"resamples": resamples, "seed": seed}
    truth = plain["truth"].to_numpy()
    cases, clusters = plain["case"].to_numpy(), plain["cluster"].to_numpy()
    measured = plain["value"].notna().to_numpy()
    row: dict[str, Any] = {f"n_{t}": int(((truth == t) & measured).sum()) for t in TRUTHS}
    row |= {"clusters": plain[measured][["case", "cluster"]].drop_duplicates().shape[0], "why": _why(part, plain)}
    direction = float(np.sign(reference)) if reference is not None else 1.0
    row["direction"] = direction if direction else np.nan
    if row["why"].startswith("not measurable"):
        return row
    if not direction:
        return {**row, "why": "not measurable: original and oracle have the same value, so it points nowhere"}
    toward = direction * plain["value"].to_numpy(float)
    for name, above, below in (
        ("auc", "knows", "ignorant"),
        ("hides", "hides", "ignorant"),
        ("ruined", "knows", "ruined"),
    ):
        found = separation_interval(toward, truth == above, truth == below, cases, clusters, **draws)
        row |= dict(zip(_three(name), found, strict=True))
    if oracle is not None:
        apart = np.abs(plain["value"].to_numpy(float) - plain["case"].map(oracle).to_numpy(float))
        found = separation_interval(apart, truth == "ruined", truth == "ignorant", cases, clusters, **draws)
        row |= dict(zip(_three("caught"), found, strict=True))
    attacked = part[(part["attack"] != "") & part["truth"].isin(["hides", "ignorant"])]
    row["n_attacked"] = int(attacked["model"].nunique()) if len(attacked) else 0
    for name in ATTACKS:
        own = attacked[attacked["attack"] == name]
        kept = symmetric_robustness(own["before"], own["value"])
        where = (own["case"] + "|" + own["cluster"].astype(str)).to_numpy()
        row |= dict(zip(_three(name), mean_interval(kept, where, **draws), strict=True))
        if reference is not None and len(own):
            row[f"{name}_moved"] = float(((own["value"] - own["before"]) / reference).mean())
    return row


def _settled(part: pd.DataFrame) -> tuple[pd.DataFrame, float | None, pd.Series | None]:
    """(models to be judged, mean of original − oracle over the cases, the oracle's level by case), or None."""
    whole = part[part["attack"] == ""]
    plain = whole[whole["truth"].isin(TRUTHS)]
    levels = whole[whole["truth"].isin(["original", "oracle"])].pivot_table("value", "case", "truth", "mean")
    if "oracle" not in levels:
        return plain, None, None
    if "original" not in levels:
        return plain, None, levels["oracle"]
    return plain, float((levels["original"] - levels["oracle"]).mean()), levels["oracle"]


def _why(part: pd.DataFrame, plain: pd.DataFrame) -> str:
    for truth in ("knows", "ignorant"):
        own = plain[plain["truth"] == truth]
        if not len(own):
            return f"not measurable: no model of the pool {truth if truth == 'knows' else 'is ignorant'}"
        if own["value"].isna().all():
            return next((w for w in own["why"] if w), f"not measurable: no value of a model that {truth}")
    references = part[part["truth"].isin(["original", "oracle"])]
    if len(references) and references["value"].isna().all():
        return next((w for w in references["why"] if w), "not measurable: no value of original and oracle")
    lost = int(plain["value"].isna().sum())
    return f"{lost} of {len(plain)} models not measurable" if lost else ""


def _three(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"
