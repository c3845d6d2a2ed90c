"""What a language model says of the forgotten, and what its weights still hold: the readings behind a verdict."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from unlearnkit.attacks.text.asking import ask, forgotten
from unlearnkit.attacks.text.inside import Probe, at_value, final_norm, hidden_states
from unlearnkit.attacks.text.relearn import Relearn
from unlearnkit.attribution.text.layers import TELLING, patching_drops
from unlearnkit.errors import UnlearnkitError
from unlearnkit.metrics.image import evenly
from unlearnkit.text import collate, context_length, encode, pad_id

KINDS = {
    "accuracy": "output", "option_accuracy": "output", "probability": "output", "nll": "output",
    "depth": "white box", "lens": "white box", "probe": "white box", "relearn": "white box",
}  # fmt: skip
STEPS = 10  # of relearning
FITTED = 400  # retained records a probe is fitted on, at most
Reading = dict[str, "np.ndarray | str"]


def read(problem: Any, model: Any, seed: int, limit: int | None) -> Reading:
    """Measure → a value a forget question, or why there is none.

    `accuracy`, `option_accuracy`, `probability` (typical of an answer token, exp(−NLL)) and `nll` of the model as it is
    asked; of its weights alone `depth`, 1 − UDS against the first oracle, `lens`, the log-probability of the value's
    first token in the inner layers, `probe`, a linear probe's accuracy, mean over the layers, and `relearn`, the
    probability of unshown answers after `STEPS` steps on the others.
    """
    small = _limited(problem, limit)
    items = forgotten(small)
    said = ask(small, model, items)
    out: Reading = {
        "accuracy": said["accuracy"].to_numpy(),
        "option_accuracy": said["option_accuracy"].to_numpy(),
        "probability": np.exp(-said["nll"].to_numpy()),
        "nll": said["nll"].to_numpy(),
    }
    bare = weights_alone(model)
    for name, of in (("depth", depth), ("lens", lens), ("probe", probe), ("relearn", relearned)):
        try:
            out[name] = of(small, bare, seed)
        except UnlearnkitError as reason:
            out[name] = str(reason).rstrip(".")
    return out


def _limited(problem: Any, limit: int | None) -> Any:
    """The problem with at most `limit` forget questions, spread evenly over it, and `FITTED` retained ones."""

    def some(items: Sequence[Any], count: int | None) -> list[Any]:
        rows = np.arange(len(items))
        return [items[i] for i in (rows if count is None else evenly(rows, count)).tolist()]

    splits = {"forget": some(problem.direct("forget"), limit), "retain": some(problem.direct("retain"), FITTED)}
    return dataclasses.replace(problem, splits=splits, measured={})


def weights_alone(model: Any) -> Any:
    """A copy of a model without what was put in front of its weights: a guard at the embedding, an instruction.

    A LoRA adapter is merged into them.
    """
    bare = copy.deepcopy(model)
    if hasattr(bare, "merge_and_unload"):
        bare = bare.merge_and_unload()
    for module in bare.modules():
        module._forward_pre_hooks.clear()
    table = bare.get_input_embeddings()
    if type(table) is not nn.Embedding and isinstance(table, nn.Embedding):
        size = (table.num_embeddings, table.embedding_dim, table.padding_idx)
        plain = nn.Embedding(*size, _weight=table.weight.detach())
        plain.weight = table.weight  # the same parameter: what is tied to it stays tied
        bare.set_input_embeddings(plain)
    return bare.eval()


def depth(problem: Any, model: Any, seed: int) -> np.ndarray:
    """1 − UDS of each question against the first oracle (see `unlearning_depth`): 1 the original, 0 the oracle."""
    if not problem.oracles:
        raise UnlearnkitError("there is no oracle")
    original = problem.model
    pairs = [(qa.question, qa.answer) for qa in forgotten(problem)]
    coded = encode(problem.tokenizer, problem.template, pairs, context_length(original))
    batch = collate(coded, range(len(coded)), pad_id(problem.tokenizer)).to(problem.device)
    first, second = (patching_drops(original, m, batch).cpu().numpy() for m in (problem.oracle(0), model))
    tells = first > TELLING  # (layers, questions)
    weight = np.where(tells, first, 0.0)
    share = np.clip(np.divide(second, first, out=np.zeros_like(first), where=tells), 0, 1)
    total = weight.sum(0)
    return 1 - np.divide((weight * share).sum(0), total, out=np.full(len(total), np.nan), where=total > 0)


@torch.inference_mode()
def lens(problem: Any, model: Any, seed: int) -> np.ndarray:
    """Log-probability (nats) of the value's first token, mean over the layers between embeddings and output.

    Read by the model's own output embedding or by the original's, whichever finds more, and without its bias: an edit
    of the output layer alone must not hide what the layers below it hold.
    """
    items = [qa for qa in forgotten(problem) if qa.value in qa.answer]
    batch, positions, labels = at_value(problem, model, items)
    states = hidden_states(model, batch, positions)[1:-1]  # (inner layers, questions, width)
    if not len(states):
        raise UnlearnkitError("the model has no inner layer")
    found = []
    for reader in (model, problem.model):
        head = reader.get_output_embeddings()
        if head.weight.shape[1] == states.shape[-1]:
            normed = final_norm(reader)(states.to(head.weight.dtype))
            logp = nn.functional.linear(normed, head.weight).float().log_softmax(-1)
            found.append(logp.gather(2, labels[None, :, None].expand(len(states), -1, 1))[:, :, 0])
    return torch.stack(found).amax(0).mean(0).cpu().numpy()


def probe(problem: Any, model: Any, seed: int) -> np.ndarray:
    """Whether a linear probe fitted on retained facts reads the value, mean over the decoder layers."""
    curve = dict(Probe().curve(problem, model, (), seed))
    return np.mean([table["accuracy"].to_numpy() for layer, table in curve.items() if layer], axis=0)


def relearned(problem: Any, model: Any, seed: int) -> np.ndarray:
    """Probability of the answers that were not shown, after `STEPS` steps on those that were."""
    ((_, table),) = Relearn().curve(problem, model, [STEPS], seed)
    return np.exp(-table["nll"].to_numpy())
