"""Causal tracing: which of the original's hidden states, put into a model, make it say the forgotten value again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from unlearnkit.attacks.text.asking import forgotten
from unlearnkit.attacks.text.inside import at_value, layers
from unlearnkit.attribution.base import View, ViewCard, register_view
from unlearnkit.attribution.text.layers import all_states, patched
from unlearnkit.errors import UnlearnkitError
from unlearnkit.text import Batch, widen
from unlearnkit.worlds.records import QA

LEAST = 0.5  # nats between original and model below which there is nothing to restore
SUBJECT, LAST, REST = "subject, but its last token", "subject's last token", "rest of the question"
TEMPLATE, PREFIX, VALUE = "template", "answer before the value", "last token"
ALL, RANDOM = "all tokens", "one token at random"
GROUPS = (SUBJECT, LAST, REST, TEMPLATE, PREFIX, VALUE, ALL, RANDOM)


def position_groups(
    problem: Any, items: Sequence[QA], batch: Batch, positions: Tensor, seed: int = 0
) -> dict[str, Tensor]:
    """Which tokens are what: bool (sequences, tokens) a group of `GROUPS`.

    Args:
        positions: where the value's first token is predicted, (sequences,): `VALUE`. What comes later is in no group.
        seed: of the random group, one position a sequence before `VALUE`.

    Raises:
        UnlearnkitError: a tokenizer that can't say which characters a token stands for.
    """
    if not problem.tokenizer.is_fast:
        raise UnlearnkitError("causal tracing needs a fast tokenizer, one that says which characters a token is.")
    groups = {name: torch.zeros_like(batch.ids, dtype=torch.bool, device="cpu") for name in GROUPS}
    template, draw = problem.template, torch.Generator().manual_seed(seed)
    for row, (qa, value) in enumerate(zip(items, positions.tolist(), strict=True)):
        coded = problem.tokenizer(
            template.prompt(qa.question), add_special_tokens=not template.chat, return_offsets_mapping=True
        )
        start = len(template.before_question)
        found = qa.question.find(qa.entity) if qa.entity else -1
        subject = range(start + found, start + found + len(qa.entity)) if found >= 0 else range(0)
        question = range(start, start + len(qa.question))
        for k, (a, b) in enumerate(coded["offset_mapping"]):
            inside = [c for c in range(a, b) if not template.prompt(qa.question)[c].isspace()]
            name = TEMPLATE
            if inside and inside[-1] in question:
                name = SUBJECT if inside[-1] in subject or inside[0] in subject else REST
            groups[name][row, k] = True
        named = groups[SUBJECT][row].nonzero()
        if len(named):
            groups[SUBJECT][row, named[-1]] = False
            groups[LAST][row, named[-1]] = True
        groups[PREFIX][row, len(coded["input_ids"]) : value] = True
        for name in GROUPS:
            groups[name][row, value:] = False
        groups[VALUE][row, value] = True
        groups[ALL][row, : value + 1] = True
        groups[RANDOM][row, int(torch.randint(0, value, (), generator=draw))] = True
    return {name: mask.to(batch.ids.device) for name, mask in groups.items()}


@torch.no_grad()
def value_log_probability(model: Any, batch: Batch, positions: Tensor, labels: Tensor) -> Tensor:
    """log p of the value's first token: (sequences,), nats."""
    logits = model(input_ids=batch.ids, use_cache=False).logits[torch.arange(len(batch)), positions]
    return widen(logits).log_softmax(-1).gather(1, labels[:, None])[:, 0]


def trace(
    model: Any, states: Sequence[Tensor], batch: Batch, positions: Tensor, labels: Tensor, where: Tensor
) -> Tensor:
    """log p of the value when, layer by layer, `states` stand in the model at `where`: (layers, sequences), nats."""
    out = []
    for layer, state in enumerate(states):
        with patched(model, layer, state, where):
            out.append(value_log_probability(model, batch, positions, labels))
    return torch.stack(out)


@register_view("tracing")
class Tracing(View):
    """A grid, layer × kind of token, for each model and record: what the original's states there bring back.

    The original's hidden states after a layer (`place`) at some tokens (`label`, of `GROUPS`) are put into the model,
    and the log-probability of the value's first token is read, given the true answer up to there. `gain` (nats) is
    what that adds; `restored` the same as a share of the distance from the model to the original, left out where that
    is below half a nat. "original" into itself gains nothing. `ALL` is the most a layer's states can bring back;
    `RANDOM` patches one token drawn at random, the control of the two single tokens. States are read in the basis of
    the model they are put into: an oracle from other initial weights can't read them, its grid is only a floor.
    """

    card = ViewCard(
        "Causal tracing",
        "Meng et al. 2022, arXiv 2202.05262; Zhang and Nanda 2024, arXiv 2309.16042",
        "restored early, at the subject: the later layers still know what to do with what was cut off there",
    )

    limit: int = Field(12, ge=1)  # forget records looked at

    def rows(self, problem: Any, models: Mapping[str, Any], seed: int) -> pd.DataFrame:
        items = [qa for qa in forgotten(problem) if qa.value in qa.answer][: self.limit]
        if not items:
            raise UnlearnkitError("no forget record's answer holds its value; this view has nothing to look at.")
        counts = {who: layers(model) for who, model in models.items()}
        if len(set(counts.values())) > 1:
            raise UnlearnkitError(f"the models have different numbers of layers {counts}; this view compares layers.")
        batch, positions, labels = at_value(problem, models["original"], items)
        batch.ids, batch.labels = (x[:, : int(positions.max()) + 1] for x in (batch.ids, batch.labels))
        groups = position_groups(problem, items, batch, positions, seed)
        states = all_states(models["original"], batch)
        best = value_log_probability(models["original"], batch, positions, labels)
        rows: list[dict[str, Any]] = []
        for who, model in models.items():
            own = value_log_probability(model, batch, positions, labels)
            distance = (best - own).cpu().numpy()
            for name, where in groups.items():
                gain = (trace(model, states, batch, positions, labels, where) - own).cpu().numpy()
                there = where.any(1).tolist()
                for layer, k in np.ndindex(*gain.shape):
                    row = {"who": who, "item": items[k].id, "place": layer, "label": name}
                    if not there[k]:
                        continue
                    rows.append({**row, "measure": "gain", "value": float(gain[layer, k])})
                    if abs(distance[k]) >= LEAST:
                        rows.append({**row, "measure": "restored", "value": float(gain[layer, k] / distance[k])})
        return pd.DataFrame(rows)


def trace_grid(table: pd.DataFrame, who: str = "unlearned", measure: str = "restored") -> pd.DataFrame:
    """The grid of a model as a heat map wants it: kinds of token × layers, the median over records."""
    part = table[(table["who"] == who) & (table["measure"] == measure)]
    grid = part.pivot_table(index="label", columns="place", values="value", aggfunc="median")
    return grid.reindex([name for name in GROUPS if name in grid.index])
