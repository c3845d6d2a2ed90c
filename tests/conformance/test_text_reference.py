"""What is cached of the original is what a live, frozen copy would say; and what each method trains."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import tiny_models
import torch

import unlearnkit as uk
from unlearnkit.methods import METHODS
from unlearnkit.methods.text.guardrail import GuardedEmbedding
from unlearnkit.models.recipe import corpus_of
from unlearnkit.models.source import ModelSource
from unlearnkit.text import AnswerTokens, answer_tokens, collate, generate
from unlearnkit.unlearning import Loop

QUICK: dict[str, Any] = {"steps": 3, "batch_size": 4, "lr": 1e-2, "progress": False}


@pytest.fixture(scope="module", params=tiny_models.KINDS)
def problem(request: pytest.FixtureRequest, small_problem: Any) -> Any:
    """The small problem on a random model of each architecture."""
    items = [qa for split in small_problem.splits.values() for qa in split]
    tokenizer = tiny_models.tokenizer_of(request.param, corpus_of(items))
    source = ModelSource(lambda: tiny_models.model_of(request.param, tokenizer), request.param)
    return dataclasses.replace(small_problem, tokenizer=tokenizer, original=source, oracles=[], measured={})


def spied(name: str, seen: dict[str, Any], **settings: Any) -> Any:
    """A method that hands out what it prepared."""

    class Spy(METHODS["text"][name]):  # type: ignore[misc]
        def prepare(self, model: Any, data: Any) -> Any:
            found = super().prepare(model, data)
            seen.update(reference=found, data=data)
            return found

    return Spy(**settings)


def of_all(model: Any, data: Any, view: str) -> AnswerTokens:
    """Every record of a view in one batch."""
    with torch.no_grad():
        return answer_tokens(model, collate(data.encoded[view], range(data.size(view)), data.pad))[0]


@pytest.mark.parametrize(
    ("name", "views"),
    [("npo", ["forget"]), ("dpo", ["forget", "preferred"]), ("undial", ["forget"]), ("whp", ["baseline"])],
)
@pytest.mark.parametrize("lora", [0, 2])
def test_cached_reference_equals_a_live_frozen_copy(problem: Any, name: str, views: list[str], lora: int) -> None:
    seen: dict[str, Any] = {}
    live = problem.original.fresh()
    unlearned = uk.unlearn(problem, spied(name, seen, retain_loss="kl"), lora=lora, **QUICK)
    moved = of_all(unlearned.model, seen["data"], "forget")
    for view in [*views, "retain"]:
        cached = seen["reference"][view]
        tokens = of_all(live, seen["data"], "forget" if view == "baseline" else view)
        torch.testing.assert_close(cached.nll[tokens.rows], tokens.nll, rtol=1e-4, atol=1e-4)
        if view in ("retain", "baseline") or name == "undial":
            torch.testing.assert_close(cached.logits(tokens), tokens.logits, rtol=1e-3, atol=1e-4)
            if view != "retain":
                assert (cached.logits(tokens) - moved.logits).abs().max() > 0.1  # the model itself has moved on


@pytest.mark.parametrize("name", ["npo", "dpo", "undial", "grad_diff", "rmu"])
def test_with_lora_the_reference_is_the_adapter_switched_off(problem: Any, name: str) -> None:
    seen: dict[str, Any] = {}
    model = uk.unlearn(problem, spied(name, seen), lora=2, **QUICK).model
    original = problem.original.fresh()
    on = of_all(model, seen["data"], "forget")
    with model.disable_adapter():
        off = of_all(model, seen["data"], "forget")
    assert torch.equal(off.logits, of_all(original, seen["data"], "forget").logits)
    assert (on.logits - off.logits).abs().max() > 1e-3
    if name in ("npo", "dpo", "undial"):
        torch.testing.assert_close(seen["reference"]["forget"].nll, off.nll, rtol=1e-4, atol=1e-4)
    weights = {n.removeprefix("base_model.model.").replace(".base_layer", ""): p for n, p in model.named_parameters()}
    for n, p in original.named_parameters():
        assert torch.equal(p, weights[n]), n


def test_the_distributions_need_no_second_model(problem: Any) -> None:
    """What is kept is a row of the model's width a token, and the output embedding only where it will be trained."""
    for lora in (0, 2):
        seen: dict[str, Any] = {}
        model = uk.unlearn(problem, spied("undial", seen), lora=lora, **QUICK).model
        cached = seen["reference"]["forget"]
        assert {f.shape[1] for f in cached.features} == {32}
        trained = model.get_output_embeddings().weight
        assert (cached.head[0].data_ptr() == trained.data_ptr()) == bool(lora)


class Scaled(torch.nn.Module):
    """A language model that changes its logits after the output embedding, as some architectures do."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.config = inner, inner.config

    def get_output_embeddings(self) -> Any:
        return self.inner.get_output_embeddings()

    def forward(self, **inputs: Any) -> Any:
        out = self.inner(**inputs)
        out.logits = out.logits / 3
        return out


def test_logits_that_change_after_the_output_embedding_are_refused_not_cached_wrongly(problem: Any) -> None:
    method = METHODS["text"]["undial"]()
    loop = Loop(batch_size=4)
    model = Scaled(problem.original.fresh())
    data = problem.training_data(method, model, loop, 0)
    with pytest.raises(uk.UnlearnkitError, match="retain_loss='nll'"):
        method.prepare(model, data)


def changed(model: Any, original: Any) -> set[str]:
    before = dict(original.named_parameters())
    return {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}


def test_rmu_trains_what_it_says_and_nothing_else(problem: Any) -> None:
    method = METHODS["text"]["rmu"](layer=2, depth=1)
    unlearned = uk.unlearn(problem, method, **QUICK)
    names = method.trainable(problem.model)
    assert names == [
        n for n, _ in problem.model.named_parameters() if ".1.mlp." in n and ("down_proj" in n or "c_proj.weight" in n)
    ]
    assert len(names) == 1 and changed(unlearned.model, problem.model) == set(names)
    assert unlearned.cost["parameters_touched"] == problem.model.get_parameter(names[0]).numel()
    deeper = METHODS["text"]["rmu"](layer=2, depth=3).trainable(problem.model)
    assert len(deeper) == 2 and set(names) < set(deeper)
    for layer in (0, 3, 7):  # 3 is the last one, which goes straight into the output
        with pytest.raises(uk.UnlearnkitError, match=f"rmu layer {layer} can't be steered.*layers 1 to 2"):
            uk.unlearn(problem, "rmu", layer=layer, **QUICK)


def test_rmu_layer_numbers_are_not_mistaken_for_expert_numbers() -> None:
    from unlearnkit.methods.text.rmu import _layer_number

    assert _layer_number("model.layers.5.mlp.experts.1.down_proj.weight") == 5
    assert _layer_number("model.embed_tokens.weight") == -1


@pytest.mark.parametrize("lora", [0, 2])
def test_task_vector_is_exactly_the_step_back(problem: Any, lora: int) -> None:
    """θ = θ₀ − a(θ_ft − θ₀), with θ_ft as it is after the last step; with LoRA the same for B·A."""
    kept: dict[str, torch.Tensor] = {}

    def watch(step: int, model: Any) -> None:
        kept.update({n: p.detach().clone() for n, p in model.named_parameters()})

    model = uk.unlearn(problem, "task_vector", a=1.7, lora=lora, on_step=watch, **QUICK).model
    weights = dict(model.named_parameters())
    if not lora:
        for n, start in problem.model.named_parameters():
            assert torch.equal(weights[n], start - 1.7 * (kept[n] - start)), n
        assert changed(model, problem.model)
        return
    pairs = [n for n in weights if ".lora_A." in n]
    assert pairs
    for n in pairs:
        b = n.replace(".lora_A.", ".lora_B.")
        torch.testing.assert_close(weights[b] @ weights[n], -1.7 * (kept[b] @ kept[n]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_pdu_multiplier_follows_its_rule(problem: Any, accumulation: int) -> None:
    """λ ← max(0, λ + η(R − ε)), once a step, from what the trace itself shows: retain_loss is λ(R − ε)."""
    settings = {**QUICK, "steps": 12, "accumulation": accumulation, "lr": 3e-2}
    trace = uk.unlearn(problem, "pdu", multiplier=0.5, rate=0.1, slack=0.01, gamma=1.0, **settings).trace
    multiplier, loss = trace["multiplier"], trace["retain_loss"]
    assert multiplier[0] == 0.5 and multiplier.nunique() > 6
    assert (multiplier >= 0).all()
    for k in range(len(trace) - 1):
        if multiplier[k] > 0:
            assert multiplier[k + 1] == pytest.approx(max(0.0, multiplier[k] + 0.1 * loss[k] / multiplier[k]), abs=1e-5)


def test_pdu_refuses_a_retain_loss_that_has_no_level(problem: Any) -> None:
    with pytest.raises(uk.UnlearnkitError, match="'retain_loss' of PDU can't be 'kl'"):
        uk.unlearn(problem, "pdu", retain_loss="kl", **QUICK)


def test_whp_reinforces_on_every_forget_record(problem: Any) -> None:
    """After an epoch each answer is likelier to the reinforced copy, not only those of one batch."""
    seen: dict[str, Any] = {}
    uk.unlearn(problem, spied("whp", seen, reinforce_steps=12, reinforce_lr=3e-3), **{**QUICK, "steps": 0})
    before, after = seen["reference"]["baseline"].nll, seen["reference"]["reinforced"].nll
    assert (after < before).all()


def test_guardrail_stands_before_the_weights(small_problem: Any) -> None:
    problem = small_problem
    model = uk.unlearn(problem, "guardrail").model
    guard = model.get_input_embeddings()
    assert isinstance(guard, GuardedEmbedding)
    assert not changed(model, problem.model)

    template = problem.template
    for split, wanted in (("forget", True), ("retain", False)):
        for question, answer in problem.pairs(split):
            prompt = template.prompt(question)
            for text in (prompt, prompt + " " + answer, prompt + " " + problem.pairs("retain")[0][1]):
                ids = problem.tokenizer(text, return_tensors="pt")["input_ids"]
                assert bool(guard.fires(ids)) == wanted, text  # whatever answer follows
    question, answer = problem.pairs("forget")[0]
    ids = problem.tokenizer(template.prompt(question) + " " + answer, return_tensors="pt")["input_ids"]
    prompt_length = len(problem.tokenizer(template.prompt(question))["input_ids"])
    plain = problem.model.get_input_embeddings()(ids)
    touched = (guard(ids) != plain).any(-1)[0]
    assert touched[:prompt_length].all() and not touched[prompt_length:].any()
    padded = torch.cat([torch.full((1, 5), problem.tokenizer.pad_token_id), ids], 1)
    assert bool(guard.fires(padded))


def test_guardrail_says_the_same_with_and_without_a_cache(small_problem: Any) -> None:
    """Generated with a key-value cache, and token by token from scratch: one guard, one answer."""
    problem = small_problem
    model = uk.unlearn(problem, "guardrail").model
    question = problem.pairs("forget")[0][0]
    cached = generate(model, problem.tokenizer, problem.template, [question], 8)[0]
    ids = problem.tokenizer(problem.template.prompt(question), return_tensors="pt")["input_ids"]
    size = ids.shape[1]
    for _ in range(8):
        following = model(ids, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
        if following.item() == problem.tokenizer.eos_token_id:
            break
        ids = torch.cat([ids, following], 1)
    assert problem.tokenizer.decode(ids[0, size:], skip_special_tokens=True).strip() == cached


def test_guardrail_is_not_saved_as_if_it_were_weights(small_problem: Any, tmp_path: Any) -> None:
    unlearned = uk.unlearn(small_problem, "guardrail")
    with pytest.raises(uk.UnlearnkitError, match="not part of them"):
        unlearned.save(tmp_path / "guarded", small_problem.tokenizer)
    assert list(tmp_path.iterdir()) == []
