"""A search over two objectives by Optuna's ask and tell: every trial is a run, whose folder holds its result."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from unlearnkit.errors import UnlearnkitError
from unlearnkit.runs.execute import Outcome
from unlearnkit.runs.plan import plan
from unlearnkit.runs.record import Record, read_run
from unlearnkit.runs.spec import Objective, Point, Range, Search, digest_of_spec


class SearchSource:
    """Trials until `trials` of them have ended; those a killed sweep left open are run again first."""

    def __init__(self, path: Path, spec: Search, home: Path, trials: int) -> None:
        if trials < 1:
            raise UnlearnkitError(f"trials = {trials} is not possible; give 1 or more.")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.path, self.spec = path, spec
        self.space = {name: _distribution(values) for name, values in spec.space.items()}
        ends = {name: _ends(values) for name, values in spec.space.items()}
        first = {name: values[0] for name, values in ends.items()}
        for name, values in ends.items():  # before any work
            for value in values:
                plan(path, {**spec.fixed, **first, name: value})
        storage: Any = spec.storage
        if not storage:
            (home / path.stem).mkdir(parents=True, exist_ok=True)
            storage = JournalStorage(JournalFileBackend(str(home / path.stem / f"search-{digest_of_spec(spec)}.log")))
        self.study = optuna.create_study(
            storage=storage,
            study_name=f"{path.stem}-{digest_of_spec(spec)}",
            directions=[objective.direction for objective in spec.objectives.values()],
            load_if_exists=True,
        )
        begun = len(self.study.get_trials(deepcopy=False))  # a second start must not draw the first one's points
        self.study.sampler = optuna.samplers.TPESampler(seed=spec.seed + begun, multivariate=True, constant_liar=True)
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING:  # its sweep was killed
                self.study.tell(trial.number, state=TrialState.FAIL)
                self.study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
        ended = [t for t in self.study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
        self.found = len(ended)
        self.total = max(0, trials - self.found)
        self.asked = 0

    def ask(self) -> Point | None:
        if self.asked >= self.total:
            return None
        self.asked += 1
        trial = self.study.ask(self.space)
        return Point(trial.number, {**self.spec.fixed, **trial.params})

    def tell(self, point: Point, outcome: Outcome) -> None:
        """Raises UnlearnkitError when a complete run has no such scores: the search could never find anything."""
        if outcome.state != "complete":
            self.study.tell(point.key, state=TrialState.FAIL)
            return
        record = read_run(outcome.folder)
        values = [value_of(record, name, objective) for name, objective in self.spec.objectives.items()]
        if not all(map(math.isfinite, values)):
            self.study.tell(point.key, state=TrialState.FAIL)
            return
        self.study.tell(point.key, values)


def value_of(record: Record, name: str, objective: Objective) -> float:
    """The mean of an objective's column over its rows; NaN where the run could not measure it.

    Raises:
        UnlearnkitError: scores.csv has no such column or no such row.
    """
    table = record.scores
    for column in (*objective.where, objective.column):
        if column not in table:
            raise UnlearnkitError(
                f"objective '{name}': scores.csv of {record.folder} has no column '{column}'; it has "
                f"{', '.join(table.columns) or 'none'}."
            )
    for column, value in objective.where.items():
        table = table[table[column] == value]
    if table.empty:
        raise UnlearnkitError(f"objective '{name}': no row of scores.csv in {record.folder} has {objective.where}.")
    return float(table[objective.column].mean())


def _distribution(values: Any) -> optuna.distributions.BaseDistribution:
    if not isinstance(values, Range):
        return optuna.distributions.CategoricalDistribution(tuple(values))
    if isinstance(values.low, int) and isinstance(values.high, int):
        return optuna.distributions.IntDistribution(values.low, values.high, log=values.log)
    return optuna.distributions.FloatDistribution(float(values.low), float(values.high), log=values.log)


def _ends(values: Any) -> list[Any]:
    return [values.low, values.high] if isinstance(values, Range) else list(values)
