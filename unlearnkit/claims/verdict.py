"""What the complete runs of a folder say about each claim of the ledger: a verdict and what it rests on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from unlearnkit.claims.effects import Estimate, Missing, methods_of, pooled, total, widened
from unlearnkit.claims.ledger import Claim, Ledger, read_ledger

if TYPE_CHECKING:
    import pandas as pd

    from unlearnkit.runs.record import Record

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
    counts = {word: sum(v.verdict == word for v in found) for word in get_args(Decided)}
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
    methods = [methods_of(effect, run.scores) for run in runs]
    common = [m for m in methods[0] if all(m in other for other in methods)]
    estimates = {m: pooled([total(effect, run.scores, m) for run in runs]) for m in common}
    if not estimates:
        raise Missing("the repeats have no method in common")
    of = list(estimates.values())
    n, seeds = min(e.n for e in of), len(runs) * max(min(e.seeds for e in of), 1)
    base: dict[str, Any] = {"n": 0 if math.isinf(n) else int(n), "seeds": seeds, "runs": tuple(run.run for run in runs)}
    if effect.across == "mean" or len(of) == 1:
        whole = pooled(of, spread=False)
        word = _word(whole, effect.margin)
        return Verdict(claim, word, whole.value, whole.low, whole.high, **base, why=_over(common), by=_by(estimates))
    wide = {m: widened(e, len(of)) for m, e in estimates.items()}
    words = {_word(e, effect.margin) for e in wide.values()}
    some = effect.across == "some"
    settles: Decided = "supported" if some else "contradicted"  # what one method is enough for
    word = settles if settles in words else words.pop() if len(words) == 1 else "undecided"
    at = max(wide, key=lambda m: wide[m].low) if some else min(wide, key=lambda m: wide[m].high)
    why = f"{at}, the {'most' if some else 'least'} of {len(of)} methods (interval widened for the choice)"
    return Verdict(claim, word, wide[at].value, wide[at].low, wide[at].high, **base, why=why, by=_by(wide))


def _word(estimate: Estimate, margin: float) -> Decided:
    return "supported" if estimate.low >= margin else "contradicted" if estimate.high < margin else "undecided"


def _over(methods: Sequence[str]) -> str:
    named = [m for m in methods if m]
    return f"mean over {', '.join(named)}" if len(named) > 1 else f"{named[0]}" if named else ""


def _by(estimates: Mapping[str, Estimate]) -> dict[str, tuple[float, float, float]]:
    return {m: (e.value, e.low, e.high) for m, e in estimates.items()}


def _has(values: Mapping[str, Any], name: str, wanted: Any) -> bool:
    return name in values and values[name] in (wanted if isinstance(wanted, list) else [wanted])


def _spelled(wanted: Any) -> str:
    return " or ".join(map(str, wanted)) if isinstance(wanted, list) else str(wanted)
