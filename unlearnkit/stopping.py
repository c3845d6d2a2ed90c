"""When to stop unlearning early: a utility guard, and the oracle's level (which practice does not have)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from unlearnkit.errors import unknown


class StopRule(Protocol):
    """Asked after every step; a reason ends the loop."""

    def ask(self, step: int, model: Any) -> str: ...


@dataclass
class UtilityGuard:
    """Stop when the problem's ability on the retain set is below `share` of the original's.

    Text: the typical probability of an answer, exp(−mean NLL). Images: 1 / denoising loss.
    """

    problem: Any
    share: float = 0.9
    every: int = 5  # steps between two looks

    def __post_init__(self) -> None:
        self.before = self.problem.ability(self.problem.model, "retain")

    def ask(self, step: int, model: Any) -> str:
        if (step + 1) % self.every:
            return ""
        share = self.problem.ability(model, "retain") / self.before
        what = self.problem.ability_name
        return f"utility guard: retain {what} at {share:.2f} of the original's" if share < self.share else ""


@dataclass
class OracleLevel:
    """Stop when the ability on the forget set is down to the oracle's."""

    problem: Any
    every: int = 5

    def __post_init__(self) -> None:
        self.level = self.problem.ability(self.problem.oracle(), "forget")

    def ask(self, step: int, model: Any) -> str:
        if (step + 1) % self.every:
            return ""
        now = self.problem.ability(model, "forget")
        reached = f"oracle level: forget {self.problem.ability_name} {now:.3f} ≤ {self.level:.3f}"
        return reached if now <= self.level else ""


RULES = {"utility_guard": UtilityGuard, "oracle_level": OracleLevel}


def stop_rules(stop: Sequence[str | StopRule], problem: Any) -> list[StopRule]:
    """Rules by name, or rules of the caller's own as they are."""
    rules: list[StopRule] = []
    for rule in [stop] if isinstance(stop, str) else stop:
        if isinstance(rule, str) and rule not in RULES:
            raise unknown("stop rule", rule, RULES)
        rules.append(RULES[rule](problem) if isinstance(rule, str) else rule)
    return rules
