"""What an image world is made of: captioned pictures with one label per domain, and requests on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from unlearnkit.errors import UnlearnkitError, unknown

SPLITS = ("forget", "retain", "neighbours", "holdout")


@dataclass(frozen=True)
class Pictures:
    """Captioned images.

    Attributes:
        images: uint8 (n, height, width, 3).
        captions: a prompt each.
        labels: domain → the concept each image shows, such as {"object": ["circle", …], "style": ["striped", …]}.
        ids: one each, unique within a world.
        made: which version of which program drew the pixels, where they follow from the ids; else empty.
    """

    images: np.ndarray
    captions: tuple[str, ...]
    labels: dict[str, tuple[str, ...]]
    ids: tuple[str, ...]
    made: str = ""

    def __post_init__(self) -> None:
        sizes = {len(self.images), len(self.captions), len(self.ids), *(len(v) for v in self.labels.values())}
        if len(sizes) != 1:
            raise UnlearnkitError(f"images, captions, labels and ids have different lengths: {sorted(sizes)}.")

    def __len__(self) -> int:
        return len(self.captions)

    def take(self, rows: Sequence[int] | np.ndarray) -> Pictures:
        """The pictures at `rows`, in that order."""
        rows = [int(i) for i in rows]
        return Pictures(
            self.images[rows],
            tuple(self.captions[i] for i in rows),
            {domain: tuple(values[i] for i in rows) for domain, values in self.labels.items()},
            tuple(self.ids[i] for i in rows),
            self.made,
        )


def together(first: Pictures, second: Pictures) -> Pictures:
    """Two collections of one world as one."""
    return Pictures(
        np.concatenate([first.images, second.images]),
        first.captions + second.captions,
        {domain: values + second.labels[domain] for domain, values in first.labels.items()},
        first.ids + second.ids,
        first.made,
    )


@dataclass(frozen=True)
class Concepts:
    """The vocabulary of an image world.

    Attributes:
        domains: domain → its concepts, such as {"object": (…), "style": (…)}.
        templates: prompts with a slot a domain, seen in training; the first is the plain one.
        held_out: templates no model was trained on.
        synonyms: concept → other words for it that occur in training captions but in no request.
        anchors: domain → the concept that takes the place of a forgotten one.
    """

    domains: dict[str, tuple[str, ...]]
    templates: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    synonyms: dict[str, tuple[str, ...]] = field(default_factory=dict)
    anchors: dict[str, str] = field(default_factory=dict)

    def domain_of(self, concept: str) -> str:
        """The domain a concept belongs to; raises UnlearnkitError when there is none."""
        for domain, concepts in self.domains.items():
            if concept in concepts:
                return domain
        if not any(self.domains.values()):
            raise UnlearnkitError(
                f"'{concept}' can't be found: these pictures have no labels; give them in a column of their own, "
                "such as 'style', or name pictures by their ids."
            )
        raise unknown("concept", concept, [c for concepts in self.domains.values() for c in concepts])

    def prompt(self, labels: dict[str, str], template: str | None = None, synonym: int | None = None) -> str:
        """The caption of a picture with these labels; with `synonym`, in other words where there are any."""
        words = {
            domain: concept
            if synonym is None or not self.synonyms.get(concept)
            else self.synonyms[concept][synonym % len(self.synonyms[concept])]
            for domain, concept in labels.items()
        }
        return article((template or self.templates[0]).format(**words))


def article(text: str) -> str:
    """ "a" before a vowel becomes "an"; a world's words carry no exceptions."""
    words = text.split(" ")
    return " ".join(
        "an" if word == "a" and after[:1].lower() in "aeiou" and after else word
        for word, after in zip(words, [*words[1:], ""], strict=True)
    )


@dataclass(frozen=True)
class ImageWorld:
    """Pictures a model is trained on, pictures none is trained on, and the concepts in them."""

    name: str
    concepts: Concepts
    trained: Pictures
    holdout: Pictures
    kind: str = "canvas"
    seed: int = 0

    def requested(self, forget: str | Sequence[str]) -> dict[str, str | tuple[str, ...]]:
        """A request as what it names.

        A concept ("striped", "circle", "seven"), a pair of concepts of different domains ("striped circle"), or the
        ids of individual images, as a list or joined by commas.

        Returns:
            domain → concept for a concept or a pair; {"images": ids} for individual images.

        Raises:
            UnlearnkitError: a word or an id the world does not have.
        """
        ids = set(self.trained.ids)
        names = [n.strip() for n in forget.split(",")] if isinstance(forget, str) else list(forget)
        if not names or not all(names):
            raise UnlearnkitError("the forget set is empty; name a concept, a pair of concepts, or image ids.")
        if all(n in ids for n in names):
            return {"images": tuple(names)}
        unseen = next((n for n in names if n in self.holdout.ids), None)
        if unseen:
            raise UnlearnkitError(
                f"the image '{unseen}' of {self.name} is held out, so no model has seen it; name trained ones, such as "
                f"'{self.trained.ids[0]}'."
            )
        if len(names) > 1:
            wrong = next(n for n in names if n not in ids)
            raise UnlearnkitError(
                f"a list of requests names images of {self.name} by id, and '{wrong}' is none; "
                f"ids look like '{self.trained.ids[0]}'."
            )
        found: dict[str, str | tuple[str, ...]] = {}
        for word in _words(names[0], self.concepts):
            domain = self.concepts.domain_of(word)
            if domain in found:
                raise UnlearnkitError(f"'{names[0]}' names two concepts of the domain {domain}; forget one at a time.")
            found[domain] = word
        if not found:
            raise UnlearnkitError(f"the request '{names[0]}' names nothing; name a concept, a pair, or image ids.")
        return found

    def split(self, forget: str | Sequence[str]) -> dict[str, Pictures]:
        """forget, retain and holdout of a request (neighbours are a matter of prompts, see `ImageProblem`).

        Raises:
            UnlearnkitError: an unknown request, or one that leaves nothing to retain.
        """
        request = self.requested(forget)
        if "images" in request:
            wanted = set(request["images"])
            chosen = np.array([i in wanted for i in self.trained.ids])
        else:
            chosen = np.ones(len(self.trained), bool)
            for domain, concept in request.items():
                chosen &= np.array([label == concept for label in self.trained.labels[domain]])
        if not chosen.any() or chosen.all():
            raise UnlearnkitError(
                f"the request '{forget}' covers {int(chosen.sum())} of {len(chosen)} images of {self.name}; "
                "it must leave some to forget and some to retain."
            )
        return {
            "forget": self.trained.take(np.flatnonzero(chosen)),
            "retain": self.trained.take(np.flatnonzero(~chosen)),
            "holdout": self.holdout,
        }


def _words(text: str, concepts: Concepts) -> list[str]:
    """The concepts a request names, whatever the case, longer ones first; any other word as it is, but for articles."""
    known = {tuple(c.lower().split()): c for values in concepts.domains.values() for c in values}
    words, found = text.split(), []
    while words:
        size = next((n for n in range(len(words), 0, -1) if tuple(w.lower() for w in words[:n]) in known), 0)
        if size:
            found.append(known[tuple(w.lower() for w in words[:size])])
        elif words[0].lower() not in ("a", "an", "the"):
            found.append(words[0])
        words = words[size or 1 :]
    return found
