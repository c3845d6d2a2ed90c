"""One question–answer record, and how it is read from and written to TOFU's JSONL columns."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from unlearnkit.errors import UnlearnkitError


@dataclass(frozen=True)
class QA:
    """One fact as a question with its answer, everything that is asked about it, and what is held out.

    Attributes:
        id: unique within the world, e.g. ``"a03.birth_city"``.
        entity: whose fact it is (an author's name; ``"general"`` for world facts).
        question, answer: the canonical phrasing, trained.
        kind: type of the answer ("city", "year", …); empty when unknown.
        value: the part of `answer` that carries the fact; empty when unknown.
        phrasings: every trained phrasing, `question` first.
        paraphrased_questions: phrasings never trained on.
        paraphrased_answer: the answer in other words, never trained on.
        perturbed_answers: `paraphrased_answer` with wrong values of the same kind.
        options: `answer` with the same wrong values (so that options differ in the value only).
        language: "en" or "fr".
        relation: "direct", "derived", "reversed" or "two_hop".
        about: every entity of which the record reveals a fact.
    """

    id: str
    entity: str
    question: str
    answer: str
    kind: str = ""
    value: str = ""
    phrasings: tuple[str, ...] = ()
    paraphrased_questions: tuple[str, ...] = ()
    paraphrased_answer: str = ""
    perturbed_answers: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    language: str = "en"
    relation: str = "direct"
    about: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.phrasings:
            object.__setattr__(self, "phrasings", (self.question,))
        if not self.about:
            object.__setattr__(self, "about", (self.entity,))
