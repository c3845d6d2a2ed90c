"""Related-concept damage: what unlearning one concept does to each of the others, the nearest first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.errors import UnlearnkitError
from unlearnkit.evaluation import measured, references


def related_damage(
    problem: Any, unlearned: Any, *, limit: int = 100, resamples: int = 200, seed: int = 0
) -> pd.DataFrame:
    """What unlearning does to each retained concept, the nearest to the erased one first (image problems).

    Columns: `distance` from the erased concept (of the means of the judge's features on real pictures); accuracy of
    `original`, `unlearned`, `oracle`; `drop` = original − unlearned with its 95% interval `low` to `high` (paired
    bootstrap over pictures and, where there are several, over models); `oracle_drop`, the same of the oracle; `n`
    pictures. Index: concept.

    Args:
        unlearned: as in `evaluate`.

    Raises:
        UnlearnkitError: the problem has no concept, no labelled pictures, or no judge that can be trusted.
    """
    mine = measured(problem, unlearned, limit)
    original, oracles = references(problem, limit)
    known = original.split("retain")
    if "distance" not in known or known["distance"].isna().all():
        why = getattr(original, "missing", {}).get("distance", "only image problems have related concepts")
        raise UnlearnkitError(f"related-concept damage is not measurable: {why}.")
    draw = np.random.default_rng(seed)
    rows = []
    for concept, part in known.groupby("concept"):
        before = part["correct"].to_numpy()
        after = np.array([m.split("retain").loc[part.index, "correct"].to_numpy() for m in mine])  # (models, pictures)
        oracle = oracles[0].split("retain").loc[part.index, "correct"].mean() if oracles else np.nan
        n = len(part)
        spread = []
        for _ in range(resamples):
            pick, models = draw.integers(0, n, n), draw.integers(0, len(mine), len(mine))
            spread.append(before[pick].mean() - after[models][:, pick].mean())
        low, high = np.percentile(spread, [2.5, 97.5]) if spread else (np.nan, np.nan)
        rows.append({
            "concept": concept, "distance": part["distance"].iloc[0], "original": before.mean(),
            "unlearned": after.mean(), "oracle": oracle, "drop": before.mean() - after.mean(), "low": low, "high": high,
            "oracle_drop": before.mean() - oracle, "n": n,
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("concept").sort_values("distance")
