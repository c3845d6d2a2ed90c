"""What a front is drawn from, and what is chosen among its points: the computation behind the front panel."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit import tradeoff
from unlearnkit.errors import UnlearnkitError
from unlearnkit.runs.record import Record, read_run
from unlearnkit.tradeoff import AXES, Target
from unlearnkit.tradeoff.points import MARKS

ALL, LAST = "all", "last"  # steps: every look, or where each run ended
GIVEN = "as given"  # the axes of a frame of points


@dataclass(frozen=True)
class Source:
    """What a front is drawn from: rows of `evaluate` of many models, or points that are given as they are."""

    scores: pd.DataFrame | None
    given: pd.DataFrame | None = None
    kept: pd.DataFrame | None = None  # rows of `tradeoff.samples` with the marks, when there are no run folders

    def axes(self) -> tuple[list[str], list[str]]:
        """Keys that can be on each axis: metrics with a gap somewhere, metrics with a share of the original's."""
        if self.scores is None:
            return [GIVEN], [GIVEN]
        able = [self.scores.loc[self.scores[c].notna(), "key"].unique().tolist() for c in ("gap", "relative")]
        if not all(able):
            raise UnlearnkitError(f"no metric of the source has {'a gap' if not able[0] else 'an original to share'}.")
        return able[0], able[1]

    def points(self, forgetting: str, utility: str, beyond: bool = False, less: bool = False) -> pd.DataFrame:
        """Points with columns `name` and `way`, the oracles among them."""
        if self.scores is None:
            found = self.given
        else:
            found = tradeoff.of_scores(self.scores, forgetting, utility, beyond=beyond, less=less)
        if found is None or not len(found):
            raise UnlearnkitError(f"no model of the source has both {forgetting} and {utility}; choose another pair.")
        for mark, default in (("balance", "sum"), ("seed", 0), ("settings", "{}"), ("step", np.nan), ("run", "")):
            found = found.assign(**{mark: found[mark].fillna(default) if mark in found else default})
        ways = [_way(row) for row in found.to_dict("records")]
        found = tradeoff.named(found).assign(way=[w for w, _ in ways], _at=[a for _, a in ways])
        return found.sort_values(["way", "_at"], kind="stable").drop(columns="_at").sort_index(kind="stable")

    def goal(self, points: pd.DataFrame) -> Target | None:
        """The oracles' place and noise; of a single one the noise is NaN, and without any the answer is None."""
        known = points[(points["method"] == "oracle") & np.isfinite(points[AXES].astype(float)).all(axis=1)]
        if len(known) > 1:
            return tradeoff.target(points)
        return Target(1.0, float(known["utility"].iloc[0]), np.nan, np.nan) if len(known) else None

    def samples(self, point: Mapping[str, Any]) -> pd.DataFrame:
        """Rows of `tradeoff.samples` that were kept of a model: beside its scores in the run folder, or given."""
        if self.kept is not None:
            kept = self.kept
        elif point["run"] and Path(point["run"]).is_dir():
            kept = read_run(Path(point["run"])).trace("samples")
        else:
            return pd.DataFrame()
        for mark in MARKS:
            if mark in kept and pd.notna(point[mark]):
                kept = kept[kept[mark] == point[mark]]
        return kept


def source_of(source: Any = None, notebook: str | None = None, samples: pd.DataFrame | None = None) -> Source:
    """A source from a folder of runs, records, rows of `evaluate` (column `key`), or points (columns `AXES`).

    Raises:
        UnlearnkitError: something else, or a folder without scores of methods.
    """
    if isinstance(source, pd.DataFrame):
        if {"key", "method", "gap", "relative"} <= set(source):
            return Source(source.reset_index(drop=True), None, samples)
        if {"method", *AXES} <= set(source):
            return Source(None, source.reset_index(drop=True), samples)
        raise UnlearnkitError(
            "a front is drawn from rows of evaluate with columns key and method, or from points with columns method, "
            f"forgetting and utility; the frame has {', '.join(map(str, source)) or 'no columns'}."
        )
    if not (source is None or isinstance(source, str | Path)):
        source = list(source) if isinstance(source, Sequence) else [source]
        if not all(isinstance(one, Record) for one in source):
            raise UnlearnkitError("a front is drawn from a folder of runs, from records, or from a frame.")
    scores = tradeoff.scores_of(source, notebook)
    if not len(scores):
        where = "the records" if isinstance(source, list) else f"the folder {source or 'of runs'}"
        raise UnlearnkitError(f"no complete run in {where} has scores of methods; run a notebook or a sweep first.")
    return Source(scores, None, samples)


def _way(row: Mapping[str, Any]) -> tuple[str, float]:
    """What the points of one way have in common, and where on it a point lies: a step, or a share of a mixture."""
    settings = settings_of(row)
    at = settings.pop("a", row["step"])
    return json.dumps([row["run"], row["method"], row["balance"], str(row["seed"]), settings]), float(at)


def settings_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a point, which its frame holds as JSON."""
    try:
        found = json.loads(row["settings"])
    except (TypeError, ValueError):
        return {}
    return dict(found) if isinstance(found, dict) else {}


def narrowed(points: pd.DataFrame, names: Sequence[str], seeds: Sequence[Any], step: Any = ALL) -> pd.DataFrame:
    """The measurable points of these names and seeds, at a step, or where each run ended."""
    known = points[points["name"].isin(names) & points["seed"].isin(seeds) & np.isfinite(points[AXES]).all(axis=1)]
    if step == LAST:
        return known.groupby("way", sort=False).tail(1)
    return known if step == ALL else known[known["step"] == step]


@dataclass(frozen=True)
class Choice:
    """What was chosen among points: indices (None where there is none), and the area of their front."""

    best: Any
    preferred: Any
    ideal: tuple[float, float]
    level: float  # of the preference, at the preferred point
    hypervolume: float


def choose(
    points: pd.DataFrame, goal: Target | None, share: float, weight: float, rule: str, reference: Sequence[float]
) -> Choice:
    """The best point that keeps the utility, the preferred one, and the hypervolume of all points together.

    Raises:
        UnlearnkitError: there is no point.
    """
    if not len(points):
        raise UnlearnkitError("no point is left; choose more methods, seeds or steps.")
    # as retrained; more utility than any model has need not be wished for
    ideal = (1.0, max(goal.utility if goal else 1.0, float(points["utility"].max())))
    liked = tradeoff.preferred(points, weight, rule, ideal)
    level = float(tradeoff.preference(points.loc[[liked], AXES], weight, rule, ideal)[0])
    return Choice(
        tradeoff.best_feasible(points, share), liked, ideal, level, tradeoff.hypervolume(points, reference)
    )  # fmt: skip
