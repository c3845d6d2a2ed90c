"""The linear datamodeling score: does an attribution predict what models retrained on half of the data say?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from unlearnkit.errors import UnlearnkitError
from unlearnkit.paths import data_dir

RESAMPLES = 500
MODELS = 16
WORLD: dict[str, Any] = {"n_authors": 12, "facts": 5, "holdout": 0}
SIZE: dict[str, Any] = {"width": 64, "layers": 2, "heads": 2, "inner": 192, "vocabulary": 512}
STEPS, BATCH = 100, 32  # of each model
SCORES = ("gradient", "tracin", "trak", "influence", "words", "random")
COLUMNS = ["score", "lds", "low", "high", "queries", "models", "records"]


def linear_datamodeling_score(
    scores: NDArray[Any], kept: NDArray[Any], losses: NDArray[Any], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Spearman's correlation, over retrained models, of predicted and actual −loss; mean over queries, 95% interval.

    The prediction for a model is the sum of the scores of the records it was trained on (Park et al. 2023,
    arXiv 2303.14186, definition 2.3; Ilyas et al. 2022, arXiv 2202.00622). Bootstrap over queries and over models.

    Args:
        scores: (queries, records), larger where a record lowers a query's loss more.
        kept: (models, records) of bool, which records each model was trained on.
        losses: (models, queries), of each retrained model.

    Raises:
        UnlearnkitError: shapes that don't belong together, or fewer than three models.
    """
    scores, losses, kept = np.asarray(scores, float), np.asarray(losses, float), np.asarray(kept, bool)
    if scores.ndim != 2 or kept.shape[1:] != scores.shape[1:] or losses.shape != (len(kept), len(scores)):
        raise UnlearnkitError(
            f"scores {scores.shape}, kept {kept.shape} and losses {losses.shape} don't belong together; give "
            "(queries, records), (models, records) and (models, queries)."
        )
    if len(kept) < 3:
        raise UnlearnkitError(f"{len(kept)} retrained models have no rank correlation; retrain at least 3.")
    predicted = kept @ scores.T  # (models, queries)

    def score(models: NDArray[Any], queries: NDArray[Any]) -> float:
        found = _rank_correlations(predicted[models][:, queries], -losses[models][:, queries])
        return float(np.nanmean(found)) if np.isfinite(found).any() else np.nan

    draw = np.random.default_rng(seed)
    m, q = len(kept), len(scores)
    drawn = [score(draw.integers(0, m, m), draw.integers(0, q, q)) for _ in range(resamples)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return score(np.arange(m), np.arange(q)), float(low), float(high)


def _rank_correlations(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Spearman's of every column, (models, queries) each; NaN where either never changes: (queries,)."""
    first, second = (rankdata(x, axis=0) - (len(x) + 1) / 2 for x in (a, b))
    size = np.sqrt((first**2).sum(0) * (second**2).sum(0))
    return np.divide((first * second).sum(0), size, out=np.full(len(size), np.nan), where=size > 0)


def measure_lds(scores: Sequence[str] = SCORES, models: int = MODELS, queries: int = 24, seed: int = 0) -> pd.DataFrame:
    """The score of several attributions on a small world `authors`: a row each, columns `COLUMNS`.

    `models` tiny models of one recipe are trained on random halves of the direct facts, and one on all of them, whose
    attributions are judged. A query is a fact asked in words that no model was trained on.
    """
    from unlearnkit.attribution.text.data import scored
    from unlearnkit.metrics.measure import score_sequences
    from unlearnkit.models.builtin import text_recipe
    from unlearnkit.models.load import device_of
    from unlearnkit.models.recipe import corpus_of, train_text, train_tokenizer, training_pairs
    from unlearnkit.models.source import ModelSource
    from unlearnkit.text_problem import TextProblem
    from unlearnkit.worlds import authors

    world = authors(seed=seed, **WORLD)
    records = [qa for qa in world.items if qa.primary and qa.entity in world.entities]
    draw = np.random.default_rng(seed)
    kept = np.zeros((models, len(records)), bool)
    for row in kept:
        row[draw.permutation(len(records))[: len(records) // 2]] = True
    tokenizer = train_tokenizer(corpus_of(world.items), SIZE["vocabulary"], 128)

    def trained(rows: NDArray[Any], number: int) -> Any:
        # one question a record, the one whose gradient is attributed
        items = [dataclasses.replace(records[i], phrasings=(records[i].question,)) for i in rows]
        recipe = text_recipe(world, items, f"half {number}", seed, steps=STEPS, batch_size=BATCH, **SIZE)
        return train_text(recipe, training_pairs(items), tokenizer, device_of("cpu"), f"model {number}")

    whole = trained(np.arange(len(records)), 0)
    source = ModelSource(lambda: whole, "all records", kept=whole)
    problem = TextProblem(
        world.name, "all", seed, {"forget": records[:1], "retain": records[1:]}, tokenizer, source, [],
        device=device_of("cpu"),
    )  # fmt: skip
    asked = [records[i] for i in np.linspace(0, len(records) - 1, queries).round().astype(int)]
    asked = [dataclasses.replace(qa, question=qa.paraphrased_questions[0]) for qa in asked]
    pairs = [(qa.question, qa.answer) for qa in asked]
    losses = np.stack([
        score_sequences(problem, trained(np.flatnonzero(row), k), pairs)["mean_nll"].to_numpy()
        for k, row in enumerate(kept, start=1)
    ])  # fmt: skip
    rows = []
    for name in scores:
        found = np.stack([scored(problem, whole, [qa], records, name, seed + k) for k, qa in enumerate(asked)])
        value, low, high = linear_datamodeling_score(found, kept, losses, seed=seed)
        rows.append((name, value, low, high, len(asked), models, len(records)))
    return pd.DataFrame(rows, columns=COLUMNS)


def main(folder: Path | None = None) -> None:
    """The command `unlearnkit bench lds`: measures, prints and writes data/measured/lds.csv."""
    table = measure_lds()
    table.to_csv((folder or data_dir() / "measured") / "lds.csv", index=False, float_format="%.4f")
    print(table.round(2).to_string(index=False))
