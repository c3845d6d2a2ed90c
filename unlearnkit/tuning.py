"""Default settings of the methods: the same search, with the same number of trials, for every method.

``python -m unlearnkit.tuning [METHOD …] [--trials N]`` tunes on worlds of other seeds than the shipped one and appends
every trial to ``data/tuned/text.csv``; the defaults in the method files are its best rows (a test compares them).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd

from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods import METHODS
from unlearnkit.metrics.measure import Measured, measure
from unlearnkit.metrics.table import METRICS, Items, arrays
from unlearnkit.paths import data_dir
from unlearnkit.problem import load_problem
from unlearnkit.unlearning import unlearn

SEED = 100  # of the world that is tuned on; results are shown on world 0
TRIALS = 12
LIMIT = 40  # questions a split
STEPS = [20, 40, 80]
LEARNING_RATE = (3e-5, 3e-3)
# Weights of the gaps to the oracle: forget quality leads, as in the field; the NLL keeps it from being bought by ruin.
FORGETTING = {"forget_ks_statistic": 1.0, "forget_answer_nll": 0.25}
UTILITY = ("retain_probability", "neighbours_probability", "general_probability")  # share of the original's
LOST = 3.0  # weight of the mean loss of utility


def objective(mine: Measured, original: Measured, oracles: list[Measured]) -> dict[str, float]:
    """What is minimised: the weighted gaps of the forget metrics (each capped at 3) and the mean loss of utility.

    Returns it as `loss`, with its parts.
    """
    reference = [arrays(o.items) for o in oracles]
    tables = {"mine": arrays(mine.items), "original": arrays(original.items)}

    def value(metric: str, table: Any) -> float:
        return METRICS[metric].compute(Items(table, reference))

    parts: dict[str, float] = {}
    for metric in FORGETTING:
        second = reference[1] if METRICS[metric].against_oracle else reference[0]
        target, before = value(metric, second), value(metric, tables["original"])
        parts[metric] = min(3.0, abs(value(metric, tables["mine"]) - target) / abs(before - target))
    for metric in UTILITY:
        parts[metric] = value(metric, tables["mine"]) / value(metric, tables["original"])
    lost = float(np.mean([max(0.0, 1 - parts[metric]) for metric in UTILITY]))
    return {"loss": sum(weight * parts[m] for m, weight in FORGETTING.items()) + LOST * lost, **parts}


def tune(method: str, trials: int = TRIALS, seed: int = SEED) -> pd.DataFrame:
    """Every trial of one method on the tuning world: settings (JSON), loss and its parts. Nothing is pruned."""
    problem = load_problem("authors", seed=seed)
    original = measure(problem, problem.model, LIMIT)
    oracles = [measure(problem, source.get(), LIMIT) for source in problem.oracles]

    def run(settings: dict[str, Any]) -> dict[str, float]:
        unlearned = unlearn(problem, method, seed=0, progress=False, trace_every=0, **settings)
        return objective(measure(problem, unlearned.model, LIMIT), original, oracles)

    return search("text", method, run, trials, STEPS, worst=6.0)


def search(
    modality: str,
    method: str,
    run: Callable[[dict[str, Any]], dict[str, float]],
    trials: int,
    steps: list[int],
    worst: float,
) -> pd.DataFrame:
    """`trials` trials of the method's `search` and, of a gradient method, steps and lr; `run` gives loss and parts.

    A method whose `search` has an "lr" is tried in that range instead of the common one.
    """
    cls = METHODS[modality][method]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=trials // 2))
    rows = []
    for number in range(trials):
        trial = study.ask()
        settings: dict[str, Any] = {}
        if not hasattr(cls, "apply"):
            settings["lr"] = _two_digits(trial.suggest_float("lr", *cls.search.get("lr", LEARNING_RATE), log=True))
            settings["steps"] = trial.suggest_categorical("steps", steps)
        for name, space in ((n, s) for n, s in cls.search.items() if n != "lr"):
            if isinstance(space, list):
                settings[name] = trial.suggest_categorical(name, space)
            else:
                settings[name] = _two_digits(trial.suggest_float(name, *space, log=True))
        try:
            found = run(settings)
        except UnlearnkitError as error:  # diverged: the worst there is, and kept
            found = {"loss": worst}
            print(f"{method} {settings}: {error}")
        study.tell(trial, found["loss"])
        rows.append({"method": method, "trial": number, "settings": json.dumps(settings), **found})
    return pd.DataFrame(rows)


def best(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """method → the settings of its best trial."""
    rows = table.loc[table.groupby("method")["loss"].idxmin()]
    return {row["method"]: json.loads(row["settings"]) for _, row in rows.iterrows()}


def _two_digits(x: float) -> float:
    return float(f"{x:.1e}")


def record(
    about: str | None, tuned: Callable[[str, int], pd.DataFrame], methods: list[str], out: Path, trials: int = TRIALS
) -> None:
    """The command line of a search: every trial of the methods named (or all) goes into a table."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("methods", nargs="*", help="default: every method that has settings to tune")
    parser.add_argument("--trials", type=int, default=trials)
    parser.add_argument("--out", type=Path, default=out)
    given = parser.parse_args()
    for method in given.methods or methods:
        rows = tuned(method, given.trials)
        if given.out.is_file():
            earlier = pd.read_csv(given.out)
            rows = pd.concat([earlier[earlier["method"] != method], rows], ignore_index=True)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        rows.round(4).to_csv(given.out, index=False)
        print(method, best(rows)[method], flush=True)


if __name__ == "__main__":
    record(
        __doc__,
        tune,
        [m for m, c in METHODS["text"].items() if not hasattr(c, "apply")],
        data_dir() / "tuned" / "text.csv",
    )
