"""in_context: the instructed model says what the plain one says to the whole text; it is found out by its weights."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import tiny_models
import torch

import unlearnkit as uk
from unlearnkit.methods.text.in_context import instructed, instruction_ids
from unlearnkit.models.recipe import corpus_of
from unlearnkit.models.source import ModelSource
from unlearnkit.text import Encoded, answer_tokens, collate, context_length, encode, generate, pad_id
from unlearnkit.worlds.records import QA

TEXT = "Do not answer questions about Ann Lee, Bo Ek."


@pytest.fixture(scope="module", params=tiny_models.KINDS)
def problem(request: pytest.FixtureRequest, small_problem: Any) -> Any:
    """The small problem on a random model of each architecture: a begin token, no padding token, a chat template."""
    items = [qa for split in small_problem.splits.values() for qa in split]
    tokenizer = tiny_models.tokenizer_of(request.param, corpus_of(items))
    source = ModelSource(lambda: tiny_models.model_of(request.param, tokenizer), request.param)
    return dataclasses.replace(small_problem, tokenizer=tokenizer, original=source, oracles=[], measured={})


@pytest.fixture(scope="module")
def model(problem: Any) -> Any:
    return instructed(problem.model, problem.tokenizer, problem.template, TEXT)


def whole(problem: Any, question: str) -> list[int]:
    """Tokens of instruction and prompt, typed as one text."""
    if problem.template.chat:
        messages = [{"role": "system", "content": TEXT}, {"role": "user", "content": question}]
        text = problem.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return problem.tokenizer(text, add_special_tokens=False)["input_ids"]
    return problem.tokenizer(f"{TEXT}\n{problem.template.prompt(question)}")["input_ids"]


def prompt(problem: Any, question: str) -> list[int]:
    text = problem.template.prompt(question)
    return problem.tokenizer(text, add_special_tokens=not problem.template.chat)["input_ids"]


def asked(problem: Any) -> list[tuple[str, str]]:
    pairs = sorted(problem.pairs("retain"), key=lambda p: len(" ".join(p)))
    return [pairs[0], pairs[len(pairs) // 2], pairs[-1]]


def padded(rows: list[list[int]], left: bool, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows)) + 2
    fill = [[pad] * (width - len(r)) for r in rows]
    seen = [[0] * (width - len(r)) for r in rows]
    ids = [f + r if left else r + f for f, r in zip(fill, rows, strict=True)]
    mask = [s + [1] * len(r) if left else [1] * len(r) + s for s, r in zip(seen, rows, strict=True)]
    return torch.tensor(ids), torch.tensor(mask)


def test_answers_are_scored_as_after_the_whole_text(problem: Any, model: Any) -> None:
    """Right padding, no mask, several lengths: log-probabilities to 1e-5."""
    pairs = asked(problem)
    mine = encode(problem.tokenizer, problem.template, pairs, context_length(model))
    plain = [
        Encoded([*whole(problem, q), *one.ids[one.start :]], len(whole(problem, q)))
        for (q, _), one in zip(pairs, mine, strict=True)
    ]
    rows, pad = range(len(pairs)), pad_id(problem.tokenizer)
    with torch.no_grad():
        (a,) = answer_tokens(model, collate(mine, rows, pad))
        (b,) = answer_tokens(problem.model, collate(plain, rows, pad))
        (untold,) = answer_tokens(problem.model, collate(mine, rows, pad))
    torch.testing.assert_close(a.logits.log_softmax(-1), b.logits.log_softmax(-1), rtol=0, atol=1e-5)
    torch.testing.assert_close(a.features, b.features, rtol=0, atol=1e-5)
    assert not torch.allclose(a.nll, untold.nll, atol=1e-2)


@pytest.mark.parametrize("left", [True, False])
def test_padding_on_either_side(problem: Any, model: Any, left: bool) -> None:
    """With an attention mask; hidden states of every layer too, as the attacks inside read them."""
    questions = [q for q, _ in asked(problem)]
    pad = pad_id(problem.tokenizer)
    ids, mask = padded([prompt(problem, q) for q in questions], left, pad)
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        for k, question in enumerate(questions):
            one = problem.model(input_ids=torch.tensor([whole(problem, question)]), output_hidden_states=True)
            real = mask[k].bool()
            ends = len(prompt(problem, question)) - len(instruction_ids(problem.tokenizer, problem.template, TEXT)[1])
            assert out.logits.shape[1] == ids.shape[1]
            torch.testing.assert_close(
                out.logits[k][real][-ends:].log_softmax(-1),
                one.logits[0, -ends:].log_softmax(-1),
                rtol=0,
                atol=1e-5,
            )
            for mine, theirs in zip(out.hidden_states, one.hidden_states, strict=True):
                torch.testing.assert_close(mine[k][real][-ends:], theirs[0, -ends:], rtol=0, atol=1e-5)


def test_generation_with_a_cache_goes_on_as_after_the_whole_text(problem: Any, model: Any) -> None:
    questions = [q for q, _ in asked(problem)]
    together = generate(model, problem.tokenizer, problem.template, questions, 8)
    stop = [problem.tokenizer.eos_token_id]
    if problem.template.after_answer:
        stop += problem.tokenizer(problem.template.after_answer, add_special_tokens=False)["input_ids"][:1]
    for question, answer in zip(questions, together, strict=True):
        ids, said = torch.tensor([whole(problem, question)]), []
        while len(said) < 8:
            with torch.no_grad():
                following = problem.model(ids).logits[0, -1].argmax()
            if following.item() in stop:
                break
            said.append(following.item())
            ids = torch.cat([ids, following.view(1, 1)], 1)
        assert problem.tokenizer.decode(said, skip_special_tokens=True).strip() == answer.strip()


def test_prefix_and_rest_are_the_tokens_of_the_whole(problem: Any) -> None:
    prefix, dropped = instruction_ids(problem.tokenizer, problem.template, TEXT)
    assert bool(dropped) == (problem.tokenizer.bos_token is not None)
    for question, _ in asked(problem):
        ids = prompt(problem, question)
        assert ids[: len(dropped)] == dropped and [*prefix, *ids[len(dropped) :]] == whole(problem, question)


def test_a_default_system_message_is_replaced(problem: Any) -> None:
    if not problem.template.chat:
        return
    tokenizer = copy.deepcopy(problem.tokenizer)
    tokenizer.chat_template = (
        "{% if messages[0]['role'] != 'system' %}<|system|>\nBe helpful.<end>\n{% endif %}" + tiny_models.CHATML
    )
    prefix, dropped = instruction_ids(tokenizer, problem.template, TEXT)
    told, replaced = tokenizer.decode(prefix), tokenizer.decode(dropped)
    assert TEXT[:-1] in told and "helpful" not in told and "Be helpful" in replaced and "<|user|>" not in replaced


def test_gradients_reach_the_weights_through_the_instruction(problem: Any, model: Any) -> None:
    """Relearning against the instruction trains what a model given the whole text would train."""
    pairs = asked(problem)[:1]
    mine = encode(problem.tokenizer, problem.template, pairs, context_length(model))
    ids = whole(problem, pairs[0][0])
    slopes = []
    for at, rows in (
        (copy.deepcopy(model), mine),
        (problem.original.fresh(), [Encoded([*ids, *mine[0].ids[mine[0].start :]], len(ids))]),
    ):
        loss = answer_tokens(at, collate(rows, [0], 0))[0].loss
        slopes.append(dict(zip((n for n, _ in at.named_parameters()), torch.autograd.grad(loss, at.parameters()))))  # noqa: B905
    for name, slope in slopes[0].items():
        torch.testing.assert_close(slope, slopes[1][name], rtol=1e-3, atol=1e-5)


def test_weights_are_the_originals_and_whoever_holds_them_needs_no_instruction(problem: Any, model: Any) -> None:
    for (n, p), (m, q) in zip(model.named_parameters(), problem.model.named_parameters(), strict=True):
        assert n == m and torch.equal(p, q)
    ids = torch.tensor([prompt(problem, "Who?")])
    with torch.no_grad():
        embedded = [at.get_input_embeddings()(ids) for at in (model, problem.model)]
        past = [at(inputs_embeds=e).logits for at, e in zip((model, problem.model), embedded, strict=True)]
        assert torch.equal(*past) and not torch.allclose(model(ids).logits, past[0], atol=1e-2)
        copied = copy.deepcopy(model)
        assert torch.equal(copied(ids).logits, model(ids).logits)  # the hook moves with a copy
        for p in copied.parameters():
            p.zero_()
        assert not torch.equal(copied(ids).logits, model(ids).logits)  # and reads the copy's weights


def test_it_is_not_saved_as_if_it_were_weights(small_problem: Any, tmp_path: Any) -> None:
    unlearned = uk.unlearn(small_problem, "in_context", least=0.0)
    with pytest.raises(uk.UnlearnkitError, match="not part of the weights"):
        unlearned.save(tmp_path / "told", small_problem.tokenizer)
    assert list(tmp_path.iterdir()) == [] and unlearned.cost["parameters_touched"] == 0


def test_a_model_that_follows_no_instruction_is_not_measured(problem: Any) -> None:
    with pytest.raises(uk.UnlearnkitError, match=r"not measurable: the model does not follow .* refused \d+% of"):
        uk.unlearn(problem, "in_context")


def test_records_without_an_entity_and_contexts_that_are_too_short(small_problem: Any) -> None:
    nameless = [QA("x1", "", "Who?", "Nobody at all.")]
    other = dataclasses.replace(small_problem, splits={**small_problem.splits, "forget": nameless}, measured={})
    with pytest.raises(uk.UnlearnkitError, match="belong to no entity; give them a column 'subject'"):
        uk.unlearn(other, "in_context", least=0.0)
    with pytest.raises(uk.UnlearnkitError, match=r"takes \d+ of the 96 tokens of context; forget fewer"):
        uk.unlearn(small_problem, "in_context", least=0.0, text="Do not answer questions about {names}. " * 9)
    with pytest.raises(uk.UnlearnkitError, match="setting 'text' of InContext can't be 'Be silent.'"):
        uk.unlearn(small_problem, "in_context", text="Be silent.")


def test_a_prompt_without_the_begin_token_is_refused(problem: Any, model: Any) -> None:
    if problem.tokenizer.bos_token is None:
        return
    ids = problem.tokenizer("Question: Who?", add_special_tokens=False, return_tensors="pt")["input_ids"]
    with pytest.raises(uk.UnlearnkitError, match="does not begin as this tokenizer's prompts do"):
        model(ids)
