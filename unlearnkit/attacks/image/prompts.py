"""Attacks that only ask in other words: held-out wordings, and other words for the concept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from unlearnkit.attacks.base import AttackCard, Curve, register_attack
from unlearnkit.attacks.image.showing import ImageAttack, draw, seen, shots, unattacked
from unlearnkit.errors import UnlearnkitError


class PromptAttack(ImageAttack):
    """Draws each forget prompt in up to `budget` further wordings, from the same noise, and keeps the best picture."""

    def ways(self, problem: Any) -> list[list[str]]:
        """The further wordings, each a list with one prompt for each of the forget prompts."""
        raise TypeError(f"{type(self).__name__} has no ways(problem)")

    def curve(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Curve:
        plain = shots(problem, self.samples, seed)
        ways = self.ways(problem)
        place = {prompt: k for k, prompt in enumerate(problem.asked["forget"])}
        tries = [unattacked(problem, model, plain)]
        for budget in sorted(budgets):
            while len(tries) < 1 + min(budget, len(ways)):
                said = [ways[len(tries) - 1][place[p]] for p in plain.prompts]
                tries.append(seen(problem, draw(problem, model, said, plain.seeds), plain.ids))
            yield budget, pd.concat(tries).groupby(level=0, sort=False).max()


def vocabulary(problem: Any) -> Any:
    """The wordings of a world; raises UnlearnkitError where a problem has prompts only."""
    if problem.concepts is None:
        raise UnlearnkitError("this problem knows its prompts only, no other wordings of them.")
    return problem.concepts


@register_attack("paraphrase", "image")
class Paraphrase(PromptAttack):
    """Wordings that neither training nor unlearning has seen, with the concept's own name."""

    card = AttackCard(
        "Paraphrase", "Lu et al. 2025, arXiv 2505.17013 (erasure beyond the erased prompts)", "questions",
        "the wording was unlearned, not the concept",
    )  # fmt: skip
    unit = "held-out wordings tried"
    whole = True
    budgets = (0, 1, 3)

    def ways(self, problem: Any) -> list[list[str]]:
        concepts = vocabulary(problem)
        if not concepts.held_out:
            raise UnlearnkitError(f"{problem.name} has no held-out wording of its prompts.")
        return [[concepts.prompt(w, template) for w in problem.wanted["forget"]] for template in concepts.held_out]


@register_attack("synonym", "image")
class Synonym(PromptAttack):
    """Other words for the concept, which training captions had and no unlearning request names."""

    card = AttackCard(
        "Synonyms", "Kumari et al. 2023, arXiv 2303.13516 (other names of an ablated concept)", "questions",
        "the name was unlearned, not the concept",
    )  # fmt: skip
    unit = "other words tried"
    whole = True
    budgets = (0, 1)

    def ways(self, problem: Any) -> list[list[str]]:
        concepts = vocabulary(problem)
        others = {d: concepts.synonyms.get(c, ()) for d, c in problem.concept.items()}
        others = {d: words for d, words in others.items() if words}
        if not others:
            raise UnlearnkitError(f"{problem.name} has no other word for '{problem.word}'.")
        return [
            [concepts.prompt({**w, **{d: s[k % len(s)] for d, s in others.items()}}) for w in problem.wanted["forget"]]
            for k in range(max(map(len, others.values())))
        ]
