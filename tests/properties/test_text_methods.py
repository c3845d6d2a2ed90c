"""What must hold for every registered language-model method; a new one is tested by being registered."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Literal

import pandas as pd
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import unlearnkit as uk
from unlearnkit.masks import MASKS
from unlearnkit.methods import METHODS, StepBatch
from unlearnkit.models.load import load_model
from unlearnkit.models.source import ModelSource
from unlearnkit.problem import TextProblem
from unlearnkit.unlearning import configure_method
from unlearnkit.worlds.records import QA


class AltPO(METHODS["text"]["dpo"]):  # type: ignore[misc]
    """An option that changes what is trained on, tested as if it were a method."""

    preferred: Literal["idk", "alternates"] = "alternates"


OPTIONS = {"dpo_alternates": AltPO}
ALL = sorted([*METHODS["text"], *OPTIONS])
GRADIENT = [name for name in ALL if not hasattr(METHODS["text"].get(name), "apply")]
TRAINING_FREE = [name for name in ALL if name not in GRADIENT]
# six authors and sixty steps teach no model to follow an instruction
FREE: dict[str, dict[str, Any]] = {"in_context": {"least": 0.0}}
QUICK: dict[str, Any] = {"steps": 3, "batch_size": 4, "lr": 3e-3, "progress": False, "trace_every": 1}


@pytest.fixture(autouse=True, scope="module")
def _options() -> Iterator[None]:
    METHODS["text"].update(OPTIONS)
    yield
    for name in OPTIONS:
        del METHODS["text"][name]


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[n], b[n]) for n in a)


def logits(problem: Any, model: Any) -> torch.Tensor:
    texts = [problem.template.prompt(q) for q, _ in problem.pairs("forget")[:1]]
    with torch.no_grad():
        return model(problem.tokenizer(texts, return_tensors="pt")["input_ids"]).logits


@pytest.mark.parametrize("name", GRADIENT)
def test_zero_steps_and_zero_learning_rate_are_the_identity(small_problem: Any, name: str) -> None:
    before = weights(small_problem.model)
    assert same(weights(uk.unlearn(small_problem, name, **{**QUICK, "steps": 0}).model), before)
    still = uk.unlearn(small_problem, name, weight_decay=0.1, **{**QUICK, "lr": 0.0})
    assert same(weights(still.model), before) and len(still.trace) == 3


@pytest.mark.parametrize("name", ALL)
def test_same_seed_same_result_and_the_original_is_left_alone(small_problem: Any, name: str) -> None:
    before = weights(small_problem.model)
    settings = QUICK if name in GRADIENT else {"progress": False, **FREE.get(name, {})}
    first, again, other = (uk.unlearn(small_problem, name, seed=s, **settings) for s in (3, 3, 4))
    assert same(weights(first.model), weights(again.model))
    assert torch.equal(logits(small_problem, first.model), logits(small_problem, again.model))
    timeless = [u.trace.drop(columns="seconds", errors="ignore") for u in (first, again)]
    pd.testing.assert_frame_equal(*timeless)
    if name in GRADIENT:
        assert not torch.equal(logits(small_problem, first.model), logits(small_problem, other.model))
    assert same(weights(small_problem.model), before)
    assert not first.model.training and all(p.requires_grad and p.grad is None for p in first.model.parameters())
    assert not torch.equal(logits(small_problem, first.model), logits(small_problem, small_problem.model))


def first_batch(problem: Any, name: str, **settings: Any) -> tuple[Any, Any, StepBatch]:
    """A method, a copy of the original with what the method trains set free, and the first batch of its loop."""
    method, loop = configure_method("text", name, {"batch_size": 4, **settings})
    model = problem.original.fresh().eval()
    names = method.trainable(model)
    for n, p in model.named_parameters():
        p.requires_grad_(names is None or n in names)
    data = problem.training_data(method, model, loop, 0)
    reference = method.prepare(model, data)
    return method, model, StepBatch(data.draw(), reference, 0)


def slopes(loss: Any, model: Any) -> list[torch.Tensor]:
    free = [p for p in model.parameters() if p.requires_grad]
    if loss is None:
        return [torch.zeros_like(p) for p in free]
    found = torch.autograd.grad(loss, free, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(free, found, strict=True)]


@pytest.mark.parametrize("name", GRADIENT)
def test_the_forget_term_does_not_see_the_retain_batch_and_the_other_way_round(small_problem: Any, name: str) -> None:
    """Each loss and each gradient stays what it is when the other half of the batch is replaced."""
    method, model, batch = first_batch(small_problem, name)
    mine = method.objectives(model, batch)
    apart = {"forget": slopes(mine.forget, model), "retain": slopes(mine.retain, model)}
    _, _, later = first_batch(small_problem, name)
    for view in batch.views:
        swapped = dict(batch.views)
        swapped[view] = dataclasses.replace(later.views[view], labels=later.views[view].labels.clone())
        swapped[view].ids[:, -3:] = swapped[view].ids[:, -3:].flip(1)  # other answers
        swapped[view].labels[swapped[view].labels != -100] = swapped[view].ids[swapped[view].labels != -100]
        other = method.objectives(model, StepBatch(swapped, batch.reference, 0))
        kept = "forget" if view == "retain" else "retain"
        a, b = getattr(mine, kept), getattr(other, kept)
        if a is None:
            assert b is None
            continue
        assert b.item() == pytest.approx(a.item(), rel=1e-5)
        for g, h in zip(apart[kept], slopes(b, model), strict=True):
            torch.testing.assert_close(h, g, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", GRADIENT)
def test_without_forget_weight_only_the_retain_term_acts(small_problem: Any, name: str) -> None:
    """γ = 0: a retain-only step. Other forget answers give the same model."""
    wrong = [dataclasses.replace(qa, answer=qa.paraphrased_answer) for qa in small_problem.splits["forget"]]
    twin = dataclasses.replace(small_problem, splits={**small_problem.splits, "forget": wrong}, measured={})
    a, b = (weights(uk.unlearn(p, name, gamma=0.0, **QUICK).model) for p in (small_problem, twin))
    if METHODS["text"][name].needs_start:
        return  # the step back depends on what was learned, which is nothing here
    for n in a:
        torch.testing.assert_close(a[n], b[n], rtol=1e-3, atol=2e-4)
    _, _, batch = first_batch(small_problem, name)
    has_retain = (
        first_batch(small_problem, name)[0].objectives(small_problem.original.fresh(), batch).retain is not None
    )
    assert same(a, weights(small_problem.model)) != has_retain


@pytest.mark.parametrize("name", GRADIENT)
def test_the_step_is_the_weighted_sum_of_both_gradients(small_problem: Any, name: str) -> None:
    """∇(γF + αR) of the first batch is what the optimiser is given, and what the trace says of it is true."""
    weighting = {"gamma": 0.7, "alpha": 1.6}
    method, model, batch = first_batch(small_problem, name, **weighting)
    losses = method.objectives(model, batch)
    f, r = slopes(losses.forget, model), slopes(losses.retain, model)
    wanted = [0.7 * x + 1.6 * y for x, y in zip(f, r, strict=True)]
    given: dict[int, list[torch.Tensor]] = {}

    def watch(step: int, trained: Any) -> None:
        given[step] = [p.grad.clone() for p in trained.parameters() if p.requires_grad]

    for every in (0, 1):  # in one backward pass, and apart where the trace looks at both
        settings = {**QUICK, "steps": 1, "trace_every": every, "clip": 0.0}
        trace = uk.unlearn(small_problem, name, on_step=watch, **settings, **weighting).trace
        for mine, right in zip(given[0], wanted, strict=True):
            torch.testing.assert_close(mine, right, rtol=1e-3, atol=1e-6)
    row = trace.iloc[0]
    for kind, loss, g in (("forget", losses.forget, f), ("retain", losses.retain, r)):
        if loss is None:
            assert f"{kind}_loss" not in trace
            continue
        assert row[f"{kind}_loss"] == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
        assert row[f"{kind}_grad_norm"] == pytest.approx(norm(g), rel=1e-3, abs=1e-7)
    assert row["grad_norm"] == pytest.approx(norm(wanted), rel=1e-3, abs=1e-7)
    if losses.forget is not None and losses.retain is not None and norm(f) > 0 and norm(r) > 0:
        dot = sum(float((x * y).sum()) for x, y in zip(f, r, strict=True))
        assert row["cosine"] == pytest.approx(dot / (norm(f) * norm(r)), abs=1e-3)


def norm(g: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float((x * x).sum()) for x in g))


@pytest.mark.parametrize("name", GRADIENT)
def test_the_trace_has_a_row_a_step_with_everything_in_it(small_problem: Any, name: str) -> None:
    unlearned = uk.unlearn(small_problem, name, **{**QUICK, "steps": 5, "trace_every": 2})
    trace = unlearned.trace
    assert trace["step"].tolist() == [0, 1, 2, 3, 4] and trace["seconds"].is_monotonic_increasing
    kinds = [kind for kind in ("forget", "retain") if f"{kind}_loss" in trace]
    assert kinds and trace[[*(f"{k}_loss" for k in kinds), "grad_norm", "lr"]].notna().all().all()
    for kind in kinds:
        assert trace[f"{kind}_grad_norm"].notna().tolist() == [True, False, True, False, True]
    if len(kinds) == 2:
        cosine = trace["cosine"].dropna()  # NaN where a gradient is zero, as of a multiplier at 0
        assert len(cosine) and cosine.between(-1.0001, 1.0001).all()
        assert [c for c in trace if str(c).startswith("cosine_layer")]
    cost = unlearned.cost
    assert cost["steps"] == 5 and cost["tokens"] > 0 and cost["seconds"] > 0 and cost["peak_memory_mb"] > 0
    assert 0 < cost["parameters_touched"] <= sum(p.numel() for p in small_problem.model.parameters())


@pytest.mark.parametrize("name", GRADIENT)
def test_looking_at_the_gradients_does_not_change_the_result(small_problem: Any, name: str) -> None:
    seen, unseen = (weights(uk.unlearn(small_problem, name, **{**QUICK, "trace_every": e}).model) for e in (1, 0))
    for n in seen:
        torch.testing.assert_close(seen[n], unseen[n], rtol=1e-3, atol=3e-4)


@pytest.mark.parametrize("kind", ["salun", "wagle", "random"])
@pytest.mark.parametrize("name", GRADIENT)
def test_masked_out_weights_stay_bit_identical(
    small_problem: Any, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weight decay included: an optimiser decays what has no gradient too."""
    masks: list[dict[str, torch.Tensor]] = []
    real = MASKS[kind]

    def watched(*given: Any) -> dict[str, torch.Tensor]:
        masks.append(real(*given))
        return masks[-1]

    monkeypatch.setitem(MASKS, kind, watched)
    settings = {**QUICK, "mask": kind, "mask_share": 0.3, "weight_decay": 0.5, "lr": 1e-2, "trace_every": 0}
    after, before = weights(uk.unlearn(small_problem, name, seed=5, **settings).model), weights(small_problem.model)
    (mask,) = masks
    moved = 0
    for n in before:
        held = mask[n] == 0 if n in mask else torch.ones_like(before[n], dtype=torch.bool)
        assert torch.equal(after[n][held], before[n][held]), n
        moved += int((after[n] != before[n]).sum())
    free = sum(int(m.sum()) for m in mask.values())
    assert free == round(0.3 * sum(m.numel() for m in mask.values()))
    assert 0.5 * free < moved <= free


@pytest.mark.parametrize("name", GRADIENT)
def test_a_loss_that_is_not_finite_stops_and_keeps_the_trace(small_problem: Any, name: str) -> None:
    def poison(step: int, model: Any) -> None:
        if step == 1:
            next(p for p in model.parameters() if p.requires_grad).data[:] = math.nan

    with pytest.raises(uk.DivergedError, match=r"not finite at step 2; lower lr \(now 0.003\)") as caught:
        uk.unlearn(small_problem, name, on_step=poison, **{**QUICK, "steps": 5})
    assert caught.value.trace["step"].tolist() == [0, 1]
    assert [c for c in caught.value.trace if c.endswith("_loss")]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ALL)
def test_settings_that_are_unknown_or_of_a_wrong_type(small_problem: Any, name: str) -> None:
    cls = METHODS["text"][name]
    if name in TRAINING_FREE:  # what a loop would need has no effect, and is refused whatever its value
        for field, value in (("stepz", 3), ("steps", 3), ("lr", 0.1), ("mask", "salun")):
            message = f"{cls.__name__} takes no step and has no setting '{field}'; its settings: "
            with pytest.raises(uk.UnlearnkitError, match=message):
                uk.unlearn(small_problem, name, **{field: value})
    else:
        with pytest.raises(uk.UnlearnkitError, match=f"setting of {cls.__name__} 'stepz' is unknown; known: .*'steps'"):
            uk.unlearn(small_problem, name, stepz=3)
    loop = [] if name in TRAINING_FREE else ["steps", "lr", "batch_size", "schedule"]
    for field in [*cls.model_fields, *loop]:
        with pytest.raises(uk.UnlearnkitError, match=f"setting '{field}' of {cls.__name__} can't be") as caught:
            uk.unlearn(small_problem, name, **{field: "many"})
        assert "\n" not in str(caught.value) and "many" in str(caught.value)
    if name in TRAINING_FREE:
        return
    for field, bad in (("steps", -1), ("lr", -0.1), ("lr", math.nan), ("batch_size", 0), ("accumulation", 0)):
        with pytest.raises(uk.UnlearnkitError, match=f"setting '{field}' of {cls.__name__} can't be"):
            uk.unlearn(small_problem, name, **{field: bad})
    with pytest.raises(uk.UnlearnkitError, match="balance 'summ' is unknown.*Did you mean 'sum'"):
        uk.unlearn(small_problem, name, balance="summ")
    with pytest.raises(uk.UnlearnkitError, match="mask 'salum' is unknown.*Did you mean 'salun'"):
        uk.unlearn(small_problem, name, mask="salum")


@pytest.mark.parametrize("name", GRADIENT)
def test_lora_saves_an_adapter_that_peft_loads_again(small_problem: Any, name: str, tmp_path: Any) -> None:
    unlearned = uk.unlearn(small_problem, name, lora=2, **QUICK)
    adapter = [n for n, _ in unlearned.model.named_parameters() if ".lora_" in n]
    touched = sum(unlearned.model.get_parameter(n).numel() for n in adapter)
    assert (
        unlearned.cost["parameters_touched"] == touched < 0.5 * sum(p.numel() for p in small_problem.model.parameters())
    )
    folder = unlearned.save(tmp_path / "adapter", small_problem.tokenizer)
    assert (folder / "adapter_model.safetensors").is_file() and not (folder / "model.safetensors").is_file()
    wanted = logits(small_problem, unlearned.model)
    assert not torch.equal(wanted, logits(small_problem, small_problem.model))
    theirs = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.testing.assert_close(logits(small_problem, theirs.eval()), wanted)
    torch.testing.assert_close(logits(small_problem, load_model(folder)), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in ALL if n not in ("guardrail", "in_context")])  # see conformance
def test_saved_and_loaded_again_says_the_same(small_problem: Any, name: str, tmp_path: Any) -> None:
    settings = QUICK if name in GRADIENT else FREE.get(name, {})
    unlearned = uk.unlearn(small_problem, name, **settings)
    folder = unlearned.save(tmp_path / "saved", small_problem.tokenizer)
    assert torch.equal(logits(small_problem, load_model(folder)), logits(small_problem, unlearned.model))
    assert not list(folder.glob("*.bin")) and not [p for p in tmp_path.iterdir() if p.name != "saved"]


def words_of_one_length(tmp_path: Any) -> TextProblem:
    """Eight records a split, every answer three words, every word a token: all batches weigh tokens the same."""
    vocabulary = {w: i for i, w in enumerate(["<pad>", "<end>", "Question:", "Answer:", *(f"w{i}" for i in range(40))])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<end>")

    def records(split: str, shift: int) -> list[QA]:
        return [
            QA(f"{split}{k}", f"{split}{k}", f"w{k + shift} w{2 * k}", f"w{3 * k + 1} w{k + 7 + shift} w{k + 20}")
            for k in range(8)
        ]

    def load() -> Any:
        torch.manual_seed(0)
        size = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
        return LlamaForCausalLM(LlamaConfig(vocab_size=len(vocabulary), max_position_embeddings=32, **size)).eval()

    splits = {"forget": records("f", 0), "retain": records("r", 4)}
    return TextProblem("words", "f", 0, splits, tokenizer, ModelSource(load, "words"), [], device=torch.device("cpu"))


@pytest.mark.parametrize("name", GRADIENT)
def test_accumulated_micro_batches_are_one_batch(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 micro-batches of 2 give the losses and the gradient of one batch of 8, and one step counts as one."""
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "refusals.yml").write_text("en: [w1 w2 w3]")
    monkeypatch.setattr("unlearnkit.methods.text.base.data_dir", lambda: tmp_path)
    problem = words_of_one_length(tmp_path)
    own = {"reinforce_steps": 0} if name == "whp" else {}  # its own epochs follow batch_size
    found = []

    def watch(step: int, model: Any) -> None:
        found.append([p.grad.clone() for p in model.parameters() if p.requires_grad])

    traces = [
        uk.unlearn(
            problem, name, steps=1, lr=1e-3, batch_size=size, accumulation=k, trace_every=every, clip=0.0,
            progress=False, on_step=watch, **own,
        ).trace
        for size, k, every in ((8, 1, 0), (2, 4, 0), (2, 4, 1))
    ]  # fmt: skip
    scale = max(float(g.abs().max()) for g in found[0])
    assert scale > 0
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-5 * scale)
    for column in ("forget_loss", "retain_loss", "grad_norm"):
        if column in traces[0]:
            for trace in traces[1:]:
                assert trace[column][0] == pytest.approx(traces[0][column][0], rel=1e-4, abs=1e-6)
    assert len(traces[1]) == 1


@pytest.mark.parametrize("name", TRAINING_FREE)
def test_training_free_methods_take_no_step(small_problem: Any, name: str) -> None:
    unlearned = uk.unlearn(small_problem, name, **FREE.get(name, {}))
    assert unlearned.trace.empty and unlearned.cost["steps"] == 0 and unlearned.method == name


@pytest.mark.parametrize("name", ALL)
def test_every_method_has_its_card(name: str) -> None:
    card = METHODS["text"][name].card
    assert card is not None
    for field in ("title", "paper", "equation", "defaults", "failure"):
        assert len(getattr(card, field)) > 5, field
    assert any(part.isdigit() for part in card.paper.replace(".", " ").split()), "a year or an arXiv id"


def test_a_second_request_keeps_the_adapter_of_the_first(small_problem: Any) -> None:
    """Without a step of its own, the second request leaves the model of the first as it is."""
    from unlearnkit.sequence import _after

    first = uk.unlearn(small_problem, "npo", steps=5, lora=4, lr=5e-3, progress=False)
    nll = small_problem.mean_nll(first.model, "forget")
    assert nll > small_problem.mean_nll(small_problem.model, "forget") + 0.01
    second = uk.unlearn(_after(small_problem, first.model, "two"), "npo", steps=0, lora=4, progress=False)
    assert small_problem.mean_nll(second.model, "forget") == pytest.approx(nll, rel=1e-4)


def test_controls_and_weight_attacks_see_an_adapter_as_part_of_the_weights(small_problem: Any) -> None:
    from unlearnkit.attacks import ATTACKS
    from unlearnkit.attribution import random_change
    from unlearnkit.models.adapters import merged

    adapted = uk.unlearn(small_problem, "npo", steps=3, lora=4, lr=5e-3, progress=False).model
    whole = dict(merged(adapted).named_parameters())
    control = dict(random_change(small_problem.model, adapted, 0).named_parameters())
    moved = 0
    for name, weight in small_problem.model.named_parameters():
        wanted = float((whole[name] - weight).detach().norm())
        assert float((control[name] - weight).detach().norm()) == pytest.approx(wanted, rel=1e-3, abs=1e-6)
        moved += wanted > 0
    assert moved
    few = ATTACKS["text"]["quantize"]().attacked(adapted, 4, 0)
    again = ATTACKS["text"]["quantize"]().attacked(merged(adapted), 4, 0)
    assert all(torch.equal(a, b) for a, b in zip(few.parameters(), again.parameters(), strict=True))


def test_whp_reinforces_in_bfloat16_too(small_problem: Any) -> None:
    """Autocast keeps cast weights; the copy's steps must be seen by its next pass."""
    settings = {"steps": 1, "reinforce_lr": 1e-2, "reinforce_steps": 8, "progress": False}
    plain, half = (
        uk.unlearn(small_problem, "whp", precision=p, **settings).trace["forget_loss"][0] for p in ("no", "bf16")
    )
    assert half == pytest.approx(plain, rel=0.1)
