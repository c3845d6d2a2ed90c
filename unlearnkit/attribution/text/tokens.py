"""Token attribution: which tokens of a question the log-probability of an answer hangs on, by captum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from captum.attr import FeatureAblation, LayerGradientXActivation, LayerIntegratedGradients, ShapleyValueSampling
from pydantic import Field
from scipy.stats import spearmanr
from torch import Tensor

from unlearnkit.attribution.base import View, ViewCard, register_view
from unlearnkit.errors import UnlearnkitError
from unlearnkit.text import context_length, encode, pad_id, widen

COMPLETE = 1e-4  # largest gap of integrated gradients, as a share of f(x) − f(baseline)
MOST_STEPS = 2048


@dataclass(frozen=True)
class Question:
    """A question and its answer as token ids: template, question, template, answer; only the question is attributed."""

    before: Tensor  # (a,) ids
    question: Tensor  # (q,)
    after: Tensor  # (b,)
    answer: Tensor  # (c,)
    baseline: int  # the id that stands for "nothing said"

    def whole(self, question: Tensor) -> Tensor:
        """Ids of prompt and answer with other questions: (n, q) → (n, a + q + b + c)."""
        parts = (self.before, question, self.after, self.answer)
        return torch.cat([p.expand(len(question), -1) for p in parts], 1)


def question_of(problem: Any, model: Any, prompt: str, target: str) -> Question:
    """A question and an answer encoded; raises UnlearnkitError when they don't fit the context."""
    (coded,) = encode(problem.tokenizer, problem.template, [(prompt, target)], context_length(model))
    (empty,) = encode(problem.tokenizer, problem.template, [("", target)], context_length(model))
    ids, rest = coded.ids[: coded.start], empty.ids[: empty.start]
    first = next((k for k, (a, b) in enumerate(zip(ids, rest, strict=False)) if a != b), len(rest))
    last = len(rest) - first  # template tokens behind the question, as far as both agree
    while last and ids[-last:] != rest[len(rest) - last :]:
        last -= 1
    if len(ids) - first - last < 1:
        raise UnlearnkitError("the prompt has no tokens of its own; give a question.")
    cut = len(ids) - last
    before, question, after, answer = (
        torch.tensor(piece, dtype=torch.long, device=problem.device)
        for piece in (ids[:first], ids[first:cut], ids[cut:], coded.ids[coded.start :])
    )
    return Question(before, question, after, answer, pad_id(problem.tokenizer))


def answer_log_probability(model: Any, asked: Question) -> Callable[[Tensor], Tensor]:
    """f(question ids (n, q)) = log p(answer | question), summed over its tokens: (n,), nats."""

    def f(question: Tensor) -> Tensor:
        ids = asked.whole(question)
        size = len(asked.answer)
        logits = model(input_ids=ids, use_cache=False).logits[:, -size - 1 : -1]  # (n, c, vocabulary)
        logp = widen(logits).log_softmax(-1).gather(2, ids[:, -size:, None])
        return logp[:, :, 0].sum(1)

    return f


def integrated_gradients(model: Any, asked: Question, steps: int) -> tuple[Tensor, float, int]:
    """(attribution of each question token, completeness gap, steps): steps are doubled until the gap is ≤ `COMPLETE`.

    The path is that of the embeddings, from the pad token's to the question's (arXiv 1703.01365, eq. 1).
    """
    f, ids = answer_log_probability(model, asked), asked.question[None]
    blank = torch.full_like(ids, asked.baseline)
    with torch.no_grad():
        difference = float(f(ids) - f(blank))
    start, before = len(asked.before), float("inf")
    while True:
        explained = LayerIntegratedGradients(f, model.get_input_embeddings()).attribute(
            ids, baselines=blank, n_steps=steps, internal_batch_size=64
        )  # (1, tokens, width)
        found = explained.detach()[0].sum(-1)[start : start + ids.shape[1]]
        gap = abs(float(found.double().sum()) - difference) / max(abs(difference), 1e-12)
        settled = abs(gap - before) <= 0.01 * gap  # not the sum over steps is wrong: tokens of the template count too
        if gap <= COMPLETE or settled or 2 * steps > MOST_STEPS:
            return found, gap, steps
        steps, before = 2 * steps, gap


@register_view("tokens")
class Tokens(View):
    """Attribution of each question token for a fixed answer, the same answer for all models.

    Measures: `attribution` (nats); of integrated gradients also `completeness` (the gap, as a share) at place −1.
    """

    card = ViewCard(
        "Token attribution",
        "captum; Sundararajan et al. 2017, arXiv 1703.01365; Strumbelj and Kononenko 2010",
        "a model that forgot has no reason to look at the name asked about; one that only hides still does",
    )

    method: Literal["ablation", "shapley", "integrated_gradients", "gradient_x_activation"] = "integrated_gradients"
    prompt: str | None = None  # by default the first forget question
    target: str | None = None  # by default its answer
    steps: int = Field(64, ge=2)  # of integrated gradients, at first
    samples: int = Field(25, ge=1)  # permutations of Shapley sampling

    def rows(self, problem: Any, models: Mapping[str, Any], seed: int) -> pd.DataFrame:
        record = problem.direct("forget")[0]
        prompt = record.question if self.prompt is None else self.prompt
        if self.target is None and self.prompt not in (None, record.question):
            raise UnlearnkitError("a prompt of your own needs a target: the answer whose probability is explained.")
        target = record.answer if self.target is None else self.target
        rows = []
        for who, model in models.items():
            asked = question_of(problem, model, prompt, target)
            values, extra = self._explained(model, asked, seed)
            labels = [problem.tokenizer.decode([int(i)]) for i in asked.question]
            rows += [
                {"who": who, "item": prompt, "place": k, "label": label, "measure": "attribution", "value": float(v)}
                for k, (label, v) in enumerate(zip(labels, values, strict=True))
            ]
            rows += [{"who": who, "item": prompt, "place": -1, "label": "", "measure": m, "value": v} for m, v in extra]
        return pd.DataFrame(rows)

    def _explained(self, model: Any, asked: Question, seed: int) -> tuple[Tensor, list[tuple[str, float]]]:
        f, ids = answer_log_probability(model, asked), asked.question[None]
        if self.method == "integrated_gradients":
            values, gap, steps = integrated_gradients(model, asked, self.steps)
            return values, [("completeness", gap), ("steps", float(steps))]
        if self.method == "gradient_x_activation":
            start = len(asked.before)
            whole = LayerGradientXActivation(f, model.get_input_embeddings()).attribute(ids)  # (1, tokens, width)
            return whole.detach()[0].sum(-1)[start : start + ids.shape[1]], []
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(seed)
            if self.method == "ablation":
                found = FeatureAblation(f).attribute(ids, baselines=asked.baseline, perturbations_per_eval=64)
            else:
                found = ShapleyValueSampling(f).attribute(
                    ids, baselines=asked.baseline, n_samples=self.samples, perturbations_per_eval=64
                )
        return found[0], []


def attribution_shift(table: pd.DataFrame) -> pd.DataFrame:
    """How far the token attribution of each model is from the original's and from the oracle's.

    `rank` is 1 − Spearman's correlation; `mass` half the L1 distance of the attributions' shares of their absolute sum
    (0 the same, 1 nothing in common). One row a pair, index (who, against).
    """
    wide = table[table["measure"] == "attribution"].pivot(index="place", columns="who", values="value")
    rows = []
    for against in ("original", "oracle"):
        for who in wide.columns:
            if who == against or against not in wide:
                continue
            a, b = wide[who].to_numpy(), wide[against].to_numpy()
            rank = 1 - float(spearmanr(a, b).statistic) if min(np.ptp(a), np.ptp(b)) > 0 else np.nan
            shares = [x / max(np.abs(x).sum(), 1e-12) for x in (a, b)]
            rows.append((who, against, rank, float(np.abs(shares[0] - shares[1]).sum() / 2)))
    return pd.DataFrame(rows, columns=["who", "against", "rank", "mass"]).set_index(["who", "against"])
