"""Scoring records that begin alike: what they share is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from unlearnkit.text.batches import collate
from unlearnkit.text.reading import AnswerTokens, answers_only
from unlearnkit.text.template import Encoded


@dataclass(frozen=True)
class Shared:
    """Records that begin with the same `length` tokens: their prompt at least, and the answers as far as they agree."""

    rows: list[int]
    length: int


def shared_prefixes(encoded: Sequence[Encoded]) -> list[Shared]:
    """All records in groups that are cheapest to read together, longest prefixes first."""
    groups: list[Shared] = []
    for i in sorted(range(len(encoded)), key=lambda i: (encoded[i].start, encoded[i].ids)):
        one = encoded[i]
        alone = Shared([i], len(one.ids) - 1)  # the last token is only predicted
        group = groups[-1] if groups else None
        if group and encoded[group.rows[0]].start == one.start:
            common = _common(encoded[group.rows[0]].ids[: group.length], one.ids[:-1])
            # joining spares the newcomer `common` tokens, and costs every other member what it shared beyond them
            if common >= one.start and (len(group.rows) - 1) * (group.length - common) <= common:
                groups[-1] = Shared([*group.rows, i], common)
                continue
        groups.append(alone)
    return sorted(groups, key=lambda g: -g.length)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first tokens are the same."""
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@torch.inference_mode()
def shared_answer_tokens(model: Any, encoded: Sequence[Encoded], groups: Sequence[Shared], pad: int) -> AnswerTokens:
    """`answer_tokens` of some groups' records, group by group, for scoring: what a group shares is read once.

    The shared beginnings fill a key–value cache; every answer goes on from a copy of its group's part.
    """
    device, head, cache = model.device, model.get_output_embeddings(), DynamicCache(config=model.config)
    rows = [i for g in groups for i in g.rows]
    of = torch.tensor([k for k, g in enumerate(groups) for _ in g.rows])  # (sequences,) its group
    shared = torch.tensor([g.length for g in groups])  # (groups,) tokens read once
    starts = torch.tensor([encoded[g.rows[0]].start for g in groups])
    left = collate([Encoded(encoded[g.rows[0]].ids[: g.length], 0) for g in groups], range(len(groups)), pad).ids
    place = torch.arange(left.shape[1])
    seen = place < shared[:, None]  # (groups, tokens)
    keep = seen & (place >= starts[:, None] - 1)  # what predicts an answer token
    features: list[Tensor] = []
    with answers_only(head, keep.to(device), features):
        out = model(
            input_ids=left.to(device), attention_mask=seen.long().to(device), past_key_values=cache, use_cache=True
        )
    logits = out.logits.reshape(-1, out.logits.shape[-1])

    answers = [encoded[i].ids[encoded[i].start :] for i in rows]
    ahead = torch.arange(max(map(len, answers)))
    real = ahead < torch.tensor([len(a) for a in answers])[:, None]  # (sequences, answer tokens)
    early = real & (ahead <= (shared - starts)[of, None])  # predicted within what is shared
    first = keep.sum(1).cumsum(0) - keep.sum(1)  # (groups,) where a group's predictions begin
    source = torch.where(early, first[of, None] + ahead, 0)  # (sequences, answer tokens) row of `logits`
    if not torch.equal(early, real):
        cache.batch_select_indices(of.to(device))
        tails = [encoded[i].ids[g.length : -1] for g in groups for i in g.rows]
        right = collate([Encoded(t, 0) for t in tails], range(len(rows)), pad).ids  # (sequences, tokens)
        place = torch.arange(right.shape[1])
        alive = place < torch.tensor([len(t) for t in tails])[:, None]
        with answers_only(head, alive.to(device), features):
            out = model(
                input_ids=right.to(device),
                attention_mask=torch.cat([seen[of], torch.ones_like(alive)], 1).long().to(device),
                position_ids=(shared[of, None] + place).to(device),
                past_key_values=cache,
                use_cache=True,
            )
        source[real & ~early] = len(logits) + torch.arange(int(alive.sum()))
        logits = torch.cat([logits, out.logits.reshape(-1, logits.shape[-1])])
    pick = source[real].to(device)
    labels = torch.tensor([t for a in answers for t in a], device=device)
    return AnswerTokens(
        logits[pick],
        labels,
        real.nonzero()[:, 0].to(device),
        torch.cat(features)[pick],
        torch.tensor(rows, device=device),
    )
