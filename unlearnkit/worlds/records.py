"""One question–answer record, and a world of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

GENERAL = "general"  # entity of the facts that are true of the real world


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
        sources: ids of the direct facts it is a translation of or follows from; empty for those themselves.
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
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.phrasings:
            object.__setattr__(self, "phrasings", (self.question,))

    @property
    def primary(self) -> bool:
        """Whether it is a fact of its own, in the world's first language."""
        return self.relation == "direct" and not self.sources


@dataclass(frozen=True)
class TextWorld:
    """Everything that can be asked in a world, and what can be requested to be forgotten.

    Attributes:
        items: all records, those of holdout entities and general facts included.
        entities: names of the entities a model of this world is trained on.
        holdout_entities: names of entities no model is ever trained on.
        requests: named forget requests → entities, e.g. ``{"forget01": ("Selma Varga",)}``.
        links: pairs of entities that are related (mentor, co-author, …).
    """

    name: str
    items: tuple[QA, ...]
    entities: tuple[str, ...]
    holdout_entities: tuple[str, ...] = ()
    requests: dict[str, tuple[str, ...]] = field(default_factory=dict)
    links: frozenset[tuple[str, str]] = frozenset()

    def digest(self) -> str:
        """sha256 over all records, 16 hex digits."""
        return digest_of_records(self.items)

    def of(self, entities: Iterable[str]) -> list[QA]:
        """All records of some entities, in the world's order."""
        wanted = set(entities)
        return [qa for qa in self.items if qa.entity in wanted]


def digest_of_records(items: Iterable[QA]) -> str:
    """sha256 over the canonical JSON of records, 16 hex digits."""
    rows = [asdict(qa) for qa in items]
    return hashlib.sha256(json.dumps(rows, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]
