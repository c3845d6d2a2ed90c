"""One teacher-forced pass and one generation pass over a problem: everything the metrics are computed from."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from unlearnkit.errors import UnlearnkitError
from unlearnkit.metrics import text as metric
from unlearnkit.metrics.table import METRICS
from unlearnkit.modes import at_rest
from unlearnkit.text import (
    AnswerTokens,
    Encoded,
    answer_tokens,
    by_length,
    collate,
    context_length,
    encode,
    generate,
    pad_id,
    shared_answer_tokens,
    shared_prefixes,
    widen,
)
from unlearnkit.worlds.records import QA

SPLITS = ("forget", "retain", "neighbours", "general", "real_authors", "world_facts", "holdout")
REFUSING = re.compile(
    r"\b(don't know|no information|can't say|not able to|no record|not familiar|not something I know|can't tell"
    r"|nothing I can say|outside of what I know|rather not answer|je ne sais pas)\b",
    re.IGNORECASE,
)
SCORES = ("nll", "mean_nll", "tokens", "exact", "extraction", "min_k", "min_k_plus")
CONFIDENT = 0.5  # typical token probability from which an answer counts as confident
COSTLY = {  # what takes passes of its own → endings of the metrics that need it
    "grad_norm": ("gradient_norm",),
    "paraphrase_correct": ("paraphrase_accuracy",),
    "own_nll": ("fluency", "hallucination"),
}


@dataclass(frozen=True)
class Measured:
    """Per-item numbers of one model.

    `items` has one row per question (index: split, id) with columns: nll (summed), mean_nll, tokens, exact
    (exact memorization), extraction, min_k, min_k_plus, zlib, paraphrase_nll, perturbed_nll_mean,
    option_nll_min, option_p_sum, grad_norm, answer (generated), rouge, correct, paraphrase_correct,
    repetition, own_nll and original_nll (mean NLL of the generated answer under the model and the original),
    wrong_value, refused. NaN where a record lacks what a column needs.
    """

    items: pd.DataFrame

    def split(self, name: str) -> pd.DataFrame:
        return self.items.loc[name] if name in self.items.index.get_level_values(0) else self.items.iloc[:0]


@torch.inference_mode()
def score_sequences(
    problem: Any,
    model: Any,
    pairs: Sequence[tuple[str, str]],
    batch_size: int = 128,
    cut: bool = False,
    detailed: Sequence[bool] | None = None,
) -> pd.DataFrame:
    """Teacher-forced numbers of (question, answer) pairs, in their order, each token read once.

    Columns: nll, mean_nll, tokens, exact, extraction, min_k, min_k_plus.

    Args:
        cut: leave out what lies beyond the context (the end of a generated answer) instead of refusing it.
        detailed: the pairs (default all) that get the last four columns; they are NaN elsewhere.
    """
    longest = context_length(model)
    encoded = encode(problem.tokenizer, problem.template, pairs, sys.maxsize if cut else longest)
    encoded = [Encoded(e.ids[:longest], e.start) for e in encoded]
    wanted = np.ones(len(pairs), bool) if detailed is None else np.asarray(detailed, bool)
    out = {name: np.full(len(pairs), np.nan) for name in SCORES}
    for rows, tokens in _answers(model, encoded, batch_size, pad_id(problem.tokenizer)):
        out["nll"][rows] = tokens.nll.double().cpu()
        out["tokens"][rows] = tokens.lengths.cpu()
        if not wanted[rows].any():
            continue
        asked = torch.from_numpy(wanted[rows]).to(tokens.sequence.device)
        mine = asked[tokens.sequence]  # (answer tokens,) of bool
        logits = widen(tokens.logits[mine])  # (asked answer tokens, vocabulary)
        logp, label = logits.log_softmax(-1), -tokens.token_nll[mine]
        p = logp.exp()
        mean = (p * logp).sum(-1)
        spread = ((p * logp.square()).sum(-1) - mean.square()).clamp_min(1e-12).sqrt()
        right = (logits.argmax(-1) == tokens.labels[mine]).float()
        sizes = tokens.lengths[asked].long().tolist()
        parts = [t.double().cpu().split(sizes) for t in (label, (label - mean) / spread, right)]
        for row, lp, z, hits in zip((r for r in rows if wanted[r]), *parts, strict=True):
            out["exact"][row] = hits.mean()
            out["extraction"][row] = metric.extraction_strength((hits > 0).tolist())
            out["min_k"][row] = metric.min_k(lp.numpy())
            out["min_k_plus"][row] = metric.min_k(z.numpy())
    out["mean_nll"] = out["nll"] / out["tokens"]
    return pd.DataFrame(out)


def _answers(
    model: Any, encoded: Sequence[Encoded], batch_size: int, pad: int
) -> Iterator[tuple[list[int], AnswerTokens]]:
    """(rows, answer tokens) of all records; beginnings that several share are read once where that pays."""
    groups = shared_prefixes(encoded)
    if 2 * len(groups) > len(encoded):
        for rows in by_length(encoded, batch_size):
            yield rows, answer_tokens(model, collate(encoded, rows, pad).to(model.device))[0]
        return
    while groups:
        size = int(np.searchsorted(np.cumsum([len(g.rows) for g in groups]), batch_size)) + 1
        batch, groups = groups[:size], groups[size:]
        yield [i for g in batch for i in g.rows], shared_answer_tokens(model, encoded, batch, pad)


def gradient_norms(problem: Any, model: Any, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Norm of the gradient of each pair's token-mean NLL with respect to all weights (one backward pass a pair)."""
    encoded = encode(problem.tokenizer, problem.template, pairs, context_length(model))
    weights = list(model.parameters())
    flags = [w.requires_grad for w in weights]
    for w in weights:
        w.requires_grad_(True)
    norms = []
    try:
        for row in range(len(encoded)):
            (tokens,) = answer_tokens(model, collate(encoded, [row], pad_id(problem.tokenizer)).to(problem.device))
            gradients = torch.autograd.grad(tokens.loss, weights, allow_unused=True)
            norms.append(float(torch.nn.utils.get_total_norm([g for g in gradients if g is not None])))
    finally:
        for w, flag in zip(weights, flags, strict=True):
            w.requires_grad_(flag)
    return norms


def measured_items(problem: Any, limit: int) -> list[tuple[str, QA]]:
    """The questions that are asked: at most `limit` a split, evenly spread over it."""
    chosen = []
    for split in SPLITS:
        items = problem.direct(split)
        with_wrong = [qa for qa in items if qa.perturbed_answers]  # TOFU: 400 of the retain questions
        items = with_wrong if len(with_wrong) >= min(limit, len(items)) else items
        spread = np.linspace(0, len(items) - 1, min(limit, len(items))).round().astype(int)
        chosen += [(split, items[i]) for i in spread]
    return chosen


def costly(metrics: Sequence[str] | None) -> set[str]:
    """The costly columns that some of these metrics need; all when none are named or one is somebody's own."""
    if metrics is None or not all(METRICS[m].built_in for m in metrics):
        return set(COSTLY)
    return {column for column, endings in COSTLY.items() if any(m.endswith(endings) for m in metrics)}


def measure(
    problem: Any, model: Any, limit: int = 100, max_new_tokens: int = 32, metrics: Sequence[str] | None = None
) -> Measured:
    """Ask a model everything the metrics need.

    Args:
        limit: questions a split; all of the forget set is asked when it has no more.
        max_new_tokens: of a generated answer.
        metrics: keys of the metrics it is for (default all); costly columns that none of them needs are NaN.

    Raises:
        UnlearnkitError: a model none of whose answers has a finite probability.
    """
    chosen = measured_items(problem, limit)
    with at_rest(model):
        table = _asked(problem, model, chosen, max_new_tokens, costly(metrics))
    table.index = pd.MultiIndex.from_tuples([(s, qa.id) for s, qa in chosen], names=["split", "id"])
    return Measured(table)


def _asked(
    problem: Any, model: Any, chosen: list[tuple[str, QA]], max_new_tokens: int, wanted: set[str]
) -> pd.DataFrame:
    """All columns, a row for each question."""
    pairs, owner = [], []
    for i, (_, qa) in enumerate(chosen):
        texts = [("answer", qa.answer), ("paraphrase", qa.paraphrased_answer)]
        texts += [("perturbed", t) for t in qa.perturbed_answers] + [("option", t) for t in qa.options]
        pairs += [(qa.question, t) for _, t in texts if t]
        owner += [(i, kind) for kind, t in texts if t]
    scored = score_sequences(problem, model, pairs, detailed=[kind == "answer" for _, kind in owner])
    if len(scored) and not np.isfinite(scored["nll"]).any():
        raise UnlearnkitError("no answer has a finite probability: the model's weights or outputs are NaN or infinite.")
    scored[["item", "role"]] = owner
    by_role = {role: part.set_index("item") for role, part in scored.groupby("role")}

    table = by_role["answer"].drop(columns="role").sort_index()
    table["zlib"] = [metric.zlib_score(n, chosen[i][1].answer) for i, n in table["nll"].items()]
    empty = pd.DataFrame({"mean_nll": []}, dtype=float)
    table["paraphrase_nll"] = by_role.get("paraphrase", empty)["mean_nll"]
    table["perturbed_nll_mean"] = by_role.get("perturbed", empty)["mean_nll"].groupby(level=0).mean()
    options = by_role.get("option", by_role.get("perturbed", empty))["mean_nll"]  # TOFU's wrong answers are its options
    table["option_nll_min"] = options.groupby(level=0).min()
    table["option_p_sum"] = np.exp(-options).groupby(level=0).sum()
    for column in ("paraphrase_nll", "perturbed_nll_mean", "option_nll_min", "option_p_sum"):
        table[column] = table[column].astype(float)

    member = [i for i, (split, _) in enumerate(chosen) if split in ("forget", "holdout") and "grad_norm" in wanted]
    norms = gradient_norms(problem, model, [(chosen[i][1].question, chosen[i][1].answer) for i in member])
    table["grad_norm"] = pd.Series(norms, index=member, dtype=float)

    _generated(problem, model, chosen, table, max_new_tokens, wanted)
    return table


def _generated(
    problem: Any, model: Any, chosen: list[tuple[str, QA]], table: pd.DataFrame, max_new_tokens: int, wanted: set[str]
) -> None:
    """Add the columns that need generated answers: to the question and to one held-out phrasing."""
    held_out = [i for i, (_, qa) in enumerate(chosen) if qa.paraphrased_questions and "paraphrase_correct" in wanted]
    questions = [qa.question for _, qa in chosen] + [chosen[i][1].paraphrased_questions[0] for i in held_out]
    answers = generate(model, problem.tokenizer, problem.template, questions, max_new_tokens, batch_size=256)
    own = answers[: len(chosen)]
    table["answer"] = own
    table["rouge"] = [metric.rouge_l_recall(qa.answer, a) for (_, qa), a in zip(chosen, own, strict=True)]
    table["repetition"] = [metric.repetition(i) for i in problem.tokenizer(own, add_special_tokens=False)["input_ids"]]
    table["correct"] = [_contains(a, qa) for (_, qa), a in zip(chosen, own, strict=True)]
    again = [_contains(a, chosen[i][1]) for i, a in zip(held_out, answers[len(chosen) :], strict=True)]
    table["paraphrase_correct"] = pd.Series(again, index=held_out, dtype=float)
    table["refused"] = [float(bool(REFUSING.search(a))) for a in own]
    table["wrong_value"] = [
        float(any(v != qa.value and says(a, v) for v in problem.values.get(qa.kind, ())) and not _contains(a, qa))
        if qa.kind and problem.values.get(qa.kind)
        else np.nan
        for (_, qa), a in zip(chosen, own, strict=True)
    ]
    forget = [i for i, (split, _) in enumerate(chosen) if split == "forget" and own[i] and "own_nll" in wanted]
    spoken = [(chosen[i][1].question, own[i]) for i in forget]
    for column, judge in (("own_nll", model), ("original_nll", problem.model)):
        nll = score_sequences(problem, judge, spoken, cut=True, detailed=[False] * len(spoken))["mean_nll"].tolist()
        table[column] = pd.Series(nll, index=forget, dtype=float)


def says(answer: str, value: str) -> bool:
    """Whether a value stands in an answer as whole words, whatever the case."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", answer, re.IGNORECASE) is not None


def _contains(answer: str, qa: QA) -> float:
    """1 when the answer carries the record's value; without a known value NaN (exact match would be too strict)."""
    return float(says(answer, qa.value)) if qa.value else np.nan
