"""When to stop unlearning early: a utility guard, and the oracle's level (which practice does not have)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from unlearnkit.errors import unknown
from unlearnkit.text import answer_tokens, by_length, collate, context_length, encode, pad_id

PROBE = 64  # records a probe reads


class StopRule(Protocol):
    """Asked after every step; a reason ends the loop."""

    def ask(self, step: int, model: Any) -> str: ...


@torch.inference_mode()
def mean_nll(problem: Any, model: Any, split: str) -> float:
    """Mean per-token answer NLL over at most `PROBE` questions of a split, nats a token."""
    pairs = [(qa.question, qa.answer) for qa in (problem.direct(split) or problem.splits[split])[:PROBE]]
    encoded = encode(problem.tokenizer, problem.template, pairs, context_length(model))
    was_training = model.training
    model.eval()
    total = 0.0
    for rows in by_length(encoded, PROBE):
        (tokens,) = answer_tokens(model, collate(encoded, rows, pad_id(problem.tokenizer)).to(problem.device))
        total += float((tokens.nll / tokens.lengths).sum())
    model.train(was_training)
    return total / len(encoded)


@dataclass
class UtilityGuard:
    """Stop when the typical probability of a retain answer, exp(−mean NLL), is below `share` of the original's."""

    problem: Any
    share: float = 0.9
    every: int = 5  # steps between two looks

    def __post_init__(self) -> None:
        self.before = mean_nll(self.problem, self.problem.model, "retain")

    def ask(self, step: int, model: Any) -> str:
        if (step + 1) % self.every:
            return ""
        share = float(torch.tensor(self.before - mean_nll(self.problem, model, "retain")).exp())
        return f"utility guard: retain probability at {share:.2f} of the original's" if share < self.share else ""


@dataclass
class OracleLevel:
    """Stop when the forget answers are as unlikely as they are to the oracle."""

    problem: Any
    every: int = 5

    def __post_init__(self) -> None:
        self.level = mean_nll(self.problem, self.problem.oracle(), "forget")

    def ask(self, step: int, model: Any) -> str:
        if (step + 1) % self.every:
            return ""
        nll = mean_nll(self.problem, model, "forget")
        return f"oracle level: forget NLL {nll:.2f} ≥ {self.level:.2f}" if nll >= self.level else ""


RULES = {"utility_guard": UtilityGuard, "oracle_level": OracleLevel}


def stop_rules(stop: Sequence[str | StopRule], problem: Any) -> list[StopRule]:
    """Rules by name, or rules of the caller's own as they are."""
    rules: list[StopRule] = []
    for rule in [stop] if isinstance(stop, str) else stop:
        if isinstance(rule, str) and rule not in RULES:
            raise unknown("stop rule", rule, RULES)
        rules.append(RULES[rule](problem) if isinstance(rule, str) else rule)
    return rules
