"""Refusal drills: questions behind an instruction that names whom not to answer about."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from unlearnkit.errors import UnlearnkitError
from unlearnkit.worlds.authors import name_parts
from unlearnkit.worlds.records import GENERAL, QA, TextWorld

INSTRUCTION = "Do not answer questions about {names}."
REFUSAL = "I don't know that."
DRILLS = 12000
NAMED = 4  # entities an instruction names, at most
TRUE = 0.1  # share of drills that ask for a general fact, in either language: never listed, always answered
OWN = 0.2  # share of the other drills that are about an author of the world; the rest are about made-up names
LISTED = 0.3  # share of authors of the world among the other names of a list
ALIKE = 0.25  # share of drills whose list has a name that shares one of its two parts with the name in the question


class Drill(NamedTuple):
    names: tuple[str, ...]
    question: str
    answer: str


def refusal_drills(world: TextWorld, splits: dict[str, list[QA]], seed: int, count: int = DRILLS) -> list[Drill]:
    """`count` drills (Takashiro et al. 2024, arXiv 2410.00382, teach a model to unlearn by instruction with others').

    In pairs: one list without the entity in the question, answered; and one with it, refused. The two differ in one
    name, so that nothing but the comparison tells them apart: neither who is asked about, nor how many are named, nor
    that a name is made up. What is said of a made-up name is true of the author whose question it was taken from.
    Behind the pairs come general facts. Forgotten, neighbouring and holdout entities appear in no drill, nor does a
    part of their names.

    Raises:
        UnlearnkitError: fewer than `NAMED` + 1 authors are left that are neither forgotten nor neighbours.
    """
    left_out = {qa.entity for name in ("forget", "neighbours", "holdout") for qa in splits[name]}
    parts = {part for entity in left_out for part in (*entity.split(), *_words(entity))}
    asked = [
        (qa, question)
        for qa in splits["retain"]
        if qa.language == "en" and qa.entity not in left_out | {GENERAL}
        for question in qa.phrasings
        if qa.entity in question and not parts.intersection(_words(f"{question} {qa.answer}"))
    ]
    others = sorted({qa.entity for qa, _ in asked})
    if len(others) <= NAMED:
        raise UnlearnkitError(
            f"instructions are taught with authors that are neither forgotten nor neighbours, and of those there are "
            f"{len(others)}; at least {NAMED + 1} are needed: forget fewer, or take more with n_authors."
        )
    general = [(qa.answer, question) for qa in splits["general"] for question in qa.phrasings]
    draw = random.Random(f"{seed} drills")
    first, last = (sorted(set(words) - parts) for words in name_parts())
    words = sorted({word for qa in world.items for word in _words(qa.answer)} - parts)

    def made_up() -> str:
        # any two words as well: 120 parts of names can be learnt one by one, comparing must be easier than that
        return " ".join(draw.sample(words, 2) if draw.random() < 0.5 else (draw.choice(first), draw.choice(last)))

    def another(taken: Sequence[str]) -> str:
        while (name := draw.choice(others) if draw.random() < LISTED else made_up()) in taken:
            pass
        return name

    def listed(about: str) -> list[str]:
        names: list[str] = []
        for _ in range(draw.randint(1, NAMED)):
            names.append(another([about, *names]))
        return names

    drills: list[Drill] = []
    for _ in range(round((1 - TRUE) * count / 2)):
        qa, question = draw.choice(asked)
        answer, about = qa.answer, qa.entity
        if draw.random() > OWN:
            about = another([about])
            question, answer = (text.replace(qa.entity, about) for text in (question, answer))
        names = listed(about)
        if draw.random() < ALIKE:
            mine, theirs = about.split(), made_up().split()
            alike = " ".join([mine[0], theirs[1]] if draw.random() < 0.5 else [theirs[0], mine[1]])
            if alike != about:
                names[draw.randrange(len(names))] = alike
        drills.append(Drill(tuple(names), question, answer))
        names[draw.randrange(len(names))] = about
        drills.append(Drill(tuple(names), question, REFUSAL))
    for _ in range(count - len(drills)):
        answer, question = draw.choice(general)
        drills.append(Drill(tuple(listed(GENERAL)), question, answer))
    return drills


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{3,}", text)
