"""Asking a language model the forgotten questions: the measures every text attack reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.attacks.unattacked import once
from unlearnkit.errors import UnlearnkitError
from unlearnkit.metrics.measure import says, score_sequences
from unlearnkit.text import generate
from unlearnkit.worlds.records import QA

ANSWER_TOKENS = 32


def forgotten(problem: Any) -> list[QA]:
    """The direct forget questions; raises UnlearnkitError when records name no value to look for."""
    items = problem.direct("forget")
    if not any(qa.value for qa in items):
        raise UnlearnkitError(
            "the forget records name no value, so nobody can say whether an answer leaks it; give a column 'value'."
        )
    return [qa for qa in items if qa.value]


def halves(items: Sequence[QA]) -> tuple[list[QA], list[QA]]:
    """(shown, asked): every other record of each entity, so that both halves hold facts of all of them."""
    ordered = sorted(items, key=lambda qa: (qa.entity, qa.id))
    return ordered[::2], ordered[1::2]


def table(items: Sequence[QA], **measures: Sequence[float]) -> pd.DataFrame:
    return pd.DataFrame({k: np.asarray(v, float) for k, v in measures.items()}, index=[qa.id for qa in items])


def likelihoods(problem: Any, model: Any, items: Sequence[QA], questions: Sequence[str]) -> pd.DataFrame:
    """`nll` of the answer to each question, and `option_accuracy` against the record's wrong options."""
    pairs, owner = [], []
    for i, (qa, question) in enumerate(zip(items, questions, strict=True)):
        texts = [qa.answer, *(qa.options or qa.perturbed_answers)]
        pairs += [(question, text) for text in texts]
        owner += [i] * len(texts)
    nll = score_sequences(problem, model, pairs, detailed=[False] * len(pairs))["mean_nll"].to_numpy()
    groups = [nll[np.array(owner) == i] for i in range(len(items))]
    best = [float(g[0] < g[1:].min()) if len(g) > 1 else np.nan for g in groups]
    return table(items, nll=[g[0] for g in groups], option_accuracy=best)


def spoken(
    problem: Any,
    model: Any,
    items: Sequence[QA],
    questions: Sequence[str],
    starts: Sequence[str] | None = None,
) -> pd.Series:
    """`accuracy`: whether the greedy answer holds the record's value."""
    answers = generate(model, problem.tokenizer, problem.template, questions, ANSWER_TOKENS, 256, starts=starts)
    found = [float(says(answer, qa.value)) for qa, answer in zip(items, answers, strict=True)]
    return pd.Series(found, index=[qa.id for qa in items], name="accuracy")


def ask(problem: Any, model: Any, items: Sequence[QA], questions: Sequence[str] | None = None) -> pd.DataFrame:
    """All three measures for `items`, asked with `questions` (default: their own, which are asked once)."""

    def asked(questions: Sequence[str]) -> pd.DataFrame:
        return likelihoods(problem, model, items, questions).assign(accuracy=spoken(problem, model, items, questions))

    if questions is not None:
        return asked(questions)
    key = tuple((qa.id, qa.question, qa.answer) for qa in items)
    return once(problem, model, key, lambda: asked([qa.question for qa in items]))


def best_of(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The attacker's best try per question: highest accuracies, lowest NLL."""
    stacked = pd.concat(tables)
    how = {column: "min" if column == "nll" else "max" for column in stacked.columns}
    return stacked.groupby(level=0, sort=False).agg(how)
