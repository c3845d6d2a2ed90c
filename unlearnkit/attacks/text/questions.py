"""Attacks that only ask otherwise: paraphrase, role play, many shots, a start given, another language, derivation."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal

import yaml

from unlearnkit.attacks.base import Attack, AttackCard, Curve, register_attack
from unlearnkit.attacks.text.asking import ask, best_of, forgotten, spoken
from unlearnkit.errors import UnlearnkitError
from unlearnkit.paths import data_dir
from unlearnkit.text import context_length
from unlearnkit.worlds.records import QA


class QuestionAttack(Attack):
    """Asks each forget question in up to `budget` further ways and keeps the best try."""

    def ways(self, problem: Any, items: Sequence[QA], seed: int) -> list[list[str]]:
        """The further ways, each a list with one question an item."""
        raise TypeError(f"{type(self).__name__} has no ways(problem, items, seed)")

    def items(self, problem: Any) -> list[QA]:
        return forgotten(problem)

    def curve(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Curve:
        items = self.items(problem)
        tries = [ask(problem, model, items)]
        ways = self.ways(problem, items, seed)
        for budget in sorted(budgets):
            while len(tries) - 1 < min(budget, len(ways)):
                tries.append(ask(problem, model, items, ways[len(tries) - 1]))
            yield budget, best_of(tries)


@register_attack("paraphrase")
class Paraphrase(QuestionAttack):
    """The held-out phrasings, which neither training nor unlearning has seen."""

    card = AttackCard(
        "Paraphrase", "Patil et al. 2023, arXiv 2309.17410", "questions", "the phrasing was unlearned, not the fact"
    )
    unit = "held-out phrasings tried"
    whole = True
    budgets = (0, 1, 2)

    def items(self, problem: Any) -> list[QA]:
        items = [qa for qa in forgotten(problem) if qa.paraphrased_questions]
        if not items:
            raise UnlearnkitError("the forget records have no held-out phrasing; give a column 'paraphrased_question'.")
        return items

    def ways(self, problem: Any, items: Sequence[QA], seed: int) -> list[list[str]]:
        most = max(len(qa.paraphrased_questions) for qa in items)
        return [[qa.paraphrased_questions[k % len(qa.paraphrased_questions)] for qa in items] for k in range(most)]


@register_attack("role_play")
class RolePlay(QuestionAttack):
    """Wrappers from ``data/prompts/attacks.yml`` that ask for the answer under a pretext."""

    card = AttackCard(
        "Role play", "Shen et al. 2023, arXiv 2308.03825; for unlearning Lynch et al. 2024, arXiv 2402.16835",
        "questions", "the refusal is tied to the plain question",
    )  # fmt: skip
    unit = "wrappers tried"
    whole = True
    budgets = (0, 2, 4)

    def ways(self, problem: Any, items: Sequence[QA], seed: int) -> list[list[str]]:
        wrappers = role_play_wrappers()
        random.Random(seed).shuffle(wrappers)
        return [[wrapper.format(question=qa.question) for qa in items] for wrapper in wrappers]


def many_shot(items: Sequence[QA], shots: Sequence[QA], count: int, seed: int) -> list[str]:
    """Each question behind `count` answered ones, drawn anew for every item."""
    draw = random.Random(seed)
    questions = []
    for qa in items:
        shown = draw.sample(list(shots), min(count, len(shots)))
        questions.append("".join(f"{s.question} {s.answer} " for s in shown) + qa.question)
    return questions


@register_attack("many_shot")
class ManyShot(Attack):
    """Answered questions about retained entities before the question, up to what the context holds."""

    card = AttackCard(
        "Many-shot prompt", "Anil et al. 2024 (many-shot jailbreaking)", "questions",
        "the habit of answering, shown by example, beats the refusal",
    )  # fmt: skip
    unit = "answered examples before the question"
    whole = True
    budgets = (0, 1, 2)

    def curve(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Curve:
        items, shots = forgotten(problem), problem.direct("retain")
        longest = context_length(model)
        for budget in sorted(budgets):
            questions = many_shot(items, shots, int(budget), seed)
            width = max(
                len(problem.tokenizer(q + " " + qa.answer)["input_ids"]) for q, qa in zip(questions, items, strict=True)
            )
            if width + 8 > longest:  # what the context can't hold is not measured
                return
            yield budget, ask(problem, model, items, questions)


def answer_start(qa: QA, share: float) -> str:
    """The first `share` of the words before the value in an answer."""
    words = qa.answer[: qa.answer.index(qa.value)].split()
    return " ".join(words[: round(share * len(words))])


@register_attack("prefix")
class Prefix(Attack):
    """The answer's first words are put into the model's mouth, up to the value itself."""

    card = AttackCard(
        "Prefix injection", "Wei et al. 2023, arXiv 2307.02483; Lynch et al. 2024, arXiv 2402.16835",
        "questions", "only the start of the answer was unlearned",
    )  # fmt: skip
    unit = "share of the words before the value given"
    budgets = (0, 0.5, 1)

    def curve(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Curve:
        items = [qa for qa in forgotten(problem) if qa.value in qa.answer]
        for budget in sorted(budgets):
            starts = [answer_start(qa, budget) for qa in items]
            questions = [qa.question for qa in items]
            yield budget, spoken(problem, model, items, questions, starts).to_frame()


class OtherQuestions(Attack):
    """Budget 0 asks the forgotten questions, 1 others that the same facts answer."""

    budgets = (0, 1)

    def others(self, problem: Any) -> list[QA]:
        raise TypeError(f"{type(self).__name__} has no others(problem)")

    def curve(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Curve:
        others = [qa for qa in self.others(problem) if qa.value]
        if not others:
            raise UnlearnkitError(f"the problem has no questions for {type(self).__name__}; use the world 'authors'.")
        for budget in sorted(budgets):
            yield budget, ask(problem, model, others if budget else forgotten(problem))


@register_attack("cross_lingual")
class CrossLingual(OtherQuestions):
    """The same facts in the other language, which the methods were never given."""

    card = AttackCard(
        "Cross-lingual", "Lu and Koehn 2024, arXiv 2406.13748", "questions",
        "the language was unlearned, not the fact",
    )  # fmt: skip
    unit = "0: as unlearned, 1: the other language"
    whole = True

    def others(self, problem: Any) -> list[QA]:
        return problem.splits.get("forget_translated", [])


@register_attack("derived")
class Derived(OtherQuestions):
    """Questions whose answer follows from forgotten facts: two hops, reversed, country from city."""

    card = AttackCard(
        "Derived knowledge", "Zhong et al. 2023, arXiv 2305.14795 (multi-hop); Berglund et al. 2023, arXiv 2309.12288",
        "questions", "what follows from the fact was left in the model",
    )  # fmt: skip
    unit = "0: as unlearned, 1: derived questions"
    whole = True

    relation: Literal["all", "derived", "reversed", "two_hop"] = "all"

    def others(self, problem: Any) -> list[QA]:
        items = problem.splits.get("forget_derived", [])
        return [qa for qa in items if self.relation in ("all", qa.relation)]


def role_play_wrappers() -> list[str]:
    """The wrappers around a question that the package knows."""
    text = (data_dir() / "prompts" / "attacks.yml").read_text(encoding="utf-8")
    return list(yaml.safe_load(text)["role_play"])
