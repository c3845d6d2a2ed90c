"""Measuring one unlearned model for a leaderboard: evaluation, relearning, quantization, cost, oracles beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.benchmark.rows import ATTACKS, COLUMNS, COST, checked
from unlearnkit.errors import UnlearnkitError
from unlearnkit.evaluation import measure, references, score
from unlearnkit.metrics.table import metric_names
from unlearnkit.robustness import robustness_card
from unlearnkit.unlearning import Unlearned, check_problem

LIMIT = {"text": 40, "image": 36}  # questions, or pictures, a split: those of the shipped tables
KEYS = {  # what a board needs of everything that can be measured
    "text": (
        "forget_ks_statistic", "forget_quality", "forget_answer_nll", "forget_probability", "forget_accuracy",
        "forget_paraphrase_accuracy", "forget_option_accuracy", "forget_truth_ratio", "forget_rouge_l_recall",
        "forget_extraction_strength", "forget_refusal", "forget_repetition", "forget_fluency", "forget_hallucination",
        "mia_min_k", "retain_model_utility", "retain_accuracy", "retain_probability", "neighbours_accuracy",
        "neighbours_probability", "general_probability",
    ),
    "image": (
        "ua", "forget_alignment", "oracle_mmd", "oracle_mmd_p", "ira", "cra", "prompt_accuracy", "related_accuracy",
        "retain_alignment", "retain_kid", "mia_denoising_loss",
    ),
}  # fmt: skip
DIGITS = 6  # significant ones of a measured number
RESAMPLES = 100  # draws that decide whether original and oracle differ at all


def benchmark_rows(
    problem: Any,
    unlearned: Mapping[str, Any],
    *,
    attacks: Sequence[str] = ATTACKS,
    metrics: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    oracles: bool = True,
) -> pd.DataFrame:
    """Rows of methods, measured exactly as the shipped tables were, for `leaderboard`, alone or joined to these.

    Every model is evaluated by itself (a row a seed and number), then relearned and quantized; what an attack reaches
    stands in rows such as ``relearn_accuracy``: `value` after the attack at its best budget, `before` it, `original`
    and `oracle` at that same budget. `seconds`, `steps` and `parameters_touched` are rows of what `unlearn` returned.
    What can't be measured is a row without a value that says `why`.

    Args:
        unlearned: name → what `unlearn` returned, a model, a list of either (seeds of one method), or the
            `UnlearnkitError` with which a method refused: then its row says so.
        metrics: keys of `METRICS`; default those of the shipped tables (`KEYS`).
        limit: questions, or pictures, a split; default those of the shipped tables.
        oracles: also the problem's other oracles, as seeds of a method ``oracle`` (the first is what all are held to).

    Raises:
        UnlearnkitError: something that is neither, an unknown metric or attack, or nothing to measure.
    """
    check_problem(problem)
    if not unlearned:
        raise UnlearnkitError("there is nothing to measure: give name → unlearned model, or a list of seeds of it.")
    parts = []
    for name, given in unlearned.items():
        for number, one in enumerate(given if isinstance(given, (list, tuple)) else [given]):
            case = _case(problem, name, one, number)
            parts.append(_rows_of(problem, one, case, attacks, metrics, limit, seed))
    if oracles and "oracle" not in unlearned:
        for number, source in enumerate(problem.oracles[1:], 1):
            case = _case(problem, "oracle", None, number)
            parts.append(_rows_of(problem, source.get(), case, attacks, metrics, limit, seed))
    return pd.concat(parts, ignore_index=True)


def _case(problem: Any, name: str, one: Any, number: int) -> dict[str, Any]:
    own = one.settings if isinstance(one, Unlearned) else {}
    return {
        "branch": problem.modality, "world": str(getattr(problem, "name", "")), "forget": str(problem.request),
        "method": name, "settings": json.dumps(own, sort_keys=True, default=str),
        "seed": one.seed if isinstance(one, Unlearned) else number,
    }  # fmt: skip


def _rows_of(
    problem: Any,
    one: Any,
    case: dict[str, Any],
    attacks: Sequence[str],
    metrics: Sequence[str] | None,
    limit: int | None,
    seed: int,
) -> pd.DataFrame:
    if isinstance(one, UnlearnkitError):
        return checked(pd.DataFrame([{**case, "key": "refused", "value": np.nan, "why": _refusal(one)}]))
    limit = limit or LIMIT[problem.modality]
    model = one.model if isinstance(one, Unlearned) else one
    names = metric_names(problem.modality, metrics or KEYS[problem.modality])
    quiet: dict[str, Any] = {"progress": False} if problem.modality == "image" else {}
    mine = measure(problem, model, limit, **quiet)
    table = score(problem, [mine], references(problem, limit), names, RESAMPLES, seed, not metrics)
    rows = table.reset_index().rename(columns={"unlearned": "value"}).to_dict("records")
    if attacks:
        card = robustness_card(problem, model, attacks, seed=seed, progress=False)
        rows += [_attacked(row) for row in card.to_dict("records")]
    cost = one.cost if isinstance(one, Unlearned) else {}
    if "seconds" in cost:
        cost = {**cost, "seconds": cost["seconds"] + cost.get("prepare_seconds", 0.0)}
    rows += [{"key": key, "value": float(cost[key]), "why": ""} for key in COST if key in cost]
    table = pd.DataFrame([{**row, **case, "seeds": 1} for row in rows])
    table = checked(table[[c for c in COLUMNS if c in table]])
    numbers = table.select_dtypes("float").columns
    return table.assign(**{c: table[c].map(lambda x: float(f"{x:.{DIGITS}g}")) for c in numbers})


def _refusal(error: UnlearnkitError) -> str:
    return f"not measurable: {str(error).removeprefix('not measurable: ')}"


def _attacked(card: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the robustness card as a row of the benchmark; floor and gap in the same unit, shares of the way."""
    if card["why"]:
        measure = card["measure"] if isinstance(card["measure"], str) else ""
        return {"key": "_".join(filter(None, (card["attack"], measure))), "value": card["after"], "why": card["why"],
                "before": card["before"], "original": card["original"], "oracle": card["oracle"], "n": card["n"],
                "budget": card["budget"]}  # fmt: skip
    apart = abs(card["original"] - card["oracle"])
    return {
        "key": f"{card['attack']}_{card['measure']}", "value": card["after"], "before": card["before"],
        "original": card["original"], "oracle": card["oracle"], "gap": abs(card["recovered"]),
        "floor": card["floor"] / apart, "budget": card["budget"], "n": card["n"], "why": "",
    }  # fmt: skip
