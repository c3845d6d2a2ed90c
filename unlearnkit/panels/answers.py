"""Answers side by side: ask original, unlearned and oracle the same question, greedily and by sampling; see leaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import ipywidgets as widgets
import pandas as pd
from scipy.stats import binomtest

from unlearnkit.attacks.text.asking import ANSWER_TOKENS
from unlearnkit.errors import UnlearnkitError, whole_number
from unlearnkit.metrics.measure import says
from unlearnkit.panels import html
from unlearnkit.panels.frame import LABEL, RecordPanel, check_modality, first_models
from unlearnkit.text import generate

OTHERWISE = "answers are given by language models; for images take pictures_panel."


def answers_panel(problem: Any, unlearned: Any, *, seed: int = 0) -> AnswersPanel:
    """What original, unlearned, oracle and a random change of the same size answer; what leaks is highlighted.

    Args:
        unlearned: name → what `unlearn` returned (or a model), or one of these.
        seed: of the random control and of the first sample.

    Raises:
        UnlearnkitError: nothing to show, or a problem or model of images.
    """
    check_modality(problem, "text", OTHERWISE)
    return AnswersPanel(problem, unlearned, seed)


def answers_twin(
    problem: Any, unlearned: Any, *, prompt: str | None = None, value: str | None = None, samples: int = 8,
    temperature: float = 1.0, seed: int = 0,
) -> Any:  # fmt: skip
    """What the panel shows of its first model, as HTML that stands still.

    Args:
        prompt, value: what is asked, and what must not be said; by default those of the first forget record.
        samples: answers sampled a model, beside the greedy one.

    Raises:
        UnlearnkitError: as `answers_panel`; a prompt of one's own without a value.
    """
    from IPython.display import HTML

    check_modality(problem, "text", OTHERWISE)
    whole_number("samples", samples)
    record = problem.direct("forget")[0]
    if value is None and prompt not in (None, record.question):
        raise UnlearnkitError("a prompt of your own needs a value: the words that count as a leak ('' for none).")
    models, titles = first_models(problem, unlearned, seed)
    value = record.value if value is None else value
    found = answer_table(problem, models, prompt or record.question, value, samples, temperature, seed)
    return HTML(html.page(answers_html(found, value, titles)))


def answer_table(
    problem: Any,
    models: Mapping[str, Any],
    prompt: str,
    value: str,
    samples: int = 8,
    temperature: float = 1.0,
    seed: int = 0,
    step: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """One row an answer: `who`, `sample` (0: greedy), `answer`, `leaks` (holds the value as whole words).

    The same seed for all models. Without a value nothing can leak.
    """
    if not prompt.strip():
        raise UnlearnkitError("the prompt is empty; ask something.")
    rows = []
    for who, model in models.items():
        answers = []
        for count in (0, samples) if samples else (0,):
            answers += generate(
                model, problem.tokenizer, problem.template, [prompt], ANSWER_TOKENS, 1, count, temperature, seed
            )
        rows += [(who, k, answer, bool(value) and says(answer, value)) for k, answer in enumerate(answers)]
        step()
    return pd.DataFrame(rows, columns=["who", "sample", "answer", "leaks"])


def answers_html(table: pd.DataFrame, value: str, titles: Mapping[str, str]) -> str:
    """Answers side by side, a column a model: the value highlighted, the share of leaking samples with its interval."""
    cards = {}
    for who, mine in table.groupby("who", sort=False):
        greedy, sampled = mine[mine["sample"] == 0].iloc[0], mine[mine["sample"] > 0]
        lines = [f"<p><small>greedy</small><br>{html.marked(greedy['answer'], value)}</p>"]
        if len(sampled):
            lines.append(f"<small>sampled: {_share(sampled['leaks'], value)}</small><ol>")
            lines += [f"<li>{html.marked(answer, value)}</li>" for answer in sampled["answer"]]
            lines.append("</ol>")
        cards[str(who)] = "".join(lines)
    if value:
        said = f"<mark>{escape(value)}</mark> is what must not be said; intervals: 95%, Wilson"
    else:
        said = "no value is given, so nothing counts as a leak"
    return f"<p><small>{said}</small></p>{html.columns(cards, titles)}"


def _share(leaks: pd.Series, value: str) -> str:
    if not value:
        return f"{len(leaks)} answers"
    interval = binomtest(int(leaks.sum()), len(leaks)).proportion_ci(method="wilson")
    return f"{leaks.sum()} of {len(leaks)} leak [{interval.low:.0%}, {interval.high:.0%}]"


class AnswersPanel(RecordPanel):
    """Controls: a record or a prompt of one's own, what must not be said, how many samples, and a new draw."""

    def __init__(self, problem: Any, unlearned: Any, seed: int) -> None:
        fields = {"prompt": "question", "value": "value"}
        super().__init__("Answers: original, unlearned, oracle", problem, unlearned, fields, seed)
        own = {"style": LABEL, "continuous_update": False}
        self.control("samples", widgets.IntSlider(8, 0, 32, description="samples", **own))
        self.control("temperature", widgets.FloatSlider(1.0, min=0.1, max=2.0, description="temperature", **own))
        again = widgets.Button(description="sample again", icon="refresh")
        again.on_click(self._again)
        self.controls["again"], self.draw = again, seed
        chosen, record, prompt, value, samples, temperature, _ = self.controls.values()
        rows = [[chosen, record], [prompt, value], [samples, temperature, again]]
        self.box.children = (self.head, *map(widgets.HBox, rows), self.view("answers", 420))

    def update(self) -> None:
        asked = self.texts()
        self.fill("answers", lambda: self._answers(*asked))

    def _answers(self, prompt: str, value: str) -> str:
        models, (samples, temperature) = self.models(), (self.controls[k].value for k in ("samples", "temperature"))
        found = self.once(
            ("answers", self.name, prompt, value, samples, temperature, self.draw), "answering", len(models),
            lambda step: answer_table(self.problem, models, prompt, value, samples, temperature, self.draw, step),
        )  # fmt: skip
        return answers_html(found, value, self.titles)

    def _again(self, _: Any) -> None:
        self.draw += 1
        self.update()
