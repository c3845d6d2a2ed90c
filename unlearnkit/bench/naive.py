"""The naive evaluation, as a yardstick: one pass per metric, full logits, records in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from unlearnkit.metrics import text as metric
from unlearnkit.metrics.measure import REFUSING, says
from unlearnkit.text import collate, encode, pad_id
from unlearnkit.worlds.records import QA

BATCH = 32


@torch.no_grad()
def _pass(problem: Any, model: Any, pairs: Sequence[tuple[str, str]], score: Callable[..., float]) -> list[float]:
    """One forward pass over all pairs, for one metric: `score(logits, labels)` of each answer's tokens."""
    encoded = encode(problem.tokenizer, problem.template, pairs, 10_000)
    values = []
    for begin in range(0, len(encoded), BATCH):
        batch = collate(encoded, range(begin, min(begin + BATCH, len(encoded))), pad_id(problem.tokenizer))
        batch = batch.to(problem.device)
        logits = model(input_ids=batch.ids).logits.float()  # (batch, tokens, vocabulary)
        for one, labels in zip(logits, batch.labels, strict=True):
            answer = labels[1:] != -100
            values.append(score(one[:-1][answer], labels[1:][answer]))
    return values


def _nll(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float(F.cross_entropy(logits, labels, reduction="sum"))


def _mean_nll(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float(F.cross_entropy(logits, labels))


def _exact(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float((logits.argmax(-1) == labels).float().mean())


def _extraction(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return metric.extraction_strength((logits.argmax(-1) == labels).tolist())


def _min_k(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return metric.min_k(-F.cross_entropy(logits, labels, reduction="none").cpu().numpy().astype(float))


def _min_k_plus(logits: torch.Tensor, labels: torch.Tensor) -> float:
    logp = logits.log_softmax(-1)
    p = logp.exp()
    mean = (p * logp).sum(-1)
    spread = ((p * logp.square()).sum(-1) - mean.square()).clamp_min(1e-12).sqrt()
    chosen = logp.gather(-1, labels[:, None])[:, 0]
    return metric.min_k(((chosen - mean) / spread).cpu().numpy().astype(float))


def naive_measure(problem: Any, model: Any, chosen: Sequence[tuple[str, QA]]) -> pd.DataFrame:
    """The columns of `Measured` that both ways share, each from a pass of its own."""
    answers = [(qa.question, qa.answer) for _, qa in chosen]
    table = pd.DataFrame(index=range(len(chosen)))
    scores = {
        "nll": _nll,
        "mean_nll": _mean_nll,
        "exact": _exact,
        "extraction": _extraction,
        "min_k": _min_k,
        "min_k_plus": _min_k_plus,
    }
    for column, score in scores.items():
        table[column] = _pass(problem, model, answers, score)
    table["zlib"] = [
        metric.zlib_score(n, a) for n, (_, a) in zip(_pass(problem, model, answers, _nll), answers, strict=True)
    ]
    table["paraphrase_nll"] = _several(problem, model, chosen, lambda qa: [qa.paraphrased_answer], np.mean)
    table["perturbed_nll_mean"] = _several(problem, model, chosen, lambda qa: qa.perturbed_answers, np.mean)
    table["option_p_sum"] = _several(
        problem, model, chosen, lambda qa: qa.options, lambda nll: np.exp(-np.array(nll)).sum()
    )
    table["option_nll_min"] = _several(problem, model, chosen, lambda qa: qa.options, np.min)
    questions = [qa.question for _, qa in chosen]
    table["rouge"] = [
        metric.rouge_l_recall(qa.answer, a)
        for (_, qa), a in zip(chosen, _answers(problem, model, questions), strict=True)
    ]
    for column, ask in (("correct", questions), ("paraphrase_correct", None)):
        ask = ask or [(qa.paraphrased_questions or ("",))[0] for _, qa in chosen]
        said = _answers(problem, model, ask)
        table[column] = [
            float(says(a, qa.value)) if q and qa.value else np.nan
            for q, a, (_, qa) in zip(ask, said, chosen, strict=True)
        ]
    table["repetition"] = [
        metric.repetition(problem.tokenizer(a, add_special_tokens=False)["input_ids"])
        for a in _answers(problem, model, questions)
    ]
    forget = [i for i, (split, _) in enumerate(chosen) if split == "forget"]
    asked = [questions[i] for i in forget]
    table["refused"] = pd.Series([float(bool(REFUSING.search(a))) for a in _answers(problem, model, asked)], forget)
    wrong = [_wrong(problem, chosen[i][1], a) for i, a in zip(forget, _answers(problem, model, asked), strict=True)]
    table["wrong_value"] = pd.Series(wrong, forget)
    for column, judge in (("own_nll", model), ("original_nll", problem.model)):
        spoken = list(zip(asked, _answers(problem, model, asked), strict=True))
        table[column] = pd.Series(_pass(problem, judge, spoken, _mean_nll), forget)
    table["grad_norm"] = [
        _gradient_norm(problem, model, pair) if split in ("forget", "holdout") else np.nan
        for (split, _), pair in zip(chosen, answers, strict=True)
    ]
    return table


def _wrong(problem: Any, qa: QA, answer: str) -> float:
    others = [v for v in problem.values.get(qa.kind, ()) if v != qa.value]
    return float(any(says(answer, v) for v in others) and not says(answer, qa.value))


def _several(
    problem: Any, model: Any, chosen: Any, texts: Callable[[QA], Any], combine: Callable[..., Any]
) -> list[float]:
    pairs = [(qa.question, t) for _, qa in chosen for t in texts(qa) if t]
    nll = iter(_pass(problem, model, pairs, _mean_nll))
    counts = [sum(bool(t) for t in texts(qa)) for _, qa in chosen]
    return [float(combine([next(nll) for _ in range(n)])) if n else np.nan for n in counts]


@torch.no_grad()
def _answers(problem: Any, model: Any, questions: Sequence[str]) -> list[str]:
    """Greedy answers in batches of 32, records in their order."""
    tokenizer, template = problem.tokenizer, problem.template
    tokenizer.padding_side = "left"
    answers = []
    for begin in range(0, len(questions), BATCH):
        prompts = [template.prompt(q) for q in questions[begin : begin + BATCH]]
        batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=not template.chat)
        batch = {k: batch[k].to(problem.device) for k in ("input_ids", "attention_mask")}
        out = model.generate(**batch, max_new_tokens=32, do_sample=False, pad_token_id=pad_id(tokenizer))
        texts = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        answers += [t.strip() for t in texts]
    return answers


def _gradient_norm(problem: Any, model: Any, pair: tuple[str, str]) -> float:
    (one,) = encode(problem.tokenizer, problem.template, [pair], 10_000)
    batch = collate([one], [0], pad_id(problem.tokenizer)).to(problem.device)
    logits = model(input_ids=batch.ids).logits[0, :-1]
    answer = batch.labels[0, 1:] != -100
    loss = F.cross_entropy(logits[answer], batch.labels[0, 1:][answer])
    gradients = torch.autograd.grad(loss, [p.requires_grad_(True) for p in model.parameters()])
    return float(torch.nn.utils.get_total_norm(gradients))
