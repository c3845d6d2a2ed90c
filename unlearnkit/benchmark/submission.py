"""Checking a results file that somebody hands in: every fault in one sentence, nothing executed, nothing trusted."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import ValidationError

from unlearnkit.benchmark.digests import rows_digest
from unlearnkit.benchmark.results import ClaimEntry, Results, RunEntry, claim_entry, run_entry
from unlearnkit.benchmark.rows import CASE, COLUMNS, rows_of_runs
from unlearnkit.errors import UnlearnkitError

if TYPE_CHECKING:
    from unlearnkit.claims import Evidence

LARGEST = 64 * 2**20  # bytes of a results file
CLOSE = 1e-6  # relative: a recomputed gap may differ by rounding
RANGES = [  # the first pattern that a key matches says what its value can be
    (r"mia_(?!.*_p$)|ks_statistic$|model_utility$|^ua$|^ira$|^cra$|alignment$|_p$|shown$|hallucination$", 0, 1),
    (r"accuracy$|probability$|rouge|truth_ratio$|memorization$|extraction_strength$|refusal$|repetition$", 0, 1),
    (r"(^|_)(answer_)?nll$|_fluency$|_frechet$|_loss$|^seconds$|^steps$|^parameters_touched$|to_right$", 0, math.inf),
    (r"_quality$", -math.inf, 0),
]


def check_results(path: Path | str, runs: Path | str | None = None) -> tuple[Results | None, list[str]]:
    """A results file and its faults, one sentence each; no fault means that it can be trusted as far as it goes.

    Checked: size, JSON, schema; the digest of the rows; that every row belongs to a listed run, once; gaps and shares
    recomputed from the values beside them; ranges of known metrics; methods this installation knows; that every claim
    is one of the ledger, stands once, and names its runs. Where the folder of a run is among `runs`, it must say the
    same of the run, give the same digests and rows, and with the others the same verdicts.

    Args:
        runs: the folder of run records; None: only what the file itself says is checked.

    Raises:
        UnlearnkitError: there is no such file, or no such folder.
    """
    path = Path(path)
    if not path.is_file():
        raise UnlearnkitError(f"there is no file {path}; `unlearnkit report` writes results.json beside report.html.")
    if runs is not None and not Path(runs).is_dir():
        raise UnlearnkitError(f"there is no folder {runs} of runs to compare with; name another one, or none.")
    if path.stat().st_size > LARGEST:
        return None, [f"the file has {path.stat().st_size / 2**20:.0f} MB; at most {LARGEST >> 20} MB are read."]
    try:
        found = json.loads(path.read_bytes(), parse_constant=_no_constant, object_pairs_hook=_once)
    except RecursionError:
        return None, ["the file is nested too deeply for results; it was not read."]
    except ValueError as error:
        return None, [f"the file is not JSON as it should be: {' '.join(str(error).split())[:200]}."]
    try:
        results = Results.model_validate(found)
    except ValidationError as error:
        return None, _schema_faults(error)
    rows = pd.DataFrame([row.model_dump() for row in results.rows], columns=["notebook", "run", *COLUMNS])
    checks: tuple[Callable[..., Iterator[str]], ...] = (_digest, _runs, _numbers, _ranges, _methods, _claims)
    faults = [fault for one in checks for fault in one(results, rows)]
    if runs is not None:
        faults += _folders(results, rows, Path(runs))
    return results, faults


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number; write null for what is missing")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(n for n in names if names.count(n) > 1)!r:.60} stands twice in one object")
    return out


def _schema_faults(error: ValidationError) -> list[str]:
    out = []
    for one in error.errors()[:20]:
        where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in one["loc"]).lstrip(".")
        given = "" if one["type"] == "missing" else f" is {_shown(one['input'])}"
        out.append(f"{where[:120] or 'the file'}{given}: {one['msg'][:1].lower()}{one['msg'][1:]}.")
    rest = error.error_count() - len(out)
    return [*out, f"and {rest} more faults of this kind."] if rest else out


def _shown(value: Any) -> str:
    """What was given, short and on one line, however large or strange."""
    if isinstance(value, dict | list):
        return f"a {'list' if isinstance(value, list) else 'object'} of {len(value)}"
    return ascii(value)[:60]


def _digest(results: Results, rows: pd.DataFrame) -> Iterator[str]:
    if rows_digest(rows) != results.rows_digest:
        yield f"the digest of the rows is {rows_digest(rows)}, the file says {results.rows_digest}: rows were changed."


def _runs(results: Results, rows: pd.DataFrame) -> Iterator[str]:
    listed = [(run.notebook, run.run) for run in results.runs]
    for (notebook, digest), times in Counter(listed).items():
        if times > 1:
            yield f"the run {notebook}/{digest} is listed {times} times."
    known = set(listed)
    for one in dict.fromkeys(zip(rows["notebook"], rows["run"], strict=True)):
        if one not in known:
            yield f"rows are of the run {one[0]}/{one[1]}, which is not listed."
    twice = rows[rows.duplicated(["notebook", "run", *CASE, "key"])]
    for row in twice.head(5).itertuples():
        yield f"{row.method}, seed {row.seed}: {row.key} stands twice in the run {row.notebook}/{row.run}."
    seen: dict[str, RunEntry] = {}
    for run in results.runs:
        before = seen.setdefault(run.scores_sha256 or run.run, run)
        if before.run != run.run and before.notebook == run.notebook:
            yield f"the runs {before.run} and {run.run} of {run.notebook} have the same scores: one is a copy."


def _numbers(results: Results, rows: pd.DataFrame) -> Iterator[str]:
    """Gap and share follow from the values that stand beside them."""
    for row in rows.itertuples():
        name = f"{row.method}, seed {row.seed}, {row.key}"
        parts = (row.value, row.original, row.oracle, row.gap)
        if not any(map(pd.isna, parts)):
            apart = abs(row.original - row.oracle)
            expected = abs(row.value - row.oracle) / apart if apart else math.nan
            if not math.isclose(expected, row.gap, rel_tol=1e-3, abs_tol=1e-4):
                yield f"{name}: the gap is {row.gap:.4g}, but the values give {expected:.4g}."
        if not any(map(pd.isna, (row.value, row.original, row.relative))) and row.original:
            expected = row.value / row.original
            if not math.isclose(expected, row.relative, rel_tol=1e-3, abs_tol=1e-4):
                yield f"{name}: the share of the original is {row.relative:.4g}, but the values give {expected:.4g}."


def _ranges(results: Results, rows: pd.DataFrame) -> Iterator[str]:
    for row in rows.itertuples():
        for pattern, low, high in RANGES:
            if re.search(pattern, row.key):
                for column in ("value", "original", "oracle", "before"):
                    value = getattr(row, column)
                    if not pd.isna(value) and not low - CLOSE <= value <= high + CLOSE:
                        yield f"{row.method}, seed {row.seed}: {column} of {row.key} is {value:.4g}, " + _allowed(
                            low, high
                        )
                break


def _allowed(low: float, high: float) -> str:
    if math.isinf(high):
        return f"and can't be below {low:g}."
    return f"and can't be above {high:g}." if math.isinf(low) else f"and lies between {low:g} and {high:g}."


def _methods(results: Results, rows: pd.DataFrame) -> Iterator[str]:
    from unlearnkit.methods import METHODS
    from unlearnkit.runs.plan import series

    shown = "".join(path.read_text("utf-8") for path in series())  # notebooks register methods for their readers
    taught = {"another oracle", *re.findall(r'register_method\(\\?"(\w+)', shown)}
    for branch, name in sorted(set(zip(rows["branch"], rows["method"], strict=True))):
        # `grad_ascent ×10`: with ten times its learning rate
        if name.partition(" ×")[0] not in METHODS[branch] and name not in taught:
            yield f"the {branch} method {name} is not known here; hand in the file that registers it as well."


def _claims(results: Results, rows: pd.DataFrame) -> Iterator[str]:
    from unlearnkit.claims import read_ledger

    known, listed = {claim.id for claim in read_ledger().claims}, {run.run for run in results.runs}
    for name, times in Counter(entry.claim for entry in results.claims).items():
        if name not in known:
            yield f"the claim {name} is not in the ledger here; hand in claims of the ledger only."
        if times > 1:
            yield f"the claim {name} is listed {times} times."
    for entry in results.claims:
        if entry.verdict != "not measurable" and not entry.runs:
            yield f"the claim {entry.claim} is {entry.verdict} by no run; name the runs it comes from."
        for run in entry.runs:
            if run not in listed:
                yield f"the claim {entry.claim} comes from the run {run}, which is not listed."


def _folders(results: Results, rows: pd.DataFrame, root: Path) -> Iterator[str]:
    """Runs whose folders are at hand: their files still are what was handed in, and give these rows."""
    from unlearnkit.claims import Evidence
    from unlearnkit.runs.record import read_run

    read: dict[tuple[str, str], Evidence] = {}
    for run in results.runs:
        folder = root / run.notebook / run.run
        if not folder.is_dir():
            continue
        name = f"{run.notebook}/{run.run}"
        try:
            record = read_run(folder)
            now, evidence = run_entry(record), Evidence.of(record)
            again = rows_of_runs([record])
        except (UnlearnkitError, OSError, ValueError, KeyError) as error:
            yield f"the folder of the run {name} can't be read ({' '.join(str(error).split())[:120]})."
            continue
        for what, words in (("config_sha256", "config"), ("scores_sha256", "scores"), ("code_sha256", "notebook code")):
            if now[what] != getattr(run, what):
                yield f"the {words} of the run {name} are not as handed in."
        if record.config.get("digest") not in (None, run.run):
            yield f"the folder {name} holds the config of another run, {ascii(record.config['digest'])[:40]}."
        mine = rows[(rows["notebook"] == run.notebook) & (rows["run"] == run.run)]
        if rows_digest(mine) != rows_digest(again.reindex(columns=COLUMNS)):
            yield f"the rows of the run {name} are not those its scores.csv gives."
        said, kept = _facts(run.model_dump()), _facts(now)
        for what in sorted(said.keys() | kept.keys()):
            if said.get(what) != kept.get(what):
                yield f"{what} of the run {name} is {_shown(said.get(what))}, its folder says {_shown(kept.get(what))}."
        read[run.notebook, run.run] = evidence
    yield from _judged(results, read)


def _facts(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a run says of itself, each fact by its name."""
    parts = {f"{part}.{name}": value for part in ("values", "versions") for name, value in entry[part].items()}
    return {name: entry[name] for name in ("profile", "seed", "started", "seconds")} | parts


def _judged(results: Results, read: Mapping[tuple[str, str], Evidence]) -> Iterator[str]:
    """Claims about notebooks of which every run is at hand, judged again as `report` does."""
    from unlearnkit.claims import judge, read_ledger

    gone = {run.notebook for run in results.runs if (run.notebook, run.run) not in read}
    again = {v.claim.id: v for v in judge(read_ledger(), read.values())}
    listed = {entry.claim for entry in results.claims}
    for name, judged in again.items():
        if name not in listed and judged.claim.notebook not in gone and judged.runs:
            yield f"the claim {name} is left out; the runs say that it is {judged.verdict}."
    for entry in results.claims:
        verdict = again.get(entry.claim)
        if verdict is None or verdict.claim.notebook in gone:
            continue
        expected = claim_entry(verdict)
        for what in ClaimEntry.model_fields:
            given, right = getattr(entry, what), expected[what]
            if what != "why" and not _same(given, right):
                yield f"{what} of the claim {entry.claim} is {_shown(given)}, but the runs give {_shown(right)}."
                break


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-4)
    return bool(one == other)
