"""The verdict: is a fact or concept still said, hidden, or gone? By stated thresholds, with all its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import yaml

from unlearnkit.errors import whole_number
from unlearnkit.paths import data_dir
from unlearnkit.unlearning import check_problem, model_of

LABELS = ("present", "suppressed", "removed", "undecided")
COLUMNS = [
    "measure", "kind", "original", "unlearned", "low", "high", "oracle", "level", "level_low", "level_high", "floor",
    "n", "why",
]  # fmt: skip
RESAMPLES = 500
Readings = Mapping[str, "np.ndarray | str"]  # measure → a value an item, or why there is none


@dataclass(frozen=True, repr=False)
class Verdict:
    """A label and what it rests on.

    Attributes:
        label: "present" (the output still says it), "suppressed" (output gone, inside as before), "removed" (output
            and inside both at the oracle's level) or "undecided".
        reason: why, in one sentence.
        evidence: one row a measure: `kind` ("output" or "white box"), `original`, `unlearned` (95% interval
            `low`–`high`), `oracle`, `level` = (unlearned − oracle) / (original − oracle) (1 as the original, 0 as the
            oracle; interval `level_low`–`level_high`), `floor`, the largest |level| of another oracle, `n` items,
            and `why` a measure does not vote. Intervals: bootstrap over items, the same items for all models.
        output, inside: mean level of the measures of either kind that vote (see `decide`); NaN when none does.
        thresholds: name → value that the label was decided by.
    """

    label: str
    reason: str
    evidence: pd.DataFrame
    output: float
    inside: float
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        table = self.evidence.to_string(index=False, float_format=lambda x: f"{x:.2f}", na_rep="")
        return f"{self.label}: {self.reason}\n{table}"

    def _repr_html_(self) -> str:
        table = self.evidence.to_html(index=False, float_format=lambda x: f"{x:.2f}", na_rep="")  # escapes
        return f"<p><b>{escape(self.label)}</b>: {escape(self.reason)}</p>{table}"


def thresholds(modality: str) -> dict[str, Any]:
    """The section of ``data/verdict.yml`` of a branch, "text" or "image"."""
    return yaml.safe_load((data_dir() / "verdict.yml").read_text(encoding="utf-8"))[modality]


def verdict(problem: Any, unlearned: Any, *, seed: int = 0, limit: int | None = None) -> Verdict:
    """Present, suppressed, removed or undecided, by the thresholds in ``data/verdict.yml``.

    The output is what the model says or draws when asked as a user asks. The white box reads the weights alone:
    instructions, guards and guidance rules in front of them are taken away first. Text: unlearning depth (as 1 − UDS),
    logit lens, linear probe, relearning. Images: agreement of the denoiser with the original and its loss on noised
    pictures of the concept, completion, concept inversion, relearning.

    Args:
        unlearned: what `unlearn` returned, or a model.
        seed: of relearning, probes, starting noises, and the bootstrap.
        limit: forget questions asked, or pictures drawn (default all questions, 24 pictures).

    Raises:
        UnlearnkitError: a problem or model that can't be read, a number out of its range.
    """
    check_problem(problem)
    whole_number("seed", seed)
    if limit is not None:
        whole_number("limit", limit, 4)
    model = model_of(problem, unlearned)
    evidence = evidence_table(*readings(problem, model, seed, limit), kinds=kinds(problem.modality), seed=seed)
    return decide(evidence, thresholds(problem.modality))


def kinds(modality: str) -> dict[str, str]:
    """measure → "output" or "white box", in the order of the table."""
    from unlearnkit.attribution.image import inside as image
    from unlearnkit.attribution.text import inside as text

    return {"text": text.KINDS, "image": image.KINDS}[modality]


def readings(problem: Any, model: Any, seed: int, limit: int | None) -> tuple[Readings, Readings, list[Readings]]:
    """What is read of (the model, the original, the oracles); original and oracles are read once a problem."""
    from unlearnkit.attribution.image.inside import read as read_image
    from unlearnkit.attribution.text.inside import read as read_text

    text = problem.modality == "text"
    read = read_text if text else read_image
    against = problem.oracles[0].name if text and problem.oracles else ""  # what depth is measured by
    reference = []
    for source in (problem.original, *problem.oracles):
        key = ("verdict", source.name, against, seed, limit)
        if key not in problem.measured:
            problem.measured[key] = read(problem, source.get(), seed, limit)
        reference.append(problem.measured[key])
    return read(problem, model, seed, limit), reference[0], reference[1:]


def evidence_table(
    mine: Readings, original: Readings, oracles: list[Readings], *, kinds: Mapping[str, str], seed: int = 0
) -> pd.DataFrame:
    """The table of `Verdict.evidence`; a measure that tells original and oracle not apart gets a `why`."""
    rows = []
    for measure, kind in kinds.items():
        three = [mine[measure], original[measure], *(o[measure] for o in oracles)]
        row: dict[str, Any] = {"measure": measure, "kind": kind, "why": ""}
        missing = next((x for x in three if isinstance(x, str)), None)
        if missing is not None or not oracles:
            rows.append({**row, "why": f"not measurable: {missing or 'there is no oracle'}"})
            continue
        rows.append(row | _row(np.stack([np.asarray(x, float) for x in three]), np.random.default_rng(seed)))
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(values: np.ndarray, draw: np.random.Generator) -> dict[str, Any]:
    """One measure from values (models, items): the model, the original, the oracle, further oracles."""
    values = values[:, ~np.isnan(values).any(0)]
    count = values.shape[1]
    if not count:
        return {"n": 0, "why": "not measurable: no item has a value"}
    picks = draw.integers(0, count, (RESAMPLES, count))
    means = values[:, picks].mean(-1)  # (models, resamples)
    mine, original, oracle, *others = values.mean(-1)
    low, high = np.percentile(means[0], [2.5, 97.5])
    row = {"original": original, "unlearned": mine, "low": low, "high": high, "oracle": oracle, "n": count}
    distance = original - oracle
    spread = max((abs(x - oracle) for x in others), default=0.0)
    ends = np.percentile(means[1] - means[2], [2.5, 97.5])
    if abs(distance) <= spread or not np.sign(ends[0]) == np.sign(ends[1]) != 0:
        return {**row, "why": "not measurable: original and oracle do not differ beyond noise"}
    row["level"] = (mine - oracle) / distance
    row["floor"] = spread / abs(distance) if others else np.nan
    apart = means[1] - means[2]
    drawn = (means[0] - means[2])[apart != 0] / apart[apart != 0]
    row["level_low"], row["level_high"] = np.percentile(drawn, [2.5, 97.5])
    return row


def decide(evidence: pd.DataFrame, rule: Mapping[str, Any]) -> Verdict:
    """The label from the levels of a table; in a mean, a level below the oracle's counts as 0, so as not to outweigh.

    Mean of the output ≥ `said`: present. Mean of the output ≤ `gone`: suppressed when the mean of the white box is ≥
    `unchanged`; removed when every white-box measure is ≤ `forgotten` and no output measure lies below `beyond`
    (further from the original than the oracle is). Else undecided.
    """
    limits = {name: float(rule[name]) for name in ("said", "gone", "unchanged", "forgotten", "beyond")}
    parts = {kind: evidence[(evidence["kind"] == kind) & evidence["level"].notna()] for kind in ("output", "white box")}
    output, inside = (float(part["level"].clip(lower=0).mean()) for part in parts.values())
    names = {kind: ", ".join(part["measure"]) for kind, part in parts.items()}
    said = f"the output is at {output:.2f} of the way from the oracle to the original ({names['output']})"
    within = f"the white box at {inside:.2f} ({names['white box']})"
    if np.isnan(output):
        label, reason = "undecided", "no output measure tells original and oracle apart"
    elif output >= limits["said"]:
        label, reason = "present", f"{said}, so it is still said"
    elif output > limits["gone"]:
        label, reason = "undecided", f"{said}: neither said as before nor gone"
    elif np.isnan(inside):
        label, reason = "undecided", f"{said}, but no white-box measure tells original and oracle apart"
    elif inside >= limits["unchanged"]:
        label, reason = "suppressed", f"{said}, {within}: gone from the output, not from the inside"
    else:
        highest = parts["white box"].loc[parts["white box"]["level"].idxmax()]
        lowest = parts["output"].loc[parts["output"]["level"].idxmin()]
        if highest["level"] > limits["forgotten"]:
            most = f"{highest['measure']} at {highest['level']:.2f}"
            label, reason = "undecided", f"{said}, but inside something is left, {most}, though less than before"
        elif lowest["level"] < limits["beyond"]:
            least = f"{lowest['measure']} is at {lowest['level']:.2f}"
            label, reason = "undecided", f"{said}, {within}, but {least}: further than retraining goes"
        else:
            label, reason = "removed", f"{said}, {within}: both where a retrained model is"
    return Verdict(label, reason, evidence, output, inside, limits)
