"""Initial weights with an induction circuit, for tiny models that are to compare names in their prompt."""

from __future__ import annotations

from typing import Any

import torch

from unlearnkit.errors import UnlearnkitError

SCALE = 0.1  # standard deviation of an embedding's entries
SHARP = 6.0  # of the heads that look back by position
MATCH = 2.0  # of the heads that look for the same token
BACK = 0.3  # length of what the former hand on, beside a token's own embedding


@torch.no_grad()
def start_induction(model: Any) -> None:
    """Set the first two heads of the first two layers of a fresh Llama to an induction circuit, in place.

    Olsson et al. 2022, arXiv 2209.11895: layer 0 copies into a token what stands one (head 0) and two (head 1) places
    before it; layer 1 looks for the place behind an earlier occurrence of the token (head 0), and for the one whose
    last but one is what stands before the token (head 1). All of it is trained on like any other initial weight: from
    a plain start these models did not come to compare names within eight CPU minutes. Draws from torch's generator.

    Raises:
        UnlearnkitError: fewer than two layers or four heads.
    """
    width, size = model.config.hidden_size, model.config.hidden_size // model.config.num_attention_heads
    if model.config.num_hidden_layers < 2 or width < 3 * size + 1:
        raise UnlearnkitError("a model that is taught instructions needs at least 2 layers and 4 heads.")
    # every embedding has the same part along `always`, which the positional heads read; three subspaces beside it
    always = torch.sign(torch.randn(width)) / width**0.5
    basis = torch.linalg.qr(torch.cat([always[:, None], torch.randn(width, width - 1)], 1))[0]
    token, before, second = (basis[:, 1 + k * size : 1 + (k + 1) * size] for k in range(3))  # (width, size)
    embedding = model.get_input_embeddings().weight
    embedding.normal_(0, SCALE)
    embedding += (SCALE * width**0.5 - embedding @ always)[:, None] * always
    turn = model.model.rotary_emb.inv_freq  # (size / 2,) radians a place
    near = (turn > 0.05).to(turn.dtype)  # turns fast enough to tell places apart; the others to find the same token
    back, match = (layer.self_attn for layer in model.model.layers[:2])
    heads = [(1, before, token, before, 2.0), (2, second, before, second, 1.0)]
    for head, (places, out, mine, theirs, scale) in enumerate(heads):
        rows = slice(head * size, (head + 1) * size)
        query = torch.cat([near, 0 * near])
        key = torch.cat([(turn * places).cos() * near, (turn * places).sin() * near])
        back.q_proj.weight[rows] = SHARP * torch.outer(query, always) / (width / 2) ** 0.5
        back.k_proj.weight[rows] = SHARP * torch.outer(key, always) / (width / 2) ** 0.5
        back.v_proj.weight[rows] = token.T
        back.o_proj.weight[:, rows] = BACK * out
        match.q_proj.weight[rows] = scale * MATCH * (1 - near.repeat(2))[:, None] * mine.T
        match.k_proj.weight[rows] = MATCH * (1 - near.repeat(2))[:, None] * theirs.T
