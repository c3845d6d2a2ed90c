"""What the built-in world claims, on the shipped models: knowledge, ignorance, and metrics that can't be flattered."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import unlearnkit as uk
from unlearnkit.evaluation import references, score
from unlearnkit.metrics.measure import Measured, measure, says, score_sequences
from unlearnkit.metrics.table import METRICS, Items, arrays
from unlearnkit.text import generate

LIMIT = 40
FORGET = [name for name, m in METRICS.items() if m.split == "forget"]


@pytest.fixture(scope="module")
def problem() -> Any:
    return uk.load_problem("authors", oracles=3, device="cpu")


def part(problem: Any, splits: tuple[str, ...]) -> Any:
    """The same problem, asked less."""
    return dataclasses.replace(problem, splits={s: problem.splits[s] for s in splits}, measured={})


@pytest.fixture(scope="module")
def lean(problem: Any) -> Any:
    """Two oracles, so that there is a floor, and a third one to be judged by it."""
    return dataclasses.replace(part(problem, ("forget", "retain", "holdout")), oracles=problem.oracles[:2])


@pytest.fixture(scope="module")
def reference(lean: Any) -> Any:
    return references(lean, LIMIT)


def table(lean: Any, reference: Any, mine: Any, names: Any = None) -> pd.DataFrame:
    return score(lean, [mine], reference, names or list(METRICS), 100, drop_absent=names is None)


def answered(problem: Any, model: Any, asked: list[tuple[Any, str]]) -> list[bool]:
    answers = generate(model, problem.tokenizer, problem.template, [q for _, q in asked], 32, batch_size=256)
    return [says(answer, qa.value) for (qa, _), answer in zip(asked, answers, strict=True)]


def test_the_original_answers_phrasings_it_never_saw(problem: Any) -> None:
    """≥ 95% of the held-out paraphrases of every author's facts, forgotten ones included: knowledge, not recall."""
    facts = [qa for split in ("forget", "retain", "neighbours") for qa in problem.direct(split)]
    trained = {q for split in problem.splits for q, _ in problem.pairs(split) if split != "holdout"}
    asked = [(qa, q) for qa in facts for q in qa.paraphrased_questions]
    assert len(asked) >= 700 and not trained & {q for _, q in asked}
    assert np.mean(answered(problem, problem.model, asked)) >= 0.95


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_oracle_answers_forget_questions_by_guessing(problem: Any, index: int) -> None:
    """No better than naming, for each type of answer, the value most common among what it was trained on."""
    model = problem.oracle(index)
    known = [qa for split in ("retain", "neighbours") for qa in problem.direct(split)]
    facts = problem.direct("forget")
    guess = []
    for qa in facts:
        values = Counter(other.value for other in known if other.kind == qa.kind)
        guess.append(max(values.values()) / sum(values.values()))
    hits = sum(answered(problem, model, [(qa, qa.question) for qa in facts]))
    # the number of right guesses is a sum of independent coins; more than this happens once in a thousand
    drawn = (np.random.default_rng(0).random((20000, len(guess))) < guess).sum(1)
    assert hits <= np.quantile(drawn, 0.999), (hits, sum(guess))

    pairs = [(qa.question, text) for qa in facts for text in (qa.answer, *qa.options)]
    nll = score_sequences(problem, model, pairs)["mean_nll"].to_numpy()
    sizes = [1 + len(qa.options) for qa in facts]
    starts = np.cumsum([0, *sizes[:-1]])
    right = sum(nll[s] < nll[s + 1 : s + n].min() for s, n in zip(starts, sizes, strict=True))
    chance = 1 / np.mean(sizes)
    assert stats.binomtest(int(right), len(facts), chance, alternative="greater").pvalue > 0.001
    # and the same model knows what it was trained on
    assert np.mean(answered(problem, model, [(qa, qa.question) for qa in problem.direct("retain")[::10]])) >= 0.95


def test_nothing_done_has_gap_one(problem: Any, lean: Any, reference: Any) -> None:
    found = table(lean, reference, reference[0])
    gaps = found["gap"].dropna()
    assert len(gaps) >= 15 and np.allclose(gaps, 1.0)
    assert (found["relative"].dropna() == 1.0).all()
    assert {"forget_probability", "forget_truth_ratio", "forget_quality", "mia_loss"} <= set(gaps.index)


def test_an_oracle_has_gap_zero_or_the_floor(problem: Any, lean: Any, reference: Any) -> None:
    original, oracles = reference
    itself = table(lean, reference, oracles[0], [n for n in FORGET if not METRICS[n].against_oracle])
    assert np.allclose(itself["gap"].dropna(), 0.0) and itself["gap"].notna().sum() >= 8
    other = table(lean, reference, oracles[1])
    measurable = other[other["gap"].notna() & other["floor"].notna()]
    assert len(measurable) >= 12 and np.allclose(measurable["gap"], measurable["floor"])


def test_a_third_oracle_is_told_from_the_first_by_little(problem: Any, lean: Any, reference: Any) -> None:
    """Retraining, evaluated as if it were a method, lands near the floor and far from doing nothing."""
    third = measure(lean, problem.oracle(2), LIMIT)
    found = table(lean, reference, third)["gap"].dropna()
    for name in ("forget_probability", "forget_answer_nll", "forget_exact_memorization", "forget_accuracy", "mia_loss"):
        assert found[name] < 0.3, (name, found[name])
    quality = table(lean, reference, third, ["forget_quality"])["unlearned"].item()
    assert quality > math.log10(0.01)  # not distinguishable from oracle 0 by its truth ratios


def test_gap_is_not_measurable_where_the_oracle_is_the_original(problem: Any, lean: Any, reference: Any) -> None:
    original, _ = reference
    found = score(lean, [reference[1][0]], (original, [original, original]), FORGET, 50)
    assert found["gap"].isna().all() and found["why"].str.contains("not measurable").all()


def test_ruin_is_not_taken_for_forgetting(problem: Any, lean: Any, reference: Any) -> None:
    """Ascent without a limit: no answer is right any more, and the table shows what that cost."""
    ruined = uk.unlearn(problem, "grad_ascent", lr=3e-3, steps=25, progress=False, trace_every=0)
    found = table(lean, reference, measure(lean, ruined.model, LIMIT))
    assert found.loc["forget_accuracy", "unlearned"] <= 0.05  # a raw score would call this perfect
    assert found.loc["forget_answer_nll", "gap"] > 1  # the gap does not
    assert found.loc["retain_model_utility", "relative"] < 0.3 and found.loc["retain_accuracy", "unlearned"] < 0.2
    fluency = found.loc["forget_fluency"]
    assert fluency["unlearned"] > 5 * fluency["oracle"] and fluency["gap"] > 1


def test_gibberish_is_exposed_by_fluency(problem: Any, lean: Any, reference: Any) -> None:
    """Random weights: nothing is answered, nothing is refused, and the original finds the answers absurd."""
    model = problem.original.fresh()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * p.std() * 3)
    mine = measure(lean, model, LIMIT)
    found = table(lean, reference, mine)
    assert found.loc["forget_accuracy", "unlearned"] == 0.0 and found.loc["forget_refusal", "unlearned"] == 0.0
    assert found.loc["forget_fluency", "unlearned"] > 20 * found.loc["forget_fluency", "oracle"]
    assert found.loc["forget_fluency", "gap"] > 1 and found.loc["retain_accuracy", "unlearned"] < 0.05


def test_a_loop_is_exposed_by_repetition(problem: Any, lean: Any, reference: Any) -> None:
    """A model that says one word for ever: every word is one the original might have said."""
    model = problem.original.fresh()
    word = problem.tokenizer(" the", add_special_tokens=False)["input_ids"][0]

    def say_it(module: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
        out[..., word] += 100.0
        return out

    model.get_output_embeddings().register_forward_hook(say_it)
    said = measure(part(problem, ("forget", "retain")), model, 12).items.loc["forget"]
    assert said["answer"].str.contains("the the the the the").all() and said["repetition"].mean() > 0.8
    assert reference[0].items["repetition"].mean() < 0.05 and reference[1][0].items["repetition"].mean() < 0.05


def test_silence_is_named(problem: Any, lean: Any, reference: Any) -> None:
    model = problem.original.fresh()
    end = problem.tokenizer.eos_token_id

    def stop(module: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
        out[..., end] += 100.0
        return out

    model.get_output_embeddings().register_forward_hook(stop)
    said = measure(part(problem, ("forget", "retain")), model, 12).items.loc["forget"]
    assert (said["answer"] == "").all() and said["own_nll"].isna().all() and said["original_nll"].isna().all()
    silent = reference[0].items.assign(own_nll=math.nan, original_nll=math.nan)
    found = table(lean, reference, Measured(silent), ["forget_fluency", "forget_hallucination"])
    assert set(found["why"]) == {"not measurable: the model answers nothing, or this was not asked for"}


def test_a_guardrail_passes_output_metrics_and_not_the_weights(problem: Any, lean: Any, reference: Any) -> None:
    """Suppression: the answers are gone, the weights are the original's. (The attacks and the depth score find it.)"""
    guarded = uk.unlearn(problem, "guardrail").model
    facts = {split: [(qa, qa.question) for qa in problem.direct(split)[:60]] for split in ("forget", "retain")}
    assert np.mean(answered(problem, guarded, facts["forget"])) <= 0.1
    assert np.mean(answered(problem, guarded, facts["retain"])) >= 0.95
    assert all(torch.equal(p, q) for p, q in zip(guarded.parameters(), problem.model.parameters(), strict=True))


def test_a_method_can_reach_the_oracle_and_ascent_does_not(problem: Any, lean: Any, reference: Any) -> None:
    """Truth ratios that a KS test can't tell from retraining, at ≥ 90% of the original's utility, with the defaults."""
    utility = part(problem, ("forget", "retain", "neighbours", "general"))

    def kept(model: Any) -> float:
        items = Items(arrays(measure(utility, model, 20).items), [])
        return METRICS["retain_model_utility"].compute(items)

    def p_value(model: Any) -> float:
        return float(10 ** table(lean, reference, measure(lean, model, LIMIT), ["forget_quality"])["unlearned"].item())

    before = kept(problem.model)
    found = {}
    for name in ("undial", "rmu"):
        model = uk.unlearn(lean, name, progress=False, trace_every=0).model
        found[name] = (p_value(model), kept(model) / before)
        if found[name][0] > 0.05 and found[name][1] >= 0.9:
            break
    else:
        pytest.fail(f"(p, share of the utility): {found}")
    assert p_value(uk.unlearn(lean, "grad_ascent", progress=False, trace_every=0).model) < 0.001
