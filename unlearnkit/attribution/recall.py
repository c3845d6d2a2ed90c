"""Which records that a request left out does data attribution find? Many requests on one original, all scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.attribution.loop import parted, walk
from unlearnkit.errors import UnlearnkitError
from unlearnkit.metrics.image import evenly
from unlearnkit.paths import data_dir
from unlearnkit.worlds import authors, split

KINDS = ("records", "derived")
SCORES = ("gradient", "trak", "influence", "words")  # beside chance, which is known exactly
GROUP = 4  # authors a request
SEARCHED = 160  # retained records among which those left out are looked for, spread evenly
RESAMPLES = 500


def measure_recall(
    kinds: Sequence[str] = KINDS, scores: Sequence[str] = SCORES, requests: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """Recall among as many records as were left out, pooled over disjoint requests of `GROUP` authors.

    Columns: `left_out` (see `attribution_loop`), `score`, `recall` with its 95% interval `low`–`high` (bootstrap over
    requests), `chance`, `n` left-out records, `records` to choose from in a request (mean), `requests`.
    """
    from unlearnkit.problem import load_problem

    world = authors(seed=seed)
    base = load_problem("authors", seed=seed, oracles=0)
    groups = [world.entities[i : i + GROUP] for i in range(0, len(world.entities), GROUP)][:requests]
    rows: list[dict[str, Any]] = []
    for kind in kinds:
        hits: dict[str, list[tuple[int, int]]] = {score: [] for score in scores}
        chances, sizes = [], []
        for group in groups:
            problem = dataclasses.replace(base, splits=split(world, list(group)), measured={})
            try:
                named, hidden, others = parted(problem, kind, 0.5, seed)  # type: ignore[arg-type]
            except UnlearnkitError:  # nothing of this kind follows from this group's facts
                continue
            rows_of = evenly(np.arange(len(others)), SEARCHED).tolist()
            pool, k = [*hidden, *(others[i] for i in rows_of)], len(hidden)
            chances.append((k, len(pool)))
            sizes.append(len(pool))
            for score in scores:
                (taken,) = walk(problem, problem.model, named, pool, score, k, 1, seed)
                hits[score].append((sum(qa in taken for qa in hidden), k))
        chance = sum(k * k / n for k, n in chances) / sum(k for k, _ in chances)
        for score, found in hits.items():
            right, of = np.array(found).T
            picks = np.random.default_rng(seed).integers(0, len(of), (RESAMPLES, len(of)))
            low, high = np.percentile(right[picks].sum(1) / of[picks].sum(1), [2.5, 97.5])
            rows.append({
                "left_out": kind, "score": score, "recall": right.sum() / of.sum(), "low": low, "high": high,
                "chance": chance, "n": int(of.sum()), "records": float(np.mean(sizes)), "requests": len(of),
            })  # fmt: skip
    return pd.DataFrame(rows)


def main(folder: Path | None = None) -> None:
    """The command `unlearnkit bench recall`: measures, prints and writes data/measured/recall.csv."""
    table = measure_recall()
    table.to_csv((folder or data_dir() / "measured") / "recall.csv", index=False, float_format="%.4f")
    print(table.round(2).to_string(index=False))
