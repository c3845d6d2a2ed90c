"""Which tokens count: the −100 mask, the one-token shift, padding, and the hidden states at the answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models
import torch
from toy import END, FORGET, RETAIN, Plain, Toy, ce, original

from unlearnkit.models.recipe import corpus_of
from unlearnkit.text import (
    Encoded,
    Template,
    answer_tokens,
    by_length,
    collate,
    encode,
    shuffled_batches,
    stack,
    template_of,
)
from unlearnkit.worlds import authors

WORLD = authors(n_authors=4, facts=3, holdout=0)
PAIRS = [(qa.question, qa.answer) for qa in WORLD.items[:12]]


@pytest.fixture(scope="module", params=tiny_models.KINDS)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    tokenizer = tiny_models.tokenizer_of(request.param, corpus_of(WORLD.items))
    return tiny_models.model_of(request.param, tokenizer), tokenizer


def encoded(rows: Any) -> list[Encoded]:
    return [Encoded(ids, start) for ids, start in rows]


def test_labels_are_the_answer_and_minus_100_elsewhere() -> None:
    batch = collate(encoded(FORGET), [1, 0], END)
    assert batch.ids.tolist() == [[1, 0, 2, 2, 1, 3], [0, 1, 2, 3, END, END]]
    assert batch.labels.tolist() == [[-100, -100, -100, 2, 1, 3], [-100, -100, 2, 3, -100, -100]]
    assert batch.rows.tolist() == [1, 0]
    both = stack([batch, collate(encoded(RETAIN), [0], END)])
    assert both.labels.tolist()[2] == [-100, -100, 1, 3, -100, -100]


def test_logits_of_position_t_predict_token_t_plus_1() -> None:
    """In the toy the logits are a function of the position; the right ones are written out here."""
    model = original()
    plain = Plain.of(model)
    (tokens,) = answer_tokens(model, collate(encoded(FORGET), [0, 1], END))
    wanted = [plain.logits(1, 1), plain.logits(2, 2), plain.logits(2, 2), plain.logits(3, 2), plain.logits(4, 1)]
    assert torch.equal(tokens.logits, torch.tensor(wanted, dtype=torch.float64))
    assert tokens.labels.tolist() == [2, 3, 2, 1, 3] and tokens.sequence.tolist() == [0, 0, 1, 1, 1]
    assert tokens.lengths.tolist() == [2.0, 3.0]
    by_hand = [ce(z, y) for z, y in zip(wanted, [2, 3, 2, 1, 3], strict=True)]
    assert tokens.nll.tolist() == pytest.approx([sum(by_hand[:2]), sum(by_hand[2:])])
    assert tokens.loss.item() == pytest.approx(sum(by_hand) / 5)  # over tokens, not over sequences


def test_one_forward_for_several_batches_gives_what_each_gives_alone() -> None:
    model = original()
    first, second = collate(encoded(FORGET), [0, 1], END), collate(encoded(RETAIN), [1, 0], END)
    for together, alone in zip(
        answer_tokens(model, first, second, layer=1),
        [answer_tokens(model, b, layer=1)[0] for b in (first, second)],
        strict=True,
    ):
        for name in ("logits", "labels", "sequence", "features", "rows", "hidden"):
            assert torch.equal(getattr(together, name), getattr(alone, name)), name


def test_the_output_embedding_sees_answers_only() -> None:
    """Prompt and padding never reach the vocabulary: that is what keeps memory small."""
    seen = []

    class Watched(Toy):
        def forward(self, *args: Any, **kwargs: Any) -> SimpleNamespace:
            out = super().forward(*args, **kwargs)
            seen.append(out.logits.shape)  # type: ignore[attr-defined]
            return out  # type: ignore[return-value]

    model = Watched(torch.zeros(7, 4, 4), torch.eye(4))
    answer_tokens(model, collate(encoded(FORGET), [0, 1], END))
    assert seen == [(5, 4)]
    answer_tokens(model, collate(encoded(FORGET), [0, 1], END))
    assert len(model.head._forward_pre_hooks) == 0  # nothing is left behind


def test_the_hook_is_gone_after_an_error() -> None:
    model = original()
    model.table.data = model.table.data[:, :, :2]  # the output embedding can't take this
    with pytest.raises(RuntimeError):
        answer_tokens(model, collate(encoded(FORGET), [0, 1], END))
    assert len(model.head._forward_pre_hooks) == 0


def test_the_loss_is_transformers_own(pair: tuple[Any, Any]) -> None:
    """ℓ equals what the architecture itself computes from the same labels, with a right attention mask."""
    model, tokenizer = pair
    rows = encode(tokenizer, template_of(tokenizer), PAIRS, tiny_models.CONTEXT)
    batch = collate(rows, range(len(rows)), tokenizer.eos_token_id)
    mask = torch.zeros_like(batch.ids)
    for k, row in enumerate(rows):
        mask[k, : len(row.ids)] = 1
    own = model(input_ids=batch.ids, attention_mask=mask, labels=batch.labels).loss
    assert answer_tokens(model, batch)[0].loss.item() == pytest.approx(own.item(), rel=1e-5)


def test_padding_is_invisible_even_when_it_is_the_end_token(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    rows = encode(tokenizer, template_of(tokenizer), PAIRS, tiny_models.CONTEXT)
    alone = [answer_tokens(model, collate(rows, [k], 0))[0].nll.item() for k in range(len(rows))]
    for pad in (tokenizer.eos_token_id, 0, 7):
        together = answer_tokens(model, collate(rows, range(len(rows)), pad))[0].nll
        assert together.tolist() == pytest.approx(alone, rel=1e-4)


def test_hidden_states_are_those_of_the_layer(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    rows = encode(tokenizer, template_of(tokenizer), PAIRS[:3], tiny_models.CONTEXT)
    batch = collate(rows, [0, 1, 2], 0)
    states = model(input_ids=batch.ids, output_hidden_states=True).hidden_states
    for layer in (0, 1, 2):
        hidden = answer_tokens(model, batch, layer=layer)[0].hidden
        assert hidden is not None
        assert torch.equal(hidden, states[layer][batch.labels != -100])


def test_an_answer_is_closed_by_the_end_token_and_starts_after_the_prompt(pair: tuple[Any, Any]) -> None:
    """TOFU's convention: the end token is one of the answer's tokens; prompts are what generation starts from."""
    model, tokenizer = pair
    template = template_of(tokenizer)
    (row,) = encode(tokenizer, template, [("Who was it?", "Ada.")], 128)
    prompt = tokenizer(template.prompt("Who was it?"), add_special_tokens=not template.chat)["input_ids"]
    assert row.ids[: row.start] == prompt and row.ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(row.ids[row.start : -1]).strip() == "Ada."
    if template.chat:
        user = [{"role": "user", "content": "Who was it?"}]
        own = tokenizer.apply_chat_template(user, add_generation_prompt=True, tokenize=True)
        assert prompt == (own["input_ids"] if isinstance(own, dict) or hasattr(own, "keys") else own)
    elif tokenizer.bos_token_id is not None:
        assert row.ids[0] == tokenizer.bos_token_id and tokenizer.bos_token_id not in row.ids[1:]


def test_a_template_that_drops_the_message_is_refused() -> None:
    tokenizer = tiny_models.tokenizer_of("qwen2", ["Who?"])
    tokenizer.chat_template = "{% for m in messages %}<|{{ m['role'] }}|>{% endfor %}"
    with pytest.raises(ValueError, match="chat template drops or repeats"):
        template_of(tokenizer)


def test_plain_template_by_hand() -> None:
    assert Template().prompt("Who?") == "Question: Who?\nAnswer:"


def test_epochs_cover_every_record_in_full_batches() -> None:
    import random

    rows = [Encoded([0] * (3 + k % 5), 1) for k in range(23)]
    batches = shuffled_batches(rows, 5, random.Random(0))
    assert [len(b) for b in batches] == [5] * 5 and {i for b in batches for i in b} == set(range(23))
    assert shuffled_batches(rows, 64, random.Random(0))[0] != list(range(23))
    assert sorted(shuffled_batches(rows, 64, random.Random(0))[0]) == list(range(23))
    lengths = [len(rows[i].ids) for b in by_length(rows, 4) for i in b]
    assert lengths == sorted(lengths, reverse=True) and len(lengths) == 23
