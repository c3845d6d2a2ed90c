"""A forget request on a language model: splits, the original model, and the models that never saw the forget set."""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass, field
from typing import Any

import torch

from unlearnkit.data import TextData
from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.load import device_of
from unlearnkit.models.source import ModelSource
from unlearnkit.modes import at_rest
from unlearnkit.text import Template, answer_tokens, by_length, collate, context_length, encode, pad_id, template_of
from unlearnkit.worlds.records import QA

PROBE = 64  # records a probe reads


@dataclass
class TextProblem:
    """A forget request on a language model.

    Attributes:
        splits: name → records. A method is given `forget` and `retain` only; `neighbours`, `general`,
            `forget_derived` and `forget_translated` are trained in the original and measure side effects;
            `holdout` is never trained.
        original: source of the model to unlearn from.
        oracles: sources of models retrained without the forgotten records (different seeds); may be empty.
        values: kind of answer → all values it takes in this world.
        normalised: splits whose probability is p/(p + Σ wrong), TOFU's convention for real-world questions.
    """

    name: str
    request: str
    seed: int
    splits: dict[str, list[QA]]
    tokenizer: Any
    original: ModelSource
    oracles: list[ModelSource]
    values: dict[str, list[str]] = field(default_factory=dict)
    normalised: frozenset[str] = frozenset({"general", "real_authors", "world_facts"})
    device: torch.device = field(default_factory=device_of)
    modality: str = "text"
    ability_name: str = "probability"
    measured: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_splits(self.splits)

    @property
    def model(self) -> Any:
        """The original model. Shared: `unlearn` works on a copy."""
        return self.original.get()

    @property
    def template(self) -> Template:
        return template_of(self.tokenizer)

    def oracle(self, index: int = 0) -> Any:
        """One of the retrained models; raises when there is none."""
        if not -len(self.oracles) <= index < len(self.oracles):
            raise UnlearnkitError(
                f"oracle {index} was asked for, this problem has {len(self.oracles)}; "
                "give retrained models with load_problem(..., oracles=[...])."
            )
        return self.oracles[index].get()

    def pairs(self, name: str) -> list[tuple[str, str]]:
        """Every trained phrasing of a split with its answer: what a method is given."""
        return [(q, qa.answer) for qa in self.splits[name] for q in qa.phrasings]

    def direct(self, name: str) -> list[QA]:
        """The split's direct questions in the request's own language: what the headline metrics ask."""
        return [qa for qa in self.splits.get(name, []) if qa.primary]

    def training_data(self, method: Any, model: Any, loop: Any, seed: int) -> TextData:
        """What the loop draws from: every trained phrasing of forget and retain, and the method's own views."""
        views = {"forget": self.pairs("forget"), "retain": self.pairs("retain"), **method.views(self, seed)}
        longest = context_length(model)
        encoded = {view: encode(self.tokenizer, self.template, pairs, longest) for view, pairs in views.items()}
        return TextData(encoded, pad_id(self.tokenizer), self.device, loop.batch_size, random.Random(seed))

    @torch.inference_mode()
    def mean_nll(self, model: Any, split: str) -> float:
        """Mean per-token answer NLL over at most `PROBE` questions of a split, nats a token."""
        pairs = [(qa.question, qa.answer) for qa in (self.direct(split) or self.splits[split])[:PROBE]]
        encoded = encode(self.tokenizer, self.template, pairs, context_length(model))
        total = 0.0
        with at_rest(model):
            for rows in by_length(encoded, PROBE):
                (tokens,) = answer_tokens(model, collate(encoded, rows, pad_id(self.tokenizer)).to(self.device))
                total += float((tokens.nll / tokens.lengths).sum())
        return total / len(encoded)

    def ability(self, model: Any, split: str) -> float:
        """Typical probability of an answer, exp(−mean NLL): higher knows more."""
        return math.exp(-self.mean_nll(model, split))

    @property
    def digest(self) -> str:
        """Identifies request, records and models (by source name)."""
        parts = [self.name, self.request, str(self.seed), self.original.name, *(o.name for o in self.oracles)]
        parts += [f"{name}:{qa.id}:{qa.question}:{qa.answer}" for name, items in self.splits.items() for qa in items]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(items)}" for name, items in self.splits.items() if items)
        return f"TextProblem({self.name}/{self.request}, seed {self.seed}; {sizes}; {len(self.oracles)} oracles)"


def check_splits(splits: dict[str, list[QA]]) -> None:
    """Raises UnlearnkitError when forget or retain is empty, or when two trained splits share a question."""
    for name in ("forget", "retain"):
        if not splits.get(name):
            raise UnlearnkitError(f"the {name} set is empty; name at least one record to {name}.")
    forget = {(qa.question, qa.answer) for qa in splits["forget"]}
    shared = [qa for qa in splits["retain"] if (qa.question, qa.answer) in forget]
    if shared:
        raise UnlearnkitError(
            f"forget and retain overlap in {len(shared)} records, the first is '{shared[0].question}'; "
            "take them out of one of the two."
        )
