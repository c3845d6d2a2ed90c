"""The verb `attack`, and the robustness card: every attack, its budget, what came back, next to the oracle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError
from tqdm.auto import tqdm

from unlearnkit.attacks import ATTACKS, Attack
from unlearnkit.errors import UnlearnkitError, whole_number
from unlearnkit.metrics.draws import interval_of
from unlearnkit.unlearning import check_problem, model_of

COLUMNS = ["attack", "who", "budget", "measure", "value", "low", "high", "n", "seeds"]
RESAMPLES = 500


def attack(
    problem: Any,
    unlearned: Any,
    name: str | Attack = "relearn",
    *,
    budget: Sequence[float] | None = None,
    seed: int = 0,
    **settings: Any,
) -> pd.DataFrame:
    """One attack on original, unlearned and oracles, as a tidy curve.

    Columns: `attack`, `who` ("original", "unlearned", "oracle", "oracle 2", …), `budget`, `measure`, `value`,
    95% interval `low`–`high` (bootstrap over questions or pictures, and over seeds when several models are given),
    `n`, `seeds`.

    Args:
        unlearned: what `unlearn` returned, a model, or a list of either (several seeds of one method).
        budget: points of the curve; default the attack's own.
        settings: fields of the attack.

    Raises:
        UnlearnkitError: unknown attack or setting; a problem that lacks what the attack asks about.
    """
    check_problem(problem)
    whole_number("seed", seed)
    chosen = _configured(problem.modality, name, settings)
    label = name if isinstance(name, str) else type(name).__name__.lower()
    points = _points(label, chosen, chosen.budgets if budget is None else budget, budget is None)
    several = unlearned if isinstance(unlearned, (list, tuple)) else [unlearned]
    if not several:
        raise UnlearnkitError("there is nothing to attack: the list of unlearned models is empty.")
    curves = [dict(chosen.curve(problem, model_of(problem, u), points, seed)) for u in several]
    rows = _rows(label, "unlearned", curves, seed)
    sources = [("original", problem.original)]
    sources += [("oracle" if k == 0 else f"oracle {k + 1}", source) for k, source in enumerate(problem.oracles)]
    for who, source in sources:
        key = reference_key(label, chosen, points, seed, who)
        if key not in problem.measured:
            problem.measured[key] = dict(chosen.curve(problem, source.get(), points, seed))
        rows += _rows(label, who, [problem.measured[key]], seed)
    return pd.DataFrame(rows, columns=COLUMNS)


def reference_key(label: str, chosen: Attack, points: tuple[float, ...], seed: int, who: str) -> tuple[Any, ...]:
    """Where the curve of an original or oracle is kept; a class that was registered again is another attack."""
    return "attack", label, type(chosen), chosen.model_dump_json(), points, seed, who


def robustness_card(
    problem: Any, unlearned: Any, attacks: Sequence[str] | None = None, *, seed: int = 0, progress: bool = True
) -> pd.DataFrame:
    """The robustness card: one row an attack and measure.

    Columns: `before` (no attack, or the weakest budget) and `after` (the attacker's best point against the
    oracle) of the unlearned model;
    `oracle` at that same point and `floor`, the largest distance of another oracle from it; `original` there;
    `recovered` = share of the way from the oracle to the original that the attack reaches; `found`: whether the
    attacked model is beyond the oracle by more than floor and interval; `why` when not measurable.
    """
    rows: list[dict[str, Any]] = []
    for name in tqdm(list(attacks or ATTACKS[problem.modality]), desc="attacks", leave=False, disable=not progress):
        try:
            curve = attack(problem, unlearned, name, seed=seed)
        except UnlearnkitError as reason:
            rows.append({"attack": name, "why": f"not measurable: {reason}"})
            continue
        rows += card_rows(curve, ATTACKS[problem.modality][name])
    return pd.DataFrame(rows, columns=[
        "attack", "measure", "unit", "budget", "before", "after", "low", "high", "oracle", "floor", "original",
        "recovered", "found", "n", "why",
    ])  # fmt: skip


def card_rows(curve: pd.DataFrame, kind: type[Attack]) -> list[dict[str, Any]]:
    """The rows of the card that one curve gives."""
    rows = []
    for measure, part in curve.groupby("measure", sort=False):
        up = kind.higher_is_found.get(str(measure), True)
        if measure == "control":
            continue
        mine = part[part["who"] == "unlearned"].set_index("budget")
        sign = 1 if up else -1
        attacked = mine.drop(index=kind.identity) if kind.identity in mine.index and len(mine) > 1 else mine
        target = part[part["who"] == "oracle"].set_index("budget")["value"].reindex(attacked.index).fillna(0.0)
        best = attacked.loc[(sign * (attacked["value"] - target)).idxmax()]
        at = part[part["budget"] == best.name].set_index("who")["value"]
        row = {
            "attack": best["attack"], "measure": measure, "unit": kind.unit, "budget": best.name,
            "before": mine["value"].get(kind.identity, np.nan), "after": best["value"], "low": best["low"],
            "high": best["high"], "original": at.get("original", np.nan), "n": best["n"], "why": "",
        }  # fmt: skip
        others = [value for who, value in at.items() if str(who).startswith("oracle ")]
        if "oracle" not in at.index:
            rows.append({**row, "why": "not measurable: there is no oracle to compare with"})
            continue
        oracle = float(at["oracle"])
        spread = max((abs(value - oracle) for value in others), default=np.nan)
        row |= {"oracle": oracle, "floor": spread}
        distance = row["original"] - oracle
        if sign * distance <= (0 if np.isnan(spread) else spread):
            rows.append({**row, "why": "not measurable: original and oracle do not differ beyond noise"})
            continue
        edge = best["low"] if up else best["high"]
        row["recovered"] = (best["value"] - oracle) / distance
        row["found"] = bool(sign * (edge - oracle) > (0 if np.isnan(spread) else spread))
        rows.append(row)
    return rows


def _configured(modality: str, name: str | Attack, settings: dict[str, Any]) -> Attack:
    if isinstance(name, Attack):
        return name.model_copy(update=settings)
    try:
        return ATTACKS[modality][name](**settings)
    except ValidationError as error:
        first = error.errors()[0]
        allowed = ", ".join(ATTACKS[modality][name].model_fields) or "none"
        raise UnlearnkitError(
            f"setting '{'.'.join(map(str, first['loc']))}' of attack {name} can't be {first['input']!r}: "
            f"{first['msg']}; its settings are {allowed}."
        ) from error


def _points(label: str, chosen: Attack, budget: Any, own: bool) -> tuple[float, ...]:
    """The points of a curve as numbers; raises UnlearnkitError for what is none, or is outside the attack's range."""
    try:
        if isinstance(budget, str) or any(isinstance(b, bool | str) for b in budget):
            raise TypeError
        points = tuple(float(b) for b in budget)
    except (TypeError, ValueError) as error:
        raise UnlearnkitError(
            f"budget = {budget!r} is not possible; give a list of numbers ({chosen.unit})."
        ) from error
    if not points and not own:
        raise UnlearnkitError(f"the budget of {label} is empty; give at least one number ({chosen.unit}).")
    for b in points:
        if chosen.whole and not b.is_integer() and math.isfinite(b):
            raise UnlearnkitError(f"budget {b:g} of {label} is not possible; give whole numbers ({chosen.unit}).")
        if not chosen.least <= b <= chosen.most or math.isinf(b):  # NaN is neither
            top = f" to {chosen.most:g}" if math.isfinite(chosen.most) else ""
            raise UnlearnkitError(
                f"budget {b:g} of {label} is out of range; give numbers from {chosen.least:g}{top} ({chosen.unit})."
            )
    return points


def _rows(label: str, who: str, curves: Sequence[dict[float, pd.DataFrame]], seed: int) -> list[dict[str, Any]]:
    """Means and bootstrap intervals of one or more (seeds) curves."""
    draw = np.random.default_rng(seed)
    rows = []
    for budget in curves[0]:
        tables = [curve[budget] for curve in curves]
        for measure in tables[0].columns:
            values = np.stack([t[measure].to_numpy(float) for t in tables])  # (seeds, questions)
            values = values[:, ~np.isnan(values).any(0)]
            if not values.size:
                continue
            seeds, count = values.shape
            picks = draw.integers(0, count, (RESAMPLES, count))
            which = draw.integers(0, seeds, (RESAMPLES, seeds))
            means = values[which[:, :, None], picks[:, None, :]].mean((1, 2))
            low, high = interval_of(means, float(values.mean()), count)
            rows.append({
                "attack": label, "who": who, "budget": budget, "measure": measure, "value": values.mean(),
                "low": low, "high": high, "n": count, "seeds": seeds,
            })  # fmt: skip
    return rows
