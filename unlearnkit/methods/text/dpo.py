"""Direct preference optimisation with a refusal (IdkDPO) or another answer of the model's own (AltPO) preferred."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods.base import Card, Objectives, StepBatch, register_method
from unlearnkit.methods.text.base import TextMethod, refusals
from unlearnkit.methods.text.reference import Reference, reference
from unlearnkit.text import answer_tokens, collate, context_length, encode, generate, pad_id

ANSWER_TOKENS = 32  # of a sampled answer
BATCH = 256  # sampled answers read at once
ROUNDS, HOTTER = 8, 1.25  # how often a question is asked again, and by how much the temperature rises
FIRST = 4.0  # times the temperature for the first token of a value
CHOICES = 8  # first tokens of a value that may be drawn
COOL = 0.3  # temperature of what follows the first token of a value
ENDLESS = 1 << 30  # tokens: what is too long is left out afterwards


def dpo_loss(chosen: Tensor, chosen_0: Tensor, rejected: Tensor, rejected_0: Tensor, beta: float) -> Tensor:
    """−(2/β)·mean log σ(β[(L₀−L_θ)(y_w) − (L₀−L_θ)(y_l)]); summed NLLs, (sequences,) → scalar (arXiv 2305.18290)."""
    return -2 / beta * F.logsigmoid(beta * ((chosen_0 - chosen) - (rejected_0 - rejected))).mean()


@contextmanager
def first_token_at(model: Any, temperature: float) -> Iterator[None]:
    """While open, the first token of a generated text is drawn at `temperature` from the `CHOICES` likeliest ones.

    The rest is drawn at the temperature of the generation, which has to be `COOL`. A value is chosen by its first
    token; hot enough all along to choose another one, its rest would be noise.
    """
    first = [False]

    def look(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first[0] = (kwargs["input_ids"] if "input_ids" in kwargs else args[0]).shape[1] > 1

    def scale(_: Any, __: Any, logits: Tensor) -> Tensor:
        if not first[0]:
            return logits
        least = logits.topk(min(CHOICES, logits.shape[-1])).values[..., -1:]
        return torch.where(logits < least, -torch.inf, logits * (COOL / temperature))

    handles = [
        model.register_forward_pre_hook(look, with_kwargs=True),
        model.get_output_embeddings().register_forward_hook(scale),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def alternates(problem: Any, seed: int, samples: int, temperature: float) -> list[tuple[str, str]]:
    """Each forget question with another answer: of `samples` drawn from the original, the likeliest that is not true.

    Where the record's value is known, the original goes on from what stands before it in the answer, its first token
    drawn `FIRST` times as hot (`first_token_at`), and a sample counts as true when it holds the value. Elsewhere it
    gives whole answers, drawn at `temperature`. Questions whose samples are all true are asked again at a temperature
    `HOTTER` times as high. Nothing is drawn from the records' perturbed answers, which the evaluation uses.

    Raises:
        UnlearnkitError: a question to which no sample is another answer.
    """
    asked = [(question, qa) for qa in problem.splits["forget"] for question in qa.phrasings]
    begun = [qa.answer[: qa.answer.index(qa.value)] if qa.value and qa.value in qa.answer else "" for _, qa in asked]
    best: dict[int, tuple[float, str]] = {}  # record → (NLL, answer)
    model = problem.model  # one instance: a large original is loaded anew whenever it is asked for
    for heat in range(ROUNDS):
        hot = temperature * HOTTER**heat
        other = []
        for started in (True, False):
            left = [i for i, start in enumerate(begun) if i not in best and bool(start) == started]
            if not left:
                continue
            with first_token_at(model, FIRST * hot) if started else nullcontext():
                drawn = generate(
                    model, problem.tokenizer, problem.template, [asked[i][0] for i in left], ANSWER_TOKENS,
                    BATCH, samples, COOL if started else hot, seed, starts=[begun[i].rstrip() for i in left],
                )  # fmt: skip
            for k, words in enumerate(drawn):
                i = left[k // samples]
                qa, answer = asked[i][1], (begun[i] + words).strip()
                true = qa.value.casefold() in answer.casefold() if qa.value else answer == qa.answer.strip()
                if words and not true:
                    other.append((i, asked[i][0], answer))
        for i, answer, nll in _likelihoods(problem, model, sorted(set(other))):
            best[i] = min(best.get(i, (nll, answer)), (nll, answer))
        if len(best) == len(asked):
            return [(question, best[i][1]) for i, (question, _) in enumerate(asked)]
    raise UnlearnkitError(
        f"to {len(asked) - len(best)} forget questions the original gave no other answer in {ROUNDS} times {samples} "
        f"samples, the first is '{next(q for i, (q, _) in enumerate(asked) if i not in best)}'; raise samples or "
        f"temperature (now {temperature:g})."
    )


def _likelihoods(problem: Any, model: Any, answers: list[tuple[int, str, str]]) -> list[tuple[int, str, float]]:
    """(record, answer, summed NLL under the original) of (record, question, answer); too long ones are left out."""
    pad = pad_id(problem.tokenizer)
    longest, found = context_length(model), []
    encoded = encode(
        problem.tokenizer, problem.template, [(question, answer) for _, question, answer in answers], ENDLESS
    )
    kept = [k for k, one in enumerate(encoded) if len(one.ids) <= longest]
    with torch.inference_mode():
        for begin in range(0, len(kept), BATCH):
            rows = kept[begin : begin + BATCH]
            (tokens,) = answer_tokens(model, collate(encoded, rows, pad).to(problem.device))
            for k, nll in zip(rows, tokens.nll.tolist(), strict=True):
                found.append((answers[k][0], answers[k][2], nll))
    return found


@register_method("dpo")
class DPO(TextMethod):
    """y_w = a refusal or another answer, y_l = the answer to forget."""

    card = Card(
        "DPO with refusals (IdkDPO) or alternate answers (AltPO)",
        "Rafailov et al. 2023, arXiv 2305.18290; refusals: Maini et al. 2024, arXiv 2401.06121; alternates: Mekala et "
        "al. 2024, arXiv 2409.13474",
        r"F=-\tfrac{2}{\beta}\,\mathbb{E}_f\left[\log\sigma\!\left(\beta[(L_0-L_\theta)(y_w)-(L_0-L_\theta)(y_l)]\right)\right]",
        "beta 0.1 (open-unlearning); here tuned for the built-in world, with refusals",
        "with refusals it learns to refuse, which the oracle does not do, and refuses retained questions as well; "
        "with alternates it learns to tell something wrong",
    )
    loop = {"lr": 8.7e-4, "steps": 40}
    search = {"beta": (0.05, 1.0), "alpha": [1.0, 2.0, 5.0]}

    preferred: Literal["idk", "alternates"] = "idk"  # y_w
    beta: PositiveFloat = 0.06  # β
    samples: PositiveInt = 8  # answers drawn a question, for the alternates
    temperature: PositiveFloat = 1.0  # they are drawn at

    def views(self, problem: Any, seed: int) -> dict[str, list[tuple[str, str]]]:
        if self.preferred == "idk":
            return {"preferred": refusals(problem, seed)}
        return {"preferred": alternates(problem, seed, self.samples, self.temperature)}

    def prepare(self, model: nn.Module, data: Any) -> dict[str, Reference]:
        own = {view: reference(model, data, view) for view in ("forget", "preferred")}
        return {**super().prepare(model, data), **own}

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        preferred, forget, retain = answer_tokens(model, batch.views["preferred"], batch.forget, batch.retain)
        before = batch.reference
        loss = dpo_loss(
            preferred.nll,
            before["preferred"].nll[preferred.rows],
            forget.nll,
            before["forget"].nll[forget.rows],
            self.beta,
        )
        return Objectives(loss, self.retain(retain, before))
