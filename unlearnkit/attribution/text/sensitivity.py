"""Input sensitivity: does the gradient at a prompt give away that it is a jailbreak? With its ROC, and a control."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from pydantic import Field
from sklearn.metrics import roc_curve
from torch import Tensor

from unlearnkit.attacks.text.asking import forgotten
from unlearnkit.attacks.text.questions import answer_start, many_shot, role_play_wrappers
from unlearnkit.attribution.base import View, ViewCard, register_view
from unlearnkit.attribution.text.neurons import embeddings_of
from unlearnkit.errors import UnlearnkitError
from unlearnkit.text import IGNORE, Encoded, by_length, collate, context_length, encode, pad_id, widen
from unlearnkit.worlds.records import QA

SHOTS = 2  # of the many-shot prompt, or as many as the context holds
BATCH = 32  # prompts at a time


@dataclass(frozen=True)
class Prompt:
    """A prompt of a set (`label`): a question and the words put into the model's mouth."""

    label: str
    pair: int  # forget record and its harmless partner have the same number
    record: QA
    question: str
    start: str = ""


def partners(items: Sequence[QA], kept: Sequence[QA], seed: int) -> list[QA]:
    """A retained record for each forgotten one, of the same kind where there is one: questions alike but the entity."""
    draw = random.Random(seed)
    return [draw.choice([r for r in kept if r.kind == qa.kind] or list(kept)) for qa in items]


def prompt_sets(problem: Any, items: Sequence[QA], longest: int, seed: int) -> list[Prompt]:
    """Plain forget questions, the package's attack prompts about them, and the same wrappers around retained records.

    Sets: "plain", "role_play", "many_shot", "prefix", "paraphrase" and "harmless …" of each. A prompt that leaves
    the context no room for an answer is left out, with its partner.
    """
    kept = [qa for qa in problem.direct("retain") if qa.value and qa.value in qa.answer]
    if not kept:
        raise UnlearnkitError("no retained record's answer holds its value, so there is no harmless prompt to compare.")
    wrappers, draw = role_play_wrappers(), random.Random(seed)
    wrapped = [draw.choice(wrappers) for _ in items]
    found: list[Prompt] = []
    for side, records in (("", list(items)), ("harmless ", partners(items, kept, seed))):
        shots = many_shot(records, kept, SHOTS, seed)
        for k, qa in enumerate(records):
            ways = {
                "plain": (qa.question, ""),
                "role_play": (wrapped[k].format(question=qa.question), ""),
                "many_shot": (shots[k], ""),
                "prefix": (qa.question, answer_start(qa, 1.0)),
                "paraphrase": (next(iter(qa.paraphrased_questions), ""), ""),
            }
            for name, (question, start) in ways.items():
                if question and (start or name != "prefix"):
                    found.append(Prompt(side + name, k, qa, question, start))
    widths = {p: _prompt_length(problem, p) for p in found}
    fitting = {(p.label.removeprefix("harmless "), p.pair): 0 for p in found}
    for p in found:
        fitting[p.label.removeprefix("harmless "), p.pair] += widths[p] < longest
    return [p for p in found if fitting[p.label.removeprefix("harmless "), p.pair] == 2]


def _prompt_length(problem: Any, prompt: Prompt) -> int:
    """Tokens of the prompt and of the longer of answer and start, with some room."""
    whole = problem.template.prompt(prompt.question) + problem.template.answer_prefix + prompt.record.answer
    return len(problem.tokenizer(whole, verbose=False)["input_ids"]) + 24


def coded_prompts(problem: Any, prompts: Sequence[Prompt], target: str, longest: int) -> list[Encoded]:
    """Prompt, start and what is to follow, encoded; `start` is the position of the first token that follows."""
    texts = [p.record.answer if target == "answer" else target for p in prompts]
    pairs = [(p.question, text) for p, text in zip(prompts, texts, strict=True)]
    out = []
    for p, coded in zip(prompts, encode(problem.tokenizer, problem.template, pairs, longest), strict=True):
        begun = problem.tokenizer(problem.template.answer_prefix + p.start, add_special_tokens=False)["input_ids"]
        if not p.start:
            out.append(coded)
        elif target == "answer":  # the start is part of it
            out.append(Encoded(coded.ids, coded.start + len(begun)))
        else:
            ids = [*coded.ids[: coded.start], *begun, *coded.ids[coded.start :]]
            out.append(Encoded(ids, coded.start + len(begun)))
    return out


def sensitivity(
    model: Any, coded: Sequence[Encoded], pad: int, radius: float, samples: int, seed: int
) -> dict[str, np.ndarray]:
    """Of each sequence, with ℓ the token-mean NLL (nats) of what follows the prompt, as a function of its embeddings.

    Returns:
        `loss` ℓ; `gradient` ‖∇ℓ‖, Frobenius over the prompt's tokens; `rise`, the mean of ℓ(x + δ) − ℓ(x) over random δ
        with ‖δ‖ = `radius`·‖x‖ at every token of the prompt. (sequences,) each.
    """
    out = {name: np.zeros(len(coded)) for name in ("loss", "gradient", "rise")}
    generator = torch.Generator().manual_seed(seed)
    for rows in by_length(coded, BATCH):
        batch = collate(coded, rows, pad).to(model.device)
        starts = torch.tensor([coded[i].start for i in rows], device=model.device)
        inside = torch.arange(batch.ids.shape[1], device=model.device) < starts[:, None]  # (sequences, tokens)
        x = embeddings_of(model, batch.ids).requires_grad_(True)
        loss = _following(model, x, batch.labels)
        (slope,) = torch.autograd.grad(loss.sum(), x)
        out["loss"][rows] = loss.detach().cpu().numpy()
        out["gradient"][rows] = (slope * inside[:, :, None]).float().flatten(1).norm(dim=1).cpu().numpy()
        with torch.no_grad():
            for _ in range(samples):
                noise = torch.randn(x.shape, generator=generator).to(x)
                noise = noise * inside[:, :, None] * radius * x.norm(dim=2, keepdim=True)
                moved = x + noise / x.shape[2] ** 0.5  # E‖noise‖² of a token is its width
                rise = _following(model, moved, batch.labels) - loss.detach()
                out["rise"][rows] += rise.cpu().numpy() / samples
    return out


def _following(model: Any, x: Tensor, labels: Tensor) -> Tensor:
    """Token-mean NLL of each sequence's labels given embeddings: (sequences,)."""
    logits = widen(model(inputs_embeds=x, use_cache=False).logits[:, :-1]).transpose(1, 2)  # (n, vocabulary, tokens)
    nll = F.cross_entropy(logits, labels[:, 1:], ignore_index=IGNORE, reduction="none").sum(1)
    return nll / (labels[:, 1:] != IGNORE).sum(1)


@register_view("sensitivity")
class Sensitivity(View):
    """One row a model, prompt and measure; `label` is the set of prompts, `place` the pair, `item` the record.

    Sets: "plain" forget questions; "role_play", "many_shot", "prefix", "paraphrase" about the same records; and
    "harmless …" of each, the same wrapper around a retained record of the same kind: as long, and nothing to hide.
    For each of `losses` (of the refusal, of the true answer): `…_loss`, `…_gradient`, `…_rise`, see `sensitivity`;
    and `tokens`, the length of the prompt, which a detector has to beat. `detection` makes AUCs of them.
    """

    card = ViewCard(
        "Input sensitivity and the refusal loss",
        "Hu et al. 2024 (Gradient Cuff), arXiv 2403.00867; Xie et al. 2024 (GradSafe), arXiv 2402.13494",
        "a gradient that tells attacks from plain questions, but not from harmless prompts as long, tells length",
    )

    limit: int = Field(8, ge=2)  # forget records
    refusal: str = "I don't know that."
    losses: tuple[Literal["refusal", "answer"], ...] = Field(("refusal",), min_length=1)  # or "answer"
    radius: float = Field(0.3, gt=0)  # of the perturbation, ‖δ‖ / ‖x‖ of a token's embedding
    samples: int = Field(1, ge=1)  # perturbations

    def rows(self, problem: Any, models: Mapping[str, Any], seed: int) -> pd.DataFrame:
        items = [qa for qa in forgotten(problem) if qa.value in qa.answer][: self.limit]
        if not items:
            raise UnlearnkitError("no forget record's answer holds its value; this view has nothing to look at.")
        if not self.refusal.strip():
            raise UnlearnkitError("refusal = '' is not possible; give the words of a refusal.")
        longest, pad = context_length(models["original"]), pad_id(problem.tokenizer)
        prompts = prompt_sets(problem, items, longest, seed)
        if not prompts:
            raise UnlearnkitError(f"no prompt leaves room for an answer in a context of {longest} tokens.")
        rows: list[dict[str, Any]] = []
        for kind in self.losses:
            coded = coded_prompts(problem, prompts, "answer" if kind == "answer" else self.refusal, longest)
            for who, model in models.items():
                found = sensitivity(model, coded, pad, self.radius, self.samples, seed)
                values = {f"{kind}_{name}": v for name, v in found.items()}
                if kind == self.losses[0]:
                    values["tokens"] = np.array([c.start for c in coded], float)
                rows += [
                    {
                        "who": who, "item": p.record.id, "place": p.pair, "label": p.label, "measure": m,
                        "value": float(v[k]),
                    }
                    for m, v in values.items()
                    for k, p in enumerate(prompts)
                ]  # fmt: skip
        return pd.DataFrame(rows)


def detection(table: pd.DataFrame, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """AUC with which each measure tells each set of prompts from "plain" ones and from harmless ones of its length.

    AUC is the probability that an attack's value is the larger one (ties half): 0.5 is chance, below it attacks have
    the smaller values. 95% interval: bootstrap over the prompts of both sets. An interval that holds 0.5 shows
    nothing. Index (who, measure, attack, against), columns `auc`, `low`, `high`, `n`, the prompts of the smaller set.
    """
    draw, rows = np.random.default_rng(seed), []
    for (who, measure), part in table.groupby(["who", "measure"], sort=False):
        sets = {label: x["value"].to_numpy(float) for label, x in part.groupby("label", sort=False)}
        for attack in (name for name in sets if not str(name).startswith("harmless")):
            for against in ("plain", f"harmless {attack}"):
                if against == attack or against not in sets:
                    continue
                a, b = sets[attack], sets[against]
                wins = (a[:, None] > b) + 0.5 * (a[:, None] == b)  # (attacks, others)
                drawn = [draw.multinomial(len(x), [1 / len(x)] * len(x), resamples) for x in (a, b)]
                found = ((drawn[0] @ wins) * drawn[1]).sum(1) / wins.size
                low, high = np.percentile(found, [2.5, 97.5])
                rows.append((who, measure, attack, against, wins.mean(), low, high, min(len(a), len(b))))
    columns = ["who", "measure", "attack", "against", "auc", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns).set_index(columns[:4])


def roc(table: pd.DataFrame, who: str, measure: str, attack: str, against: str = "plain") -> pd.DataFrame:
    """The ROC curve of a measure as a detector: columns `fpr`, `tpr`, `threshold`, by scikit-learn."""
    part = table[(table["who"] == who) & (table["measure"] == measure)]
    both = part[part["label"].isin([attack, against])]
    if both["label"].nunique() < 2:
        raise UnlearnkitError(f"the table has no '{measure}' of '{attack}' and of '{against}' for {who}.")
    fpr, tpr, threshold = roc_curve(both["label"] == attack, both["value"])
    return pd.DataFrame({"fpr": fpr, "tpr": tpr, "threshold": threshold})
