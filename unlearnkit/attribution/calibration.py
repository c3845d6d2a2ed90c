"""Verdicts on models whose truth is known: the thresholds are set on some requests and judged on others.

`unlearnkit bench verdict` writes the thresholds to data/verdict.yml and a row a model to data/measured/verdict_*.csv.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from unlearnkit.attribution.known import lowered, noisy, suppressed_pictures, suppressed_text, taught, trained_on
from unlearnkit.attribution.known import value_tokens as value_tokens
from unlearnkit.attribution.verdict import LABELS, decide, evidence_table, kinds, readings
from unlearnkit.errors import unknown
from unlearnkit.paths import data_dir

TRUTHS = ("present", "suppressed", "removed")
BEYOND = -0.5  # no model of known truth lies below the oracle, so this threshold is set and not calibrated


@dataclasses.dataclass(frozen=True)
class Case:
    """A world, a request in it, a seed, how many oracles are trained, and what its models are for."""

    use: str  # "calibrate" or "judged"
    world: str
    request: str
    seed: int = 0
    oracles: int = 3

    def problem(self) -> Any:
        from unlearnkit.problem import load_problem

        return load_problem(self.world, self.request, self.seed, oracles=self.oracles)


CASES = {
    "text": (
        Case("calibrate", "authors", "forget10"),
        Case("judged", "authors", "forget10", seed=100),
        Case("judged", "authors", "kind:award", seed=100, oracles=2),
    ),
    "image": (
        Case("calibrate", "digits", "seven"),
        Case("judged", "digits", "three"),
        Case("judged", "canvas", "striped", oracles=2),
    ),
}


def known_models(problem: Any, seed: int = 0) -> Iterator[tuple[str, str, Any, Any]]:
    """(truth, name, the problem with the oracles to compare with, model) of models whose truth is known.

    Present: the original, with noise on its weights, and trained on with retained data. Suppressed, the weights
    unchanged or but for the output layer or one embedding: text: a guard, an output bias and replaced output rows
    against the forgotten values; images: a filter on prompts, the word's embedding replaced by that of another concept.
    Removed: every oracle, judged against the others. Of text also every oracle that was then taught the forgotten
    facts (present) and given an output bias (suppressed): what is inside did not come from the original.
    """
    yield "present", "original", problem, problem.model
    for k in range(2):
        yield "present", f"original with noise {k + 1}", problem, noisy(problem, seed + k)
    yield "present", "original trained on", problem, trained_on(problem, seed)
    text = problem.modality == "text"
    for name, model in (suppressed_text if text else suppressed_pictures)(problem, seed):
        yield "suppressed", name, problem, model
    for k, source in enumerate(problem.oracles):
        others = [o for o in problem.oracles if o is not source]
        if not others:
            continue
        against = dataclasses.replace(problem, oracles=others)  # with what was read of original and oracles so far
        yield "removed", f"oracle {k + 1}", against, source.get()
        if text:
            model = taught(problem, source.fresh(), seed)
            yield "present", f"oracle {k + 1} taught again", against, model
            yield "suppressed", f"oracle {k + 1} taught again, output bias", against, lowered(problem, model, True)


def judge(case: Case, limit: int | None = 20) -> pd.DataFrame:
    """One row a model of known truth: what it is, and the level of every measure (NaN: does not vote)."""
    problem, rows = case.problem(), []
    about = {"world": problem.name, "request": case.request, "seed": case.seed, "use": case.use}
    for truth, name, against, model in known_models(problem, case.seed):
        table = evidence_table(*readings(against, model, 0, limit), kinds=kinds(problem.modality))
        rows.append({**about, "truth": truth, "model": name, **table.set_index("measure")["level"].to_dict()})
    return pd.DataFrame(rows)


def labelled(table: pd.DataFrame, modality: str, rule: dict[str, Any]) -> pd.DataFrame:
    """The rows with `label`, and the `output` and `inside` it was decided by, under the thresholds of `rule`."""
    found = [decide(levels(row, modality), rule) for _, row in table.iterrows()]
    return table.assign(
        output=[v.output for v in found], inside=[v.inside for v in found], label=[v.label for v in found]
    )


def levels(row: pd.Series, modality: str) -> pd.DataFrame:
    """A row of measured levels as the evidence `decide` reads."""
    return pd.DataFrame([{"measure": m, "kind": k, "level": row[m]} for m, k in kinds(modality).items()])


def calibrated(table: pd.DataFrame, modality: str) -> dict[str, float]:
    """Thresholds a third of the way from either side into the gap between models of different truth.

    `said` and `gone` from the output of present models and of the others, `unchanged` from the white box of suppressed
    and of removed ones, `forgotten` from its highest measure in either. Where they overlap, the middle of the overlap.
    """
    measures = pd.Series(kinds(modality))
    output, inside = (table[measures.index[measures == k]].astype(float) for k in ("output", "white box"))
    level = pd.DataFrame({
        "output": output.clip(lower=0).mean(axis=1), "inside": inside.clip(lower=0).mean(axis=1),
        "highest": inside.max(axis=1), "truth": table["truth"],
    })  # fmt: skip
    of = {truth: level[level["truth"] == truth] for truth in TRUTHS}
    hidden, gone = of["suppressed"], of["removed"]
    limits = {
        "gone": _between(pd.concat([hidden, gone])["output"], of["present"]["output"], 1 / 3),
        "said": _between(pd.concat([hidden, gone])["output"], of["present"]["output"], 2 / 3),
        "forgotten": _between(gone["highest"], hidden["highest"], 1 / 3),
        "unchanged": _between(gone["inside"], hidden["inside"], 2 / 3),
    }
    return {name: round(value, 3) for name, value in limits.items()} | {"beyond": BEYOND}


def _between(lower: pd.Series, upper: pd.Series, share: float) -> float:
    low, high = float(lower.max()), float(upper.min())
    return low + (share if low < high else 0.5) * (high - low)


def confusion(table: pd.DataFrame) -> pd.DataFrame:
    """Truth against label of labelled rows, with `right`, the share that is right, and its 95% interval (Wilson)."""
    from scipy.stats import binomtest

    counts = pd.crosstab(table["truth"], table["label"]).reindex(index=TRUTHS, columns=LABELS, fill_value=0)
    counts.loc["all"] = counts.sum()
    right = [*(int(counts.loc[t, t]) for t in TRUTHS), int((table["truth"] == table["label"]).sum())]
    counts["n"] = counts[list(LABELS)].sum(axis=1)
    counts["right"] = np.array(right) / counts["n"].clip(lower=1)
    for end in ("low", "high"):
        counts[end] = [
            getattr(binomtest(k, n).proportion_ci(method="wilson"), end) if n else np.nan
            for k, n in zip(right, counts["n"], strict=True)
        ]
    return counts


def finish(table: pd.DataFrame, modality: str, folder: Path | None = None) -> pd.DataFrame:
    """Calibrates, judges, and writes both files; returns the labelled table."""
    folder = folder or data_dir()
    rule: dict[str, Any] = dict(calibrated(table[table["use"] == "calibrate"], modality))
    table = labelled(table, modality, rule)
    rule["date"] = date.today().isoformat()
    for use in ("calibrate", "judged"):
        part = table[table["use"] == use]
        cases = part[["world", "request", "seed"]].drop_duplicates().itertuples(index=False)
        rule[use] = {
            "requests": [f"{world} {request}, seed {seed}" for world, request, seed in cases], "models": len(part),
            "right": int((part["truth"] == part["label"]).sum()),
        }  # fmt: skip
    path = folder / "verdict.yml"
    known = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    text = yaml.safe_dump({**known, modality: rule}, sort_keys=False, width=120)
    path.write_text(HEAD + text, encoding="utf-8")
    (folder / "measured").mkdir(exist_ok=True)
    table.to_csv(folder / "measured" / f"verdict_{modality}.csv", index=False, float_format="%.4f")
    return table


HEAD = """\
# Thresholds of verdicts, in levels: 1 as the original, 0 as the oracle; `decide` in unlearnkit/attribution/verdict.py
# is the rule. Written by `unlearnkit bench verdict`: set on the models of `calibrate`, never touched for those of
# `judged`, whose confusion table follows from data/measured/verdict_*.csv. `beyond` is set by hand.
"""


def main(branches: Sequence[str] = ("text", "image")) -> None:
    """The command: trains what the store lacks, judges every model, writes thresholds and tables, prints both.

    Raises:
        UnlearnkitError: an unknown branch.
    """
    for modality in branches:
        if modality not in CASES:
            raise unknown("branch", modality, CASES)
    for modality in branches:
        table = finish(pd.concat([judge(case) for case in CASES[modality]], ignore_index=True), modality)
        print(f"{modality}: {yaml.safe_load((data_dir() / 'verdict.yml').read_text())[modality]}")
        for use in ("calibrate", "judged"):
            print(f"\n{use}\n{confusion(table[table['use'] == use]).round(2).to_string()}")
