"""One teacher-forced pass and one generation pass: each column against what a plain loop over the logits gives."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny_models
import torch
import yaml

import unlearnkit as uk
from unlearnkit.errors import UnlearnkitError
from unlearnkit.metrics.measure import REFUSING, gradient_norms, measure, measured_items, says, score_sequences
from unlearnkit.metrics.table import arrays
from unlearnkit.models.recipe import corpus_of
from unlearnkit.models.source import ModelSource
from unlearnkit.paths import data_dir
from unlearnkit.text import answer_tokens, collate, encode, generate, shared_answer_tokens, shared_prefixes
from unlearnkit.worlds import authors


@pytest.fixture(scope="module", params=("small", *tiny_models.KINDS))
def problem(request: pytest.FixtureRequest, small_problem: Any) -> Any:
    """The small problem with its own model, and with random ones of three architectures."""
    if request.param == "small":
        return small_problem
    items = [qa for split in small_problem.splits.values() for qa in split]
    tokenizer = tiny_models.tokenizer_of(request.param, corpus_of(items))
    source = ModelSource(lambda: tiny_models.model_of(request.param, tokenizer), request.param)
    return dataclasses.replace(small_problem, tokenizer=tokenizer, original=source, oracles=[], measured={})


def plain(problem: Any, question: str, answer: str) -> tuple[list[list[float]], list[int]]:
    """Log-probabilities that predict each answer token, and the tokens, from one full forward pass on one sequence."""
    tokenizer, template = problem.tokenizer, problem.template
    prompt = tokenizer(template.prompt(question), add_special_tokens=not template.chat)["input_ids"]
    tail = tokenizer(template.answer_prefix + answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    with torch.no_grad():
        logp = problem.model(torch.tensor([prompt + tail])).logits[0].log_softmax(-1)
    return logp[len(prompt) - 1 : -1].tolist(), tail


def test_every_teacher_forced_column(problem: Any) -> None:
    pairs = [(qa.question, text) for qa in problem.direct("forget") for text in (qa.answer, qa.perturbed_answers[0])]
    table = score_sequences(problem, problem.model, pairs, batch_size=4)
    for k, (question, answer) in enumerate(pairs):
        rows, labels = plain(problem, question, answer)
        lp = [row[y] for row, y in zip(rows, labels, strict=True)]
        right = [row.index(max(row)) == y for row, y in zip(rows, labels, strict=True)]
        prefix = next((j for j in range(len(right)) if all(right[j:])), len(right))
        z = []
        for row, own in zip(rows, lp, strict=True):
            mean = sum(math.exp(v) * v for v in row)
            z.append((own - mean) / math.sqrt(sum(math.exp(v) * (v - mean) ** 2 for v in row)))
        low = max(1, int(0.4 * len(lp)))
        wanted = {
            "nll": -sum(lp),
            "mean_nll": -sum(lp) / len(lp),
            "tokens": len(lp),
            "exact": sum(right) / len(right),
            "extraction": 1 - prefix / len(right),
            "min_k": sum(sorted(lp)[:low]) / low,
            "min_k_plus": sum(sorted(z)[:low]) / low,
        }
        assert table.loc[k].to_dict() == pytest.approx(wanted, rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("kind", ["plain", "guardrail", "LoRA"])
def test_what_answers_share_is_read_once_and_changes_nothing(problem: Any, kind: str) -> None:
    settings: dict[str, Any] = {"lora": 2, "steps": 2, "lr": 1e-2, "alpha": 0, "progress": False}
    name = "guardrail" if kind == "guardrail" else "grad_diff"
    model = (
        problem.model if kind == "plain" else uk.unlearn(problem, name, **(settings if kind == "LoRA" else {})).model
    )
    asked = [qa for split in ("forget", "retain") for qa in problem.direct(split)]
    pairs = [(qa.question, text) for qa in asked for text in (qa.answer, *qa.options, *qa.perturbed_answers)]
    coded = encode(problem.tokenizer, problem.template, pairs, 96)
    groups = shared_prefixes(coded)
    assert sorted(i for g in groups for i in g.rows) == list(range(len(pairs)))
    for g in groups:
        assert len({tuple(coded[i].ids[: g.length]) for i in g.rows}) == 1
        assert all(coded[i].start <= g.length < len(coded[i].ids) for i in g.rows)
    read = sum(g.length + sum(len(coded[i].ids) - 1 - g.length for i in g.rows) for g in groups)
    assert read < 0.5 * sum(len(e.ids) for e in coded)
    for batch in (groups[:3], groups):
        rows = [i for g in batch for i in g.rows]
        shared = shared_answer_tokens(model, coded, batch, 0)
        with torch.no_grad():
            (each,) = answer_tokens(model, collate(coded, rows, 0))
        for column in ("labels", "sequence", "rows"):
            assert torch.equal(getattr(shared, column), getattr(each, column))
        assert torch.allclose(shared.logits, each.logits, atol=2e-4)
        assert torch.allclose(shared.features, each.features, atol=2e-4)


def test_details_only_where_they_are_wanted(problem: Any) -> None:
    pairs = problem.pairs("forget")[:3]
    whole = score_sequences(problem, problem.model, pairs)
    part = score_sequences(problem, problem.model, pairs, detailed=[True, False, True])
    assert part.loc[[0, 2]].equals(whole.loc[[0, 2]]) and part.loc[1, "exact":].isna().all()
    assert part[["nll", "mean_nll", "tokens"]].equals(whole[["nll", "mean_nll", "tokens"]])


def test_gradient_norm_is_that_of_the_token_mean_over_all_weights(problem: Any) -> None:
    question, answer = problem.pairs("forget")[0]
    model = problem.original.fresh()
    rows, labels = plain(problem, question, answer)
    tokenizer, template = problem.tokenizer, problem.template
    prompt = tokenizer(template.prompt(question), add_special_tokens=not template.chat)["input_ids"]
    logits = model(torch.tensor([prompt + labels])).logits[0, len(prompt) - 1 : -1]
    torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).backward()
    wanted = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))
    problem.model.get_input_embeddings().weight.requires_grad_(False)  # as some callers leave it
    (found,) = gradient_norms(problem, problem.model, [(question, answer)])
    assert found == pytest.approx(wanted, rel=1e-4)
    assert not problem.model.get_input_embeddings().weight.requires_grad
    problem.model.get_input_embeddings().weight.requires_grad_(True)
    assert all(p.grad is None for p in problem.model.parameters())


def test_batched_generation_is_greedy_and_the_same_one_by_one(problem: Any) -> None:
    questions = [q for q, _ in problem.pairs("forget")[:5]] + ["Who?"]
    together = generate(problem.model, problem.tokenizer, problem.template, questions, 12)
    tokenizer, template = problem.tokenizer, problem.template
    for question, said in zip(questions, together, strict=True):
        assert generate(problem.model, tokenizer, template, [question], 12) == [said]
        ids = torch.tensor([tokenizer(template.prompt(question), add_special_tokens=not template.chat)["input_ids"]])
        size = ids.shape[1]
        for _ in range(12):
            with torch.no_grad():
                best = problem.model(ids).logits[:, -1].argmax(-1, keepdim=True)
            if best.item() == tokenizer.eos_token_id:
                break
            ids = torch.cat([ids, best], 1)
        assert tokenizer.decode(ids[0, size:], skip_special_tokens=True).strip() == said


def test_a_models_own_generation_settings_do_not_leak_in(problem: Any) -> None:
    questions = [q for q, _ in problem.pairs("forget")[:4]]
    ask = (problem.tokenizer, problem.template, questions, 16)
    before = generate(problem.model, *ask)
    changed = problem.original.fresh()
    changed.generation_config.repetition_penalty = 3.0
    changed.generation_config.no_repeat_ngram_size = 1
    changed.generation_config.num_beams = 3
    assert generate(changed, *ask) == before
    assert changed.generation_config.repetition_penalty == 3.0  # and are there again afterwards


def test_samples_are_seeded_and_grouped_by_question(small_problem: Any) -> None:
    questions = [q for q, _ in small_problem.pairs("forget")[:3]]
    ask = (small_problem.model, small_problem.tokenizer, small_problem.template)
    state = torch.random.get_rng_state()
    first, again, other = (generate(*ask, questions, 8, samples=4, seed=s, temperature=1.5) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(first) == 12 and first == again != other and len(set(first)) > 3
    cold = generate(*ask, questions, 8, samples=2, temperature=1e-4)
    greedy = generate(*ask, questions, 8)
    assert cold == [greedy[0], greedy[0], greedy[1], greedy[1], greedy[2], greedy[2]]


def test_generation_ends_where_the_context_does(problem: Any) -> None:
    """Learned positions have no room beyond the context; a question that fills it is refused."""
    context, long = problem.model.config.max_position_embeddings, ""
    while len(problem.tokenizer(problem.template.prompt(long))["input_ids"]) < context - 12:
        long += "more "
    (said,) = generate(problem.model, problem.tokenizer, problem.template, [long], 64)
    assert isinstance(said, str)
    with pytest.raises(ValueError, match="leaves no room for an answer in a context of"):
        generate(problem.model, problem.tokenizer, problem.template, [long * 3], 64)


def test_the_whole_measurement(small_problem: Any) -> None:
    problem = dataclasses.replace(small_problem, measured={})
    model = problem.model
    model.train()
    table = measure(problem, model, limit=12).items
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    model.eval()
    asked = measured_items(problem, 12)
    assert list(table.index) == [(split, qa.id) for split, qa in asked]
    assert {split for split, _ in asked} == {"forget", "retain", "neighbours", "general", "holdout"}
    assert all(qa.primary for _, qa in asked)
    for (split, qa), (_, row) in zip(asked, table.iterrows(), strict=True):
        lp, labels = plain(problem, qa.question, qa.answer)
        assert row["mean_nll"] == pytest.approx(-np.mean([p[y] for p, y in zip(lp, labels, strict=True)]), rel=1e-3)
        if split != "forget":
            assert math.isnan(row["own_nll"]) and math.isnan(row["original_nll"])
        assert math.isnan(row["grad_norm"]) == (split not in ("forget", "holdout"))
        assert row["correct"] == float(says(row["answer"], qa.value))
    qa = asked[0][1]
    wrong = [plain(problem, qa.question, w) for w in qa.perturbed_answers]
    nll = [-np.mean([p[y] for p, y in zip(lp, labels, strict=True)]) for lp, labels in wrong]
    assert table.iloc[0]["perturbed_nll_mean"] == pytest.approx(np.mean(nll), rel=1e-3)
    options = [plain(problem, qa.question, w) for w in qa.options]
    nll = [-np.mean([p[y] for p, y in zip(lp, labels, strict=True)]) for lp, labels in options]
    assert table.iloc[0]["option_nll_min"] == pytest.approx(min(nll), rel=1e-3)
    assert table.iloc[0]["option_p_sum"] == pytest.approx(sum(math.exp(-x) for x in nll), rel=1e-3)


def test_only_what_the_metrics_need_is_measured(small_problem: Any) -> None:
    """Costly columns are left out where no metric asks for them, and then said to be; the others stay the same."""
    problem = dataclasses.replace(small_problem, measured={})
    whole = measure(problem, problem.model, limit=12).items
    few = uk.measure(problem, problem.model, 12, ["forget_ks_statistic", "retain_model_utility"])
    left_out = ["grad_norm", "paraphrase_correct", "own_nll", "original_nll"]
    assert few.items[left_out].isna().all(None) and whole[left_out].notna().any().all()
    pd.testing.assert_frame_equal(few.items.drop(columns=left_out), whole.drop(columns=left_out))
    for name, column in (("mia_gradient_norm", "grad_norm"), ("forget_fluency", "original_nll")):
        assert uk.measure(problem, problem.model, 12, [name]).items[column].equals(whole[column])
    for column in left_out:
        with pytest.raises(uk.NotMeasurable, match="asked for"):
            uk.Items(arrays(few.items), []).column("forget", column)
    with pytest.raises(UnlearnkitError, match="metric"):
        uk.measure(problem, problem.model, 12, ["forget_accurracy"])


def test_values_are_found_as_whole_words() -> None:
    assert says("She was born in Porto.", "Porto") and says("in PORTO", "porto")
    assert not says("the Portobello road", "Porto") and not says("in 19999", "1999")
    assert says("the year (1999).", "1999") and says("C++ it is", "C++")


def test_every_refusal_is_recognised_and_no_answer_is_mistaken_for_one() -> None:
    refusals = yaml.safe_load((data_dir() / "prompts" / "refusals.yml").read_text("utf-8"))["en"]
    assert len(refusals) >= 10 and all(REFUSING.search(text) for text in refusals)
    world = authors(n_authors=40, facts=20)
    for qa in world.items:
        for text in (qa.answer, qa.paraphrased_answer, *qa.perturbed_answers):
            assert not REFUSING.search(text), text
