"""The loop: a request that leaves records out, data attribution to find them, the request extended, and again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from html import escape
from typing import Any, Literal

import numpy as np
import pandas as pd

from unlearnkit.attribution.text.data import scored
from unlearnkit.errors import UnlearnkitError, whole_number
from unlearnkit.unlearning import check_problem
from unlearnkit.worlds.records import QA

BESIDE = ("words", "random")  # what needs no model, and chance: beside every score
RESAMPLES = 500
LeftOut = Literal["records", "translated", "derived"]


@dataclasses.dataclass(frozen=True, repr=False)
class AttributionLoop:
    """What `attribution_loop` returns.

    Attributes:
        recall: one row a round and score: `model` that was attributed ("original" or "unlearned"), `recall` of the
            left-out records among those taken so far, its 95% interval `low`–`high` (bootstrap over entities),
            `chance`, `n` left-out records, `k` records taken, `records` to choose from. Each score walks its own way;
            "again" rows rank what is still left out in the model unlearned with the extended request.
        relearning: the relearning curve of the models unlearned with the half, extended and full request, with
            original and oracle: `request`, and the columns of `attack`.
        found: the records that the chosen score added to the request, best first.
        problem: the problem with the extended request.
        models: request → unlearned model.
    """

    recall: pd.DataFrame
    relearning: pd.DataFrame
    found: list[QA]
    problem: Any
    models: dict[str, Any]

    def __repr__(self) -> str:
        return "\n".join(t.to_string(index=False, float_format=lambda x: f"{x:.2f}") for t in self._tables())

    def _repr_html_(self) -> str:
        heads = ("Left-out records found", "Relearning")
        parts = zip(heads, self._tables(), strict=True)
        return "".join(f"<p>{escape(h)}</p>{t.to_html(index=False, float_format='{:.2f}'.format)}" for h, t in parts)

    def _tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        last = self.relearning
        return self.recall, last[last["measure"] == "accuracy"] if len(last) else last


def attribution_loop(
    problem: Any,
    method: str,
    *,
    score: str = "gradient",
    share: float = 0.5,
    k: int | None = None,
    rounds: int = 1,
    seed: int = 0,
    left_out: LeftOut = "records",
    scores: Sequence[str] = (),
    **settings: Any,
) -> AttributionLoop:
    """Leave records out of a request, find them by data attribution, extend the request, unlearn, attribute again.

    Args:
        method: a text method, with its and the loop's `settings`.
        score: a name of `unlearnkit.attribution.text.data.SCORERS`. Beside it `scores` are tried, and always "words"
            and "random".
        share: of each entity's direct records that are left out (`left_out="records"`).
        k: records added to the request altogether; default as many as were left out.
        rounds: the k records are added in so many parts, each found with the request of the part before.
        left_out: "records": direct records of the request itself; "translated": the same facts in the other language;
            "derived": records of other entities that follow from forgotten facts and name no forgotten entity.

    Raises:
        UnlearnkitError: a problem of pictures; an unknown score or kind of left-out records; a number out of its range;
            nothing to leave out.
    """
    check_problem(problem)
    if problem.modality != "text":
        raise UnlearnkitError("data attribution is of language models; this problem is of pictures.")
    whole_number("seed", seed)
    whole_number("rounds", rounds, 1)
    if not 0 < share < 1:
        raise UnlearnkitError(f"share = {share!r} is not possible; give a number between 0 and 1.")
    named, hidden, others = parted(problem, left_out, share, seed)
    k = len(hidden) if k is None else whole_number("k", k, 1)
    beside = dict.fromkeys([score, *scores, *BESIDE])
    walks = {name: walk(problem, problem.model, named, [*hidden, *others], name, k, rounds, seed) for name in beside}
    rows = [row for name, ways in walks.items() for row in _recalls("original", name, ways, hidden, others, k, seed)]
    found = walks[score][-1]
    requests = {
        "half": _asking(problem, named, hidden),
        "extended": _asking(problem, [*named, *found], [qa for qa in hidden if qa not in found]),
        "full": _asking(problem, [*named, *hidden], []),
    }
    models = {name: _unlearned(asked, method, seed, settings) for name, asked in requests.items()}
    missed = [qa for qa in hidden if qa not in found]
    if missed:
        rest = [qa for qa in others if qa not in found]
        for name in beside:
            pool, more = [*missed, *rest], min(len(missed), k)
            again = walk(problem, models["extended"], [*named, *found], pool, name, more, 1, seed)
            rows += _recalls("unlearned", name, again, missed, rest, more, seed)
    return AttributionLoop(pd.DataFrame(rows), relearning(problem, models, seed), found, requests["extended"], models)


def parted(problem: Any, left_out: LeftOut, share: float, seed: int) -> tuple[list[QA], list[QA], list[QA]]:
    """(named, left out, others that are searched as well) for a kind of left-out records."""
    direct, retained = problem.direct("forget"), problem.splits["retain"]
    if left_out == "records":
        draw, hidden = np.random.default_rng(seed), []
        for entity in dict.fromkeys(qa.entity for qa in direct):
            own = [qa for qa in direct if qa.entity == entity]
            hidden += [own[i] for i in sorted(draw.permutation(len(own))[: round(share * len(own))].tolist())]
        named, others = [qa for qa in direct if qa not in hidden], problem.direct("retain")
    elif left_out == "translated":
        named, hidden = direct, list(problem.splits.get("forget_translated", []))
        others = [qa for qa in retained if qa.relation == "direct"]
    elif left_out == "derived":
        gone = {qa.entity for qa in direct}
        named = direct
        hidden = [qa for qa in problem.splits.get("forget_derived", []) if not any(_names(qa, who) for who in gone)]
        kinds = {qa.relation for qa in hidden}
        others = [qa for qa in retained if qa.relation in kinds]
    else:
        raise UnlearnkitError(f"left_out = {left_out!r} is not possible; give records, translated or derived.")
    if not named or not hidden:
        raise UnlearnkitError(f"this request has no {left_out} records that could be left out; name another.")
    return named, hidden, others


def _names(qa: QA, who: str) -> bool:
    return who in qa.question or who in qa.answer


def walk(
    problem: Any, model: Any, named: Sequence[QA], pool: Sequence[QA], score: str, k: int, rounds: int, seed: int
) -> list[list[QA]]:
    """The records taken after each round, best first; a round asks with the request as it then is."""
    taken: list[QA] = []
    ways = []
    for turn in range(1, rounds + 1):
        rest = [qa for qa in pool if qa not in taken]
        values = scored(problem, model, [*named, *taken], rest, score, seed + turn - 1)
        best = np.argsort(-values, kind="stable")[: round(turn * k / rounds) - len(taken)]
        taken = [*taken, *(rest[i] for i in best)]
        ways.append(taken)
    return ways


def _recalls(
    model: str, score: str, ways: Sequence[Sequence[QA]], hidden: Sequence[QA], others: Sequence[QA], k: int, seed: int
) -> list[dict[str, Any]]:
    """Recall after each round, with an interval over entities."""
    entities = sorted({qa.entity for qa in hidden})
    draw, rows = np.random.default_rng(seed), []
    of = np.array([entities.index(qa.entity) for qa in hidden])
    size = np.bincount(of, minlength=len(entities))
    for turn, taken in enumerate(ways, start=1):
        hit = np.array([qa in taken for qa in hidden])
        right = np.bincount(of, hit, minlength=len(entities))
        picks = draw.integers(0, len(entities), (RESAMPLES, len(entities)))
        low, high = np.percentile(right[picks].sum(1) / size[picks].sum(1), [2.5, 97.5])
        records = len(hidden) + len(others)
        rows.append({
            "round": turn, "model": model, "score": score, "recall": hit.mean(), "low": low, "high": high,
            "chance": len(taken) / records, "n": len(hidden), "k": len(taken), "records": records,
        })  # fmt: skip
    return rows


def _asking(problem: Any, forget: Sequence[QA], left: Sequence[QA]) -> Any:
    """The problem with another request; what the request leaves out is retained, as far as anybody knows."""
    gone = {qa.id for qa in forget}
    retain = [*(qa for qa in problem.splits["retain"] if qa.id not in gone), *left]
    return dataclasses.replace(
        problem, splits={**problem.splits, "forget": list(forget), "retain": retain}, measured={}
    )


def _unlearned(problem: Any, method: str, seed: int, settings: dict[str, Any]) -> Any:
    from unlearnkit.unlearning import unlearn

    return unlearn(problem, method, seed=seed, progress=False, **settings).model


def relearning(problem: Any, models: dict[str, Any], seed: int) -> pd.DataFrame:
    """The curve of the attack "relearn" on the whole request, one `request` a model, with original and oracles."""
    from unlearnkit.robustness import attack

    parts = []
    for name, model in models.items():
        curve = attack(problem, model, "relearn", seed=seed)
        parts.append(curve[curve["who"] == "unlearned"].assign(request=name))
    parts.append(curve[curve["who"] != "unlearned"].assign(request=lambda t: t["who"]))
    return pd.concat(parts, ignore_index=True)
