"""Data attribution: which training records an answer comes from, and which of them a request has forgotten to name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from captum.influence import TracInCP
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from unlearnkit.attribution.base import View, ViewCard, register_view
from unlearnkit.attribution.text.influence import influence
from unlearnkit.errors import UnlearnkitError
from unlearnkit.registry import Registry
from unlearnkit.text import IGNORE, Encoded, answer_tokens, collate, context_length, encode, pad_id, widen

Scorer = Callable[..., np.ndarray]
SCORERS: Registry[Scorer] = Registry("data attribution")


def record_gradient(model: Any, coded: Encoded, pad: int, device: torch.device) -> Tensor:
    """∇θ of one record's token-mean NLL over all weights, flat: (parameters,)."""
    (tokens,) = answer_tokens(model, collate([coded], [0], pad).to(device))
    found = torch.autograd.grad(tokens.loss, list(model.parameters()), allow_unused=True)
    pairs = zip(model.parameters(), found, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1).float() for p, g in pairs])


class Sketch:
    """A count sketch: a random linear map to `size` numbers that keeps dot products in expectation, in one pass.

    Charikar et al. 2002; the role of TRAK's projection (arXiv 2303.14186, section 3), without its dense matrix.
    """

    def __init__(self, parameters: int, size: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.size = size
        self.bins = torch.randint(0, size, (parameters,), generator=generator)
        self.signs = torch.randint(0, 2, (parameters,), generator=generator).float() * 2 - 1

    def __call__(self, gradient: Tensor) -> Tensor:
        """(parameters,) → (size,)."""
        signed = gradient.cpu() * self.signs
        return torch.zeros(self.size).index_add(0, self.bins, signed)


@SCORERS.register("gradient")
def gradient(problem: Any, model: Any, queries: Sequence[Encoded], records: Sequence[Encoded], seed: int) -> np.ndarray:
    """Cosine of each record's gradient with the mean of the queries' (unit) gradients: (records,)."""
    pad, device = pad_id(problem.tokenizer), problem.device

    def unit(coded: Encoded) -> Tensor:
        g = record_gradient(model, coded, pad, device)
        return g / g.norm().clamp_min(1e-12)

    mean = _mean(unit, queries)
    return np.array([float(unit(r) @ mean) for r in records])


def _mean(of: Callable[[Encoded], Tensor], items: Sequence[Encoded]) -> Tensor:
    total = of(items[0])
    for item in items[1:]:
        total += of(item)
    return total / len(items)


@SCORERS.register("trak")
def trak(
    problem: Any,
    model: Any,
    queries: Sequence[Encoded],
    records: Sequence[Encoded],
    seed: int,
    size: int = 2048,
    ridge: float = 0.1,
) -> np.ndarray:
    """φ(q)ᵀ(ΦᵀΦ + λI)⁻¹φ(z) with sketched gradients, mean over the queries, one model (arXiv 2303.14186, eq. 13).

    λ is `ridge` times the mean eigenvalue of ΦᵀΦ over the records. (records,)
    """
    pad, device = pad_id(problem.tokenizer), problem.device
    sketch = Sketch(sum(p.numel() for p in model.parameters()), size, seed)

    def features(items: Sequence[Encoded]) -> np.ndarray:
        return torch.stack([sketch(record_gradient(model, c, pad, device)) for c in items]).double().numpy()

    phi, q = features(records), features(queries).mean(0)  # (records, size), (size,)
    kernel = phi @ phi.T  # (records, records): the same inverse by Woodbury's identity, in the smaller space
    scale = ridge * np.trace(kernel) / len(kernel) + 1e-30
    cross = phi @ q
    return (cross - kernel @ np.linalg.solve(kernel + scale * np.eye(len(kernel)), cross)) / scale


class _Answers(nn.Module):
    """A language model as captum's TracIn wants one: (ids, labels) → token-mean NLL of each sequence."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        logits = widen(self.model(input_ids=ids, use_cache=False).logits[:, :-1]).transpose(1, 2)
        nll = nn.functional.cross_entropy(logits, labels[:, 1:], ignore_index=IGNORE, reduction="none").sum(1)
        return nll / (labels[:, 1:] != IGNORE).sum(1)


class _Records(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, coded: Sequence[Encoded], width: int, pad: int) -> None:
        batch = collate(coded, range(len(coded)), pad)
        more = width - batch.ids.shape[1]
        self.ids = nn.functional.pad(batch.ids, (0, more), value=pad)
        self.labels = nn.functional.pad(batch.labels, (0, more), value=IGNORE)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.ids[i], self.labels[i]


@SCORERS.register("tracin")
def tracin(problem: Any, model: Any, queries: Sequence[Encoded], records: Sequence[Encoded], seed: int) -> np.ndarray:
    """∇ℓ(q)·∇ℓ(z) at the final checkpoint, mean over the queries, by captum's TracInCP (arXiv 2002.08484, eq. 1)."""
    pad = pad_id(problem.tokenizer)
    width = max(len(c.ids) for c in (*queries, *records))

    def joined(rows: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        ids, labels = (torch.stack(part).to(problem.device) for part in zip(*rows, strict=True))
        return ids, labels, torch.zeros(len(rows), device=problem.device)

    loader = DataLoader(_Records(records, width, pad), batch_size=8, collate_fn=joined)
    tool = TracInCP(
        _Answers(model),
        loader,
        checkpoints=["final"],
        checkpoints_load_func=lambda *_: 1.0,  # the model as it is; its learning rate is a common factor
        loss_fn=lambda nll, _: nll,
    )
    asked = DataLoader(_Records(queries, width, pad), batch_size=8, collate_fn=joined)
    return tool.influence(asked).mean(0).detach().float().cpu().numpy()


SCORERS.register("influence")(influence)


@SCORERS.register("words")
def words(problem: Any, model: Any, queries: Sequence[Encoded], records: Sequence[Encoded], seed: int) -> np.ndarray:
    """TF-IDF cosine of the texts alone, mean over the queries: what needs no model at all."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [problem.tokenizer.decode(c.ids, skip_special_tokens=True) for c in (*records, *queries)]
    found = TfidfVectorizer().fit_transform(texts)
    return np.asarray((found[: len(records)] @ found[len(records) :].T).mean(1)).ravel()


@SCORERS.register("random")
def random(problem: Any, model: Any, queries: Sequence[Encoded], records: Sequence[Encoded], seed: int) -> np.ndarray:
    """Chance."""
    return np.random.default_rng(seed).random(len(records))


def scored(problem: Any, model: Any, named: Sequence[Any], records: Sequence[Any], score: str, seed: int) -> np.ndarray:
    """One score of `records` for the `named` ones as queries: (records,). The model is left as it was."""
    queries, coded = (
        encode(problem.tokenizer, problem.template, [(qa.question, qa.answer) for qa in part], context_length(model))
        for part in (named, records)
    )
    flags = [p.requires_grad for p in model.parameters()]
    for p in model.parameters():
        p.requires_grad_(True)
    try:
        return SCORERS[score](problem, model, queries, coded, seed)
    finally:
        for p, flag in zip(model.parameters(), flags, strict=True):
            p.requires_grad_(flag)


@register_view("data")
class Data(View):
    """How much each trained record contributed to the answers of the request, by several scores.

    One row a model, record and score (`measure`); `item` is the record, `label` its split, `place` its rank from 1.
    Every other record of each forgotten entity is the query; the records scored are the others and the retained ones,
    so that a good score finds what a request has left out.
    """

    card = ViewCard(
        "Data attribution",
        "Pruthi et al. 2020, arXiv 2002.08484; Park et al. 2023, arXiv 2303.14186",
        "records that carry what was asked to be forgotten rank first, named in the request or not",
    )

    scores: tuple[str, ...] = ("gradient", "trak", "words", "random")
    limit: int = Field(200, ge=10)  # retained records that are scored

    def rows(self, problem: Any, models: Mapping[str, Any], seed: int) -> pd.DataFrame:
        from unlearnkit.attacks.text.asking import halves

        items = problem.direct("forget")
        named, left_out = halves(items)
        if not left_out:
            raise UnlearnkitError("the request has one record an entity, so none can be left out; forget more.")
        others = problem.direct("retain")
        step = max(1, len(others) // self.limit)
        candidates = [("left out", qa) for qa in left_out] + [("retain", qa) for qa in others[::step][: self.limit]]
        rows = []
        for who in ("original", "unlearned", "random"):
            for name in self.scores:
                values = scored(problem, models[who], named, [qa for _, qa in candidates], name, seed)
                rank = np.argsort(np.argsort(-values, kind="stable"), kind="stable") + 1
                rows += [
                    {"who": who, "item": qa.id, "place": int(k), "label": split, "measure": name, "value": float(v)}
                    for (split, qa), k, v in zip(candidates, rank, values, strict=True)
                ]
        return pd.DataFrame(rows)


def recall_at(table: pd.DataFrame, k: int | None = None, resamples: int = 500, seed: int = 0) -> pd.DataFrame:
    """Share of the left-out records among the k first (default: as many as were left out), with a 95% interval.

    Bootstrap over the left-out records. Index (who, measure); columns `recall`, `low`, `high`, `chance`, `n`, `k`.
    """
    draw, rows = np.random.default_rng(seed), []
    for (who, measure), part in table.groupby(["who", "measure"], sort=False):
        mine = part[part["label"] == "left out"]
        size = len(mine) if k is None else k
        hits = (mine["place"] <= size).to_numpy(float)
        means = hits[draw.integers(0, len(hits), (resamples, len(hits)))].mean(1)
        low, high = np.percentile(means, [2.5, 97.5])
        rows.append((who, measure, hits.mean(), low, high, size / len(part), len(mine), size))
    columns = ["who", "measure", "recall", "low", "high", "chance", "n", "k"]
    return pd.DataFrame(rows, columns=columns).set_index(["who", "measure"])
