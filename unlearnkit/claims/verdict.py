"""What the rows of run folders say about a claim: an effect with its interval, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unlearnkit.claims.ledger import Claim, Effect, Ledger, Rows, read_ledger

if TYPE_CHECKING:
    import pandas as pd

    from unlearnkit.runs.record import Record

COLUMNS = ("experiment", "method", "who", "budget", "measure", "value", "low", "high", "n", "seeds")
WORDS = ("supported", "contradicted", "undecided", "not measurable")
Decided = Literal["supported", "contradicted", "undecided", "not measurable"]


@dataclass(frozen=True)
class Evidence:
    """What a rule reads of one run."""

    notebook: str
    values: Mapping[str, Any]
    scores: pd.DataFrame
    run: str = "this run"
    started: str = ""

    @classmethod
    def of(cls, record: Record) -> Evidence:
        started = str(record.status.get("started"))
        return cls(record.notebook, record.config["values"], record.scores, record.folder.name, started)


@dataclass(frozen=True)
class Verdict:
    """A claim judged: the effect with its 95% interval, what it rests on, or why there is none.

    Attributes:
        by: method → (effect, low, high), where the methods were judged one by one.
        seeds: unlearned models behind it, over all runs.
        runs: folders of the runs it comes from.
    """

    claim: Claim
    verdict: Decided
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    seeds: int = 0
    runs: tuple[str, ...] = ()
    why: str = ""
    by: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)


class Missing(Exception):
    """Why a rule finds nothing to judge."""


@dataclass(frozen=True)
class _Estimate:
    value: float
    low: float
    high: float
    n: float = math.inf
    seeds: int = 0


def verdicts(runs: Path | str | None = None, ledger: Ledger | None = None) -> list[Verdict]:
    """Every claim judged by the complete runs of a folder (as in `read_runs`)."""
    from unlearnkit.runs.record import read_runs

    return judge(ledger or read_ledger(), [Evidence.of(record) for record in read_runs(runs)])


def judge(ledger: Ledger, evidence: Iterable[Evidence], notebook: str | None = None) -> list[Verdict]:
    """Every claim (of one notebook) judged by the evidence given.

    Runs with the same parameters but `seed` are repeats of one experiment; where there are several experiments, the one
    with the most unlearned models decides, then the newest. Of runs with the same parameters the newest counts.
    """
    found = list(evidence)
    return [_judge(claim, ledger, found) for claim in ledger.claims if notebook in (None, claim.notebook)]


def as_table(found: Sequence[Verdict]) -> pd.DataFrame:
    """Verdicts as a table: claim, kind, verdict, effect, low, high, margin, unit, n, seeds, runs, why."""
    import pandas as pd

    rows = [
        {
            "claim": v.claim.id, "branch": v.claim.branch, "kind": v.claim.kind, "verdict": v.verdict,
            "effect": v.effect, "low": v.low, "high": v.high, "margin": v.claim.effect.margin,
            "unit": v.claim.effect.unit, "n": v.n or None, "seeds": v.seeds or None, "runs": ", ".join(v.runs),
            "why": v.why, "statement": v.claim.statement, "source": v.claim.source,
        }
        for v in found
    ]  # fmt: skip
    return pd.DataFrame(rows)


def in_words(found: Sequence[Verdict]) -> str:
    """Verdicts as lines of text for a terminal."""
    lines = []
    for v in found:
        lines.append(f"{v.verdict:<15} {v.claim.id}")
        if v.verdict == "not measurable":
            lines.append(f"{'':<15} {v.why}")
            continue
        numbers = f"{v.effect:.3g} [{v.low:.3g}, {v.high:.3g}] against {v.claim.effect.margin:g} {v.claim.effect.unit}"
        lines.append(f"{'':<15} {numbers}; n = {v.n}, seeds = {v.seeds}, {', '.join(v.runs)}. {v.why}".rstrip())
    counts = {word: sum(v.verdict == word for v in found) for word in WORDS}
    return "\n".join([*lines, ", ".join(f"{count} {word}" for word, count in counts.items() if count) + "."])


def _judge(claim: Claim, ledger: Ledger, evidence: Sequence[Evidence]) -> Verdict:
    here = [e for e in evidence if e.notebook == claim.notebook]
    needs = {"profile": ledger.profiles, **claim.needs}
    fit = [e for e in here if all(_has(e.values, name, wanted) for name, wanted in needs.items())]
    if not fit:
        asked = ", ".join(f"{name} {_spelled(wanted)}" for name, wanted in needs.items())
        found = f"none of {len(here)} runs" if here else "no complete run"
        return Verdict(claim, "not measurable", why=f"{found} of {claim.notebook} with {asked}")
    groups: dict[str, dict[str, Evidence]] = {}
    for e in sorted(fit, key=lambda e: e.started):
        rest = repr(sorted((k, v) for k, v in e.values.items() if k != "seed"))
        groups.setdefault(rest, {})[repr(e.values.get("seed"))] = e  # a newer run replaces an older one
    reasons, best = [], None
    for group in sorted((list(g.values()) for g in groups.values()), key=lambda g: max(e.started for e in g)):
        try:
            now = _decide(claim, group)
        except Missing as reason:
            reasons.append(f"{reason} (run {', '.join(e.run for e in group)})")
            continue
        if best is None or now.seeds >= best.seeds:
            best = now
    return best or Verdict(claim, "not measurable", why=reasons[-1])


def _decide(claim: Claim, runs: Sequence[Evidence]) -> Verdict:
    """The verdict of repeats of one experiment."""
    effect = claim.effect
    methods = [_methods(effect, run.scores) for run in runs]
    common = [m for m in methods[0] if all(m in other for other in methods)]
    estimates = {m: _pooled([_sum(effect, run.scores, m) for run in runs]) for m in common}
    if not estimates:
        raise Missing("the repeats have no method in common")
    of = list(estimates.values())
    n, seeds = min(e.n for e in of), len(runs) * max(min(e.seeds for e in of), 1)
    base: dict[str, Any] = {"n": 0 if math.isinf(n) else int(n), "seeds": seeds, "runs": tuple(run.run for run in runs)}
    if effect.across == "mean" or len(of) == 1:
        whole = _pooled(of, spread=False)
        word = _word(whole, effect.margin)
        return Verdict(claim, word, whole.value, whole.low, whole.high, **base, why=_over(common), by=_by(estimates))
    wide = {m: _widened(e, len(of)) for m, e in estimates.items()}
    words = {_word(e, effect.margin) for e in wide.values()}
    some = effect.across == "some"
    settles: Decided = "supported" if some else "contradicted"  # what one method is enough for
    word = settles if settles in words else words.pop() if len(words) == 1 else "undecided"
    at = max(wide, key=lambda m: wide[m].low) if some else min(wide, key=lambda m: wide[m].high)
    why = f"{at}, the {'most' if some else 'least'} of {len(of)} methods (interval widened for the choice)"
    return Verdict(claim, word, wide[at].value, wide[at].low, wide[at].high, **base, why=why, by=_by(wide))


def _word(estimate: _Estimate, margin: float) -> Decided:
    return "supported" if estimate.low >= margin else "contradicted" if estimate.high < margin else "undecided"


def _over(methods: Sequence[str]) -> str:
    named = [m for m in methods if m]
    return f"mean over {', '.join(named)}" if len(named) > 1 else f"{named[0]}" if named else ""


def _by(estimates: Mapping[str, _Estimate]) -> dict[str, tuple[float, float, float]]:
    return {m: (e.value, e.low, e.high) for m, e in estimates.items()}


def _methods(effect: Effect, scores: pd.DataFrame) -> list[str]:
    """Methods a rule that names none is about: those with unlearned rows of its first such term."""
    if gone := [c for c in COLUMNS if c not in scores.columns]:
        raise Missing(f"scores.csv has no column {gone[0]}")
    for term in effect.rows:
        if term.method is None and term.who == "unlearned":
            rows = scores[(scores["experiment"] == term.experiment) & (scores["who"] == "unlearned")]
            if rows.empty:
                raise Missing(f"no row of an unlearned model in experiment {term.experiment}")
            return list(dict.fromkeys(rows["method"].fillna("").astype(str)))
    return [""]


def _sum(effect: Effect, scores: pd.DataFrame, method: str) -> _Estimate:
    """Plus minus minus; intervals of independent terms combined in quadrature, side by side (Zou and Donner 2008)."""
    value, down, up, n, seeds = 0.0, 0.0, 0.0, math.inf, []
    for sign, terms in ((1, effect.plus), (-1, effect.minus)):
        for term in terms:
            if not isinstance(term, Rows):
                value += sign * term
                continue
            one = _read(term, scores, method)
            value += sign * one.value
            below, above = one.value - one.low, one.high - one.value
            down += (below if sign > 0 else above) ** 2
            up += (above if sign > 0 else below) ** 2
            n = min(n, one.n)
            seeds += [one.seeds] if term.who == "unlearned" else []
    return _Estimate(value, value - math.sqrt(down), value + math.sqrt(up), n, min(seeds, default=0))


def _read(term: Rows, scores: pd.DataFrame, method: str) -> _Estimate:
    """The value of a term in one run; several rows (oracles) are repeats."""
    import pandas as pd

    name = term.method if term.method is not None else method
    own = scores["method"].fillna("").astype(str)
    here = scores[
        (scores["experiment"] == term.experiment) & (scores["measure"] == term.measure) & own.isin(["", name])
    ]
    budgets = pd.to_numeric(here["budget"], errors="coerce")
    if term.budget is None:
        here = here[budgets.isna()]
    else:  # the ends are those of the experiment, so that all are compared at one budget
        ends = {"first": budgets.min(), "last": budgets.max()}
        at = ends[term.budget] if isinstance(term.budget, str) else term.budget
        here = here[(budgets - at).abs() < 1e-9]
    who = here["who"].astype(str)
    rows = here[who.str.match(r"oracle( \d+)?$") if term.who == "oracle" else who == term.who]
    if term.who == "unlearned":
        rows = rows[own[rows.index] == name]
    asked = ", ".join(f"{k} {v}" for k, v in term.model_dump().items() if v is not None and k != "method")
    asked += f", method {name}" if name and term.who == "unlearned" else ""
    if rows.empty:
        raise Missing(f"no row with {asked}")
    if rows[["value", "low", "high"]].isna().any(axis=None):
        raise Missing(f"no value or no interval in the row with {asked}")
    return _pooled([_row(*row) for row in rows[["value", "low", "high", "n", "seeds"]].itertuples(index=False)])


def _row(value: float, low: float, high: float, n: float, seeds: float) -> _Estimate:
    """One row. A bootstrap of nothing but hits, or misses, gives an empty interval: then it is the rule of three."""
    if low == high == value and value in (0, 1) and n > 0:
        low, high = max(0.0, value - 3 / n), min(1.0, value + 3 / n)
    low, high = min(low, value), max(high, value)
    return _Estimate(value, low, high, n if n > 0 else math.inf, int(seeds) if seeds > 0 else 0)


def _pooled(parts: Sequence[_Estimate], spread: bool = True) -> _Estimate:
    """Mean of repeats. They ask the same questions, so its interval is no narrower than theirs; with `spread` half the
    range of the repeats, the noise floor, is added in quadrature."""
    value = sum(p.value for p in parts) / len(parts)
    down = sum(p.value - p.low for p in parts) / len(parts)
    up = sum(p.high - p.value for p in parts) / len(parts)
    apart = (max(p.value for p in parts) - min(p.value for p in parts)) / 2 if spread else 0.0
    n, seeds = min(p.n for p in parts), min(p.seeds for p in parts)
    return _Estimate(value, value - math.hypot(down, apart), value + math.hypot(up, apart), n, seeds)


def _widened(estimate: _Estimate, tries: int) -> _Estimate:
    """The interval for the one that stands out among several (Bonferroni, normal)."""
    from scipy.stats import norm

    by = float(norm.ppf(1 - 0.025 / tries) / norm.ppf(0.975))
    low, high = (estimate.value + by * (end - estimate.value) for end in (estimate.low, estimate.high))
    return _Estimate(estimate.value, low, high, estimate.n, estimate.seeds)


def _has(values: Mapping[str, Any], name: str, wanted: Any) -> bool:
    return name in values and values[name] in (wanted if isinstance(wanted, list) else [wanted])


def _spelled(wanted: Any) -> str:
    return " or ".join(map(str, wanted)) if isinstance(wanted, list) else str(wanted)
