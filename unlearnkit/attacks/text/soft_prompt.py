"""Soft prompts: continuous vectors before the question, optimised to bring the forgotten answers back."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from unlearnkit.attacks.base import Attack, AttackCard, Curve, register_attack
from unlearnkit.attacks.text.asking import forgotten, halves, table
from unlearnkit.text import IGNORE, Batch, collate, context_length, encode, pad_id, shuffled_batches


def soft_nll(model: Any, batch: Batch, soft: Tensor) -> Tensor:
    """Mean answer NLL of each sequence with `soft` (vectors, width) before it: (sequences,).

    Tokens are looked up in the embedding's table, past anything that guards the input.
    """
    embedded = F.embedding(batch.ids, model.get_input_embeddings().weight)  # (sequences, tokens, width)
    whole = torch.cat([soft.to(embedded.dtype).expand(len(batch), -1, -1), embedded], 1)
    logits = model(inputs_embeds=whole, use_cache=False).logits[:, len(soft) :]
    labels = batch.labels[:, 1:]
    nll = F.cross_entropy(logits[:, :-1].float().transpose(1, 2), labels, ignore_index=IGNORE, reduction="none")
    return nll.sum(1) / (labels != IGNORE).sum(1)


@register_attack("soft_prompt")
class SoftPrompt(Attack):
    """Optimised on one half of the forget facts, judged on the other: what comes back was in the weights."""

    card = AttackCard(
        "Soft prompt", "Schwinn et al. 2024, arXiv 2402.09063", "weights",
        "the knowledge is reachable from the input, only not by words that were unlearned",
    )  # fmt: skip
    unit = "optimisation steps"
    whole = True
    budgets = (0, 20, 60)

    vectors: int = 5
    lr: float = Field(0.03, gt=0, allow_inf_nan=False)
    batch_size: int = 16

    def curve(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Curve:
        shown, asked = halves(forgotten(problem))
        longest = context_length(model) - self.vectors
        pairs = [(q, qa.answer) for qa in shown for q in qa.phrasings]
        encoded = encode(problem.tokenizer, problem.template, pairs, longest)
        generator = torch.Generator().manual_seed(seed)
        table_of = model.get_input_embeddings().weight.detach()
        rows = torch.randint(len(table_of), (self.vectors,), generator=generator)
        soft = table_of[rows.to(table_of.device)].float().clone().requires_grad_(True)  # (vectors, width)
        optimizer = torch.optim.Adam([soft], lr=self.lr)
        order, done = random.Random(seed), 0
        queue: list[list[int]] = []
        flags = [p.requires_grad for p in model.parameters()]
        model.requires_grad_(False)
        try:
            for budget in sorted(budgets):
                while done < budget:
                    queue = queue or shuffled_batches(encoded, self.batch_size, order)
                    batch = collate(encoded, queue.pop(), pad_id(problem.tokenizer)).to(problem.device)
                    optimizer.zero_grad()
                    soft_nll(model, batch, soft).mean().backward()
                    optimizer.step()
                    done += 1
                used = soft.detach() if budget else soft.detach()[:0]
                yield budget, self._judge(problem, model, asked, used, longest)
        finally:
            for parameter, flag in zip(model.parameters(), flags, strict=True):
                parameter.requires_grad_(flag)

    @torch.inference_mode()
    def _judge(self, problem: Any, model: Any, asked: Any, soft: Tensor, longest: int) -> pd.DataFrame:
        pairs, owner = [], []
        for i, qa in enumerate(asked):
            texts = [qa.answer, *(qa.options or qa.perturbed_answers)]
            pairs += [(qa.question, t) for t in texts]
            owner += [i] * len(texts)
        encoded = encode(problem.tokenizer, problem.template, pairs, longest)
        parts = [
            soft_nll(
                model,
                collate(encoded, range(b, min(b + 128, len(pairs))), pad_id(problem.tokenizer)).to(problem.device),
                soft,
            )
            for b in range(0, len(pairs), 128)
        ]
        nll = torch.cat(parts).cpu()
        who = torch.tensor(owner)
        groups = [nll[who == i] for i in range(len(asked))]
        best = [float(g[0] < g[1:].min()) if len(g) > 1 else float("nan") for g in groups]
        return table(asked, nll=[float(g[0]) for g in groups], option_accuracy=best)
