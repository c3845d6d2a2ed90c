"""What must hold for every registered method of diffusion models; a new one is tested by being registered."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import unlearnkit as uk
from unlearnkit.image_loaders import from_world
from unlearnkit.masks import MASKS
from unlearnkit.methods import METHODS, StepBatch
from unlearnkit.models.diffusion import Diffusion, sample
from unlearnkit.models.load import load_pipeline
from unlearnkit.unlearning import Unlearned, configure_method
from unlearnkit.worlds.canvas import canvas

ALL = sorted(METHODS["image"])
GRADIENT = [name for name in ALL if not hasattr(METHODS["image"][name], "apply")]
TRAINING_FREE = [name for name in ALL if name not in GRADIENT]
QUICK: dict[str, Any] = {"steps": 2, "batch_size": 2, "lr": 3e-3, "progress": False, "trace_every": 1}
FEW: dict[str, dict[str, Any]] = {  # of what a method does before its first step
    "esd": {"seeds": 1, "bank_steps": 2},
    "spm": {"seeds": 1, "bank_steps": 2, "lora": 0},  # its adapter of rank 1 has a test of its own
    "advunlearn": {"seeds": 1, "bank_steps": 2, "attack_steps": 1},
    "selective_amnesia": {"fisher_batches": 1},
    "ssd": {"batches": 2, "batch_size": 2, "select": 1.0},
    "salun": {"mask": ""},  # it has a test of its own
    "sld": {"strength": "max"},  # without warm-up: a picture here takes two steps
}


def settings_of(name: str, **changes: Any) -> dict[str, Any]:
    return {**(QUICK if name in GRADIENT else {}), **FEW.get(name, {}), **changes}


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[n], b[n]) for n in a)


def changed(problem: Any, model: Any) -> set[str]:
    before = weights(problem.model)
    after = weights(model)
    assert list(after) == list(before)  # a pipeline as it was: no parameter more, none less
    return {n for n in before if not torch.equal(before[n], after[n])}


def picture(model: Diffusion) -> np.ndarray:
    return sample(model, ["a striped circle", "a plain star"], [0, 1], steps=2)


@pytest.fixture(scope="module")
def problem(small_image_problem: Any) -> Any:
    return small_image_problem


@pytest.fixture(scope="module")
def run(problem: Any) -> Callable[..., Unlearned]:
    """A method's quick run with a seed, made once for all the tests that look at it."""

    @cache
    def once(name: str, seed: int = 0) -> Unlearned:
        return uk.unlearn(problem, name, seed=seed, **settings_of(name))

    return once


@pytest.mark.parametrize("name", GRADIENT)
def test_zero_steps_and_zero_learning_rate_are_the_identity(problem: Any, name: str) -> None:
    assert not changed(problem, uk.unlearn(problem, name, **settings_of(name, steps=0)).model)
    still = uk.unlearn(problem, name, weight_decay=0.1, **settings_of(name, lr=0.0))
    assert not changed(problem, still.model) and len(still.trace) == 2


@pytest.mark.parametrize("name", ALL)
def test_same_seed_same_result_and_the_original_is_left_alone(
    problem: Any, name: str, run: Callable[..., Unlearned]
) -> None:
    before, oracle = weights(problem.model), weights(problem.oracle())
    first, other = run(name, 3), run(name, 4)
    again = uk.unlearn(problem, name, seed=3, **settings_of(name))
    assert same(weights(first.model), weights(again.model))
    assert np.array_equal(picture(first.model), picture(again.model))
    pd.testing.assert_frame_equal(*(u.trace.drop(columns="seconds", errors="ignore") for u in (first, again)))
    if name in GRADIENT:
        assert not same(weights(first.model), weights(other.model))
    assert same(weights(problem.model), before) and same(weights(problem.oracle()), oracle)
    assert not {p.data_ptr() for p in first.model.parameters()} & {p.data_ptr() for p in problem.model.parameters()}
    assert not first.model.training and all(p.requires_grad and p.grad is None for p in first.model.parameters())
    assert not np.array_equal(picture(first.model), picture(problem.model))


VARIANTS = [
    *((name, {}) for name in GRADIENT),
    ("esd", {"variant": "u"}),
    ("esd", {"variant": "full"}),
    *(("grad_ascent", {"trained": part}) for part in ("attn2", "attn2_kv", "not_attn2")),
    *((name, {}) for name in TRAINING_FREE if name != "oracle"),
]


@pytest.mark.parametrize(("name", "variant"), VARIANTS, ids=[f"{n}-{'-'.join(v.values())}" for n, v in VARIANTS])
def test_only_the_declared_weights_change(
    problem: Any, name: str, variant: dict[str, Any], run: Callable[..., Unlearned]
) -> None:
    unlearned = uk.unlearn(problem, name, **settings_of(name, **variant)) if variant else run(name)
    found = changed(problem, unlearned.model)
    unet = {n for n, _ in problem.model.named_parameters() if n.startswith("unet.")}
    cross = {n for n in unet if ".attn2." in n}
    keys = {n for n in cross if n.endswith(("to_k.weight", "to_v.weight"))}
    assert cross and len(keys) == 2 * len({n.split(".to_k")[0] for n in keys if ".to_k" in n})
    part = {"x": "attn2", "u": "not_attn2", "full": "full"}.get(variant.get("variant", "x")) if name == "esd" else None
    fixed = {"concept_ablation": "attn2", "forget_me_not": "attn2", "spm": "attn2", "uce": "attn2_kv"}
    fixed["advunlearn"] = "text_encoder"
    words = {n for n, _ in problem.model.named_parameters() if n.startswith("text_encoder.")}
    part = part or variant.get("trained") or fixed.get(name, "full")
    sets = {"full": unet, "attn2": cross, "not_attn2": unet - cross, "attn2_kv": keys, "text_encoder": words}
    declared = sets[part]
    if name in TRAINING_FREE:
        touched = sum(problem.model.get_parameter(n).numel() for n in found)
        assert unlearned.cost["parameters_touched"] == touched
    if name in ("sld", "negative_prompt"):
        assert not found
        return
    assert found <= declared, sorted(found - declared)[:3]
    if name == "forget_me_not":  # a value is no attention: values move by the retain loss alone, and they do
        assert any(".to_v." in n for n in found)
    assert len(found) > 0.9 * len(declared) or name == "ssd"
    if name in GRADIENT:
        assert unlearned.cost["parameters_touched"] == sum(problem.model.get_parameter(n).numel() for n in declared)


def test_the_oracle_is_the_problems_own(problem: Any) -> None:
    assert same(weights(uk.unlearn(problem, "oracle").model), weights(problem.oracle()))
    with pytest.raises(uk.UnlearnkitError, match="oracle 3 was asked for, this problem has 1"):
        uk.unlearn(problem, "oracle", index=3)


def first_batch(problem: Any, name: str, **settings: Any) -> tuple[Any, Any, StepBatch]:
    """A method, a copy of the original with what the method trains set free, and the first batch of its loop."""
    given = {k: v for k, v in settings_of(name, **settings).items() if k != "progress"}
    method, loop = configure_method("image", name, given)
    model = problem.original.fresh().eval()
    names = set(method.trainable(model))
    for n, p in model.named_parameters():
        p.requires_grad_(n in names)
    data = problem.training_data(method, model, loop, 0)
    torch.manual_seed(0)
    reference = method.prepare(model, data)
    return method, model, StepBatch(data.draw(), reference, 0)


def slopes(loss: Any, model: Any) -> list[torch.Tensor]:
    free = [p for p in model.parameters() if p.requires_grad]
    if loss is None:
        return [torch.zeros_like(p) for p in free]
    found = torch.autograd.grad(loss, free, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(free, found, strict=True)]


def norm(g: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float((x * x).sum()) for x in g))


@pytest.mark.parametrize("name", [n for n in GRADIENT if n != "erasediff"])  # whose λ looks at both by design
def test_the_forget_term_does_not_see_the_retain_batch_and_the_other_way_round(problem: Any, name: str) -> None:
    method, model, batch = first_batch(problem, name, alpha=1.0)

    def objectives(views: dict[str, Any]) -> tuple[Any, dict[str, list[torch.Tensor]]]:
        torch.manual_seed(1)  # esd draws its states here
        found = method.objectives(model, StepBatch(views, batch.reference, 0))
        return found, {k: slopes(getattr(found, k), model) for k in ("forget", "retain")}

    mine, apart = objectives(batch.views)
    for view in batch.views:
        b = batch.views[view]
        other = dataclasses.replace(b, latents=b.latents.flip(0) + 0.3, noise=b.noise.flip(0), t=b.t.flip(0))
        again, slopes_ = objectives({**batch.views, view: other})
        kept, moved = ("forget", "retain") if view == "retain" else ("retain", "forget")
        for side, equal in ((kept, True), (moved, False)):
            a, c = getattr(mine, side), getattr(again, side)
            if a is None:
                assert c is None
                continue
            gap = norm([x - y for x, y in zip(apart[side], slopes_[side], strict=True)])
            assert (abs(a.item() - c.item()) <= 1e-5 * abs(a.item())) == equal
            assert (gap <= 1e-4 * norm(apart[side]) + 1e-7) == equal


@pytest.mark.parametrize("name", GRADIENT)
def test_the_step_is_the_weighted_sum_of_both_gradients(problem: Any, name: str) -> None:
    """∇(γF + αR) of the first batch is what the optimiser is given, and what the trace says of it is true."""
    weighting = {"gamma": 0.7, "alpha": 1.6}
    given: dict[int, list[torch.Tensor]] = {}

    def watch(step: int, trained: Any) -> None:
        given[step] = [p.grad.clone() for p in trained.parameters() if p.requires_grad and p.grad is not None]

    method, model, batch = first_batch(problem, name, **weighting)
    torch.manual_seed(0)  # as the loop does, before `prepare`, which draws nothing from it
    losses = method.objectives(model, batch)
    f, r = slopes(losses.forget, model), slopes(losses.retain, model)
    wanted = [0.7 * x + 1.6 * y for x, y in zip(f, r, strict=True)]
    for every in (0, 1):  # in one backward pass, and apart where the trace looks at both
        trace = uk.unlearn(
            problem, name, on_step=watch, **settings_of(name, steps=1, trace_every=every, clip=0.0, **weighting)
        ).trace
        assert len(given[0]) == len(wanted)
        for mine, right in zip(given[0], wanted, strict=True):
            torch.testing.assert_close(mine, right, rtol=2e-3, atol=1e-5)
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


@pytest.mark.parametrize("name", GRADIENT)
def test_trace_and_cost_are_complete(name: str, run: Callable[..., Unlearned]) -> None:
    unlearned = run(name)
    trace, cost = unlearned.trace, unlearned.cost
    assert trace["step"].tolist() == [0, 1] and trace["seconds"].is_monotonic_increasing
    kinds = [kind for kind in ("forget", "retain") if f"{kind}_loss" in trace]
    assert (
        kinds and trace[[*(f"{k}_{what}" for k in kinds for what in ("loss", "grad_norm")), "lr"]].notna().all().all()
    )
    if len(kinds) == 2:
        blocks = [c for c in trace if str(c).startswith("cosine_")]
        denoiser = {"cosine_down0", "cosine_down1", "cosine_mid", "cosine_up0", "cosine_up1"}
        assert ({"cosine_layer0"} if name == "advunlearn" else denoiser) <= set(blocks)
        assert trace["cosine"].dropna().between(-1.0001, 1.0001).all()
    logged = {"erasediff": ["multiplier", "constraint"], "selective_amnesia": ["elastic"]}.get(name, [])
    assert trace[logged].notna().all().all()
    views = {"esd": 1, "grad_ascent": 1, "retain_finetune": 1, "spm": 0, "advunlearn": 0}.get(name, 2)  # of pictures
    assert cost["images"] == 2 * 2 * views and cost["steps"] == 2
    assert all(cost[k] > 0 for k in ("seconds", "prepare_seconds", "peak_memory_mb", "parameters_touched"))


@pytest.mark.parametrize("name", TRAINING_FREE)
def test_training_free_methods_take_no_step(name: str, run: Callable[..., Unlearned]) -> None:
    unlearned = run(name)
    assert unlearned.trace.empty and unlearned.cost["steps"] == 0 and unlearned.method == name
    assert unlearned.cost["seconds"] > 0 and unlearned.cost["peak_memory_mb"] > 0


@pytest.mark.parametrize("name", GRADIENT)
def test_a_lora_adapter_is_merged_into_a_plain_pipeline(problem: Any, name: str) -> None:
    unlearned = uk.unlearn(problem, name, **settings_of(name, lora=2))
    assert type(unlearned.model) is Diffusion and unlearned.model.pipe.unet is unlearned.model.unet
    found = changed(problem, unlearned.model)
    targets = METHODS["image"][name]().lora_targets(problem.model, METHODS["image"][name]().trainable(problem.model))
    assert found == {f"{t}.weight" for t in targets}
    sizes = [problem.model.get_submodule(t) for t in targets]
    assert unlearned.cost["parameters_touched"] == sum(2 * (m.in_features + m.out_features) for m in sizes)
    for t in targets:  # a change of rank 2
        difference = unlearned.model.get_submodule(t).weight - problem.model.get_submodule(t).weight
        values = torch.linalg.svdvals(difference.detach())
        assert values[2] < 1e-3 * values[0] or values[0] < 1e-6
    assert not np.array_equal(picture(unlearned.model), picture(problem.model))


def test_spm_is_an_adapter_of_rank_one(problem: Any) -> None:
    settings = {k: v for k, v in settings_of("spm").items() if k != "lora"}
    unlearned = uk.unlearn(problem, "spm", **settings)
    found = changed(problem, unlearned.model)
    assert unlearned.settings["lora"] == 1 and found and all(".attn2." in n for n in found)
    for n in found:
        values = torch.linalg.svdvals((unlearned.model.get_parameter(n) - problem.model.get_parameter(n)).detach())
        assert values[1] < 1e-3 * values[0] or values[0] < 1e-6


def test_the_probe_of_a_problem_sees_a_text_encoder_that_was_changed(problem: Any) -> None:
    """Its text states are the model's own, so a guard can stop a method that trains the text encoder."""
    model = problem.original.fresh()
    before = problem.ability(model, "retain")
    with torch.no_grad():
        for p in model.text_encoder.parameters():
            p.mul_(-3)
    assert before == problem.ability(problem.model, "retain") != problem.ability(model, "retain")


@pytest.mark.parametrize("kind", ["salun", "wagle", "random"])
@pytest.mark.parametrize("name", GRADIENT)
def test_masked_out_weights_stay_bit_identical(
    problem: Any, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weight decay included, and for methods that draw no forget pictures themselves."""
    masks: list[dict[str, torch.Tensor]] = []
    real = MASKS[kind]

    def watched(*given: Any) -> dict[str, torch.Tensor]:
        masks.append(real(*given))
        return masks[-1]

    monkeypatch.setattr("unlearnkit.masks.BATCHES", 1)
    monkeypatch.setitem(MASKS, kind, watched)
    settings = settings_of(name, mask=kind, mask_share=0.3, weight_decay=0.5, lr=1e-2, steps=1, trace_every=0)
    after = weights(uk.unlearn(problem, name, **settings).model)
    before = weights(problem.model)
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
def test_a_loss_that_is_not_finite_stops_and_keeps_the_trace(problem: Any, name: str) -> None:
    def poison(step: int, model: Any) -> None:
        if step == 1:
            next(p for p in model.parameters() if p.requires_grad).data[:] = math.nan

    with pytest.raises(uk.DivergedError, match=r"loss was not finite at step 2; lower lr \(now 0.003\)") as caught:
        uk.unlearn(problem, name, on_step=poison, **settings_of(name, steps=4, trace_every=0))
    assert caught.value.trace["step"].tolist() == [0, 1] and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ALL)
def test_settings_that_are_unknown_or_of_a_wrong_type(problem: Any, name: str) -> None:
    cls = METHODS["image"][name]
    if name in TRAINING_FREE:  # what a loop would need has no effect, and is refused whatever its value
        for field, value in (("stepz", 3), ("steps", 3), ("lr", 0.1), ("lora", 4)):
            message = f"{cls.__name__} takes no step and has no setting '{field}'; its settings: "
            with pytest.raises(uk.UnlearnkitError, match=message):
                uk.unlearn(problem, name, **{field: value})
    else:
        with pytest.raises(uk.UnlearnkitError, match=f"setting of {cls.__name__} 'stepz' is unknown; known: .*'steps'"):
            uk.unlearn(problem, name, stepz=3)
    loop = [] if name in TRAINING_FREE else ["steps", "lr", "batch_size", "schedule", "lora"]
    for field in [*cls.model_fields, *loop]:
        with pytest.raises(uk.UnlearnkitError, match=f"setting '{field}' of {cls.__name__} can't be") as caught:
            uk.unlearn(problem, name, **{field: "many"})
        assert "\n" not in str(caught.value) and "many" in str(caught.value)
    numbers = [n for n, f in cls.model_fields.items() if f.metadata]  # those with a bound
    for field in numbers:
        with pytest.raises(uk.UnlearnkitError, match=f"setting '{field}' of {cls.__name__} can't be"):
            uk.unlearn(problem, name, **{field: -1})


def test_what_esd_trains_is_its_variant(problem: Any) -> None:
    with pytest.raises(uk.UnlearnkitError, match="what esd trains is its variant"):
        uk.unlearn(problem, "esd", trained="full", **settings_of("esd"))
    with pytest.raises(uk.UnlearnkitError, match="setting 'trained' of UCE can't be 'full'"):
        uk.unlearn(problem, "uce", trained="full")


@pytest.mark.parametrize("name", GRADIENT)
def test_without_a_retain_weight_nothing_is_retained(problem: Any, name: str) -> None:
    """alpha = 0: the retain pictures may be any, as they have no say (but in EraseDiff's multiplier)."""
    kept = problem.splits["retain"]
    plain = np.array([style == "plain" for style in kept.labels["style"]])[:, None, None, None]  # the anchor's stay
    other = dataclasses.replace(kept, images=np.where(plain, kept.images, 255 - kept.images))
    twin = dataclasses.replace(problem, splits={**problem.splits, "retain": other}, measured={})
    fixed = {"adaptive": False} if name == "erasediff" else {}
    a, b = (
        weights(uk.unlearn(p, name, **settings_of(name, alpha=0.0, steps=1, **fixed)).model) for p in (problem, twin)
    )
    assert same(a, b)
    assert same(a, weights(problem.model)) == (name == "retain_finetune")


def test_looking_at_a_problem_first_leaves_it_trainable(problem: Any) -> None:
    """Metrics run in inference mode, and they may be the first to load a model or encode a picture."""
    fresh = dataclasses.replace(
        problem,
        original=dataclasses.replace(problem.original, kept=None),
        oracles=[dataclasses.replace(o, kept=None) for o in problem.oracles],
        measured={},
    )
    with torch.inference_mode():
        assert fresh.ability(fresh.oracle(), "forget") > 0
        fresh.latents("retain")
    loaded = [*fresh.model.parameters(), *fresh.oracle().parameters()]
    assert not any(p.is_inference() for p in loaded)  # an attack takes gradients through them
    uk.unlearn(fresh, "grad_ascent", stop="utility_guard", **settings_of("grad_ascent", alpha=1.0))
    assert not changed(problem, fresh.original.fresh())


def test_the_utility_guard_stops_an_ascent_that_destroys(problem: Any) -> None:
    unlearned = uk.unlearn(
        problem, "grad_ascent", stop="utility_guard", cap=1e9, **settings_of("grad_ascent", steps=15, lr=3e-2)
    )
    assert unlearned.stopped.startswith("utility guard: retain inverse loss at 0.") and len(unlearned.trace) < 15


def test_a_balance_combines_the_gradients_of_an_image_method(problem: Any) -> None:
    unlearned = uk.unlearn(problem, "salun", balance="mgda", **settings_of("salun", steps=1))
    assert unlearned.trace.filter(like="weight").notna().all().all() and changed(problem, unlearned.model)


def test_individual_images_are_forgotten_by_the_methods_that_need_no_word(problem: Any) -> None:
    """The others say in one sentence what they lack, before any step."""
    ids = ["c-striped-circle-000", "c-plain-star-002"]
    own = from_world(
        canvas(images=4, holdout=1), ids, 0, model=problem.original.name, oracles=[], device="cpu", judge=problem.judge
    )
    assert set(own.splits["forget"].ids) == set(ids)
    assert not own.concept and not own.word and not own.asked["forget"]
    works = {"retain_finetune", "grad_ascent", "erasediff", "ssd"}
    for name in ALL:
        if name == "oracle":
            continue
        if name in works:
            assert changed(
                problem, uk.unlearn(own, name, **settings_of(name, **({"steps": 1} if name in GRADIENT else {}))).model
            )
            continue
        with pytest.raises(uk.UnlearnkitError) as caught:
            uk.unlearn(own, name, **settings_of(name))
        assert "\n" not in str(caught.value) and (
            "individual images" in str(caught.value) or "anchor" in str(caught.value)
        )


@pytest.mark.parametrize("name", [n for n in ALL if n not in ("sld", "negative_prompt")])
def test_saved_and_loaded_again_draws_the_same(
    problem: Any, name: str, run: Callable[..., Unlearned], tmp_path: Any
) -> None:
    unlearned = run(name)
    folder = unlearned.save(tmp_path / "saved")
    again = load_pipeline(folder, device="cpu")
    assert same(weights(again), weights(unlearned.model))
    assert np.array_equal(picture(again), picture(unlearned.model))
    names = {f.suffix for f in folder.rglob("*")}
    assert not names & {".bin", ".pt", ".ckpt"} and [p.name for p in tmp_path.iterdir()] == ["saved"]
    assert (folder / "unlearnkit.json").is_file() and (folder / "trace.csv").is_file()


@pytest.mark.parametrize("name", ["sld", "negative_prompt"])
def test_a_change_of_the_sampling_is_not_saved_as_weights(
    problem: Any, name: str, run: Callable[..., Unlearned], tmp_path: Any
) -> None:
    for original in (None, problem.model):
        with pytest.raises(uk.UnlearnkitError, match="changes the sampling, not the weights"):
            run(name).save(tmp_path / "saved", original=original)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ALL)
def test_every_method_has_its_card(name: str) -> None:
    card = METHODS["image"][name].card
    assert card is not None
    for field in ("title", "paper", "equation", "defaults", "failure"):
        assert len(getattr(card, field)) > 5, field
    assert any(part.isdigit() for part in card.paper.replace(".", " ").split()), "a year or an arXiv id"


def test_a_method_given_as_an_object_runs_as_by_its_name(problem: Any) -> None:
    given = {**FEW["esd"], "eta": 1.5}
    by_name = uk.unlearn(problem, "esd", **QUICK, **given)
    as_object = uk.unlearn(problem, METHODS["image"]["esd"](**given), **QUICK)
    assert as_object.method == "esd" and as_object.settings == by_name.settings
    assert same(weights(as_object.model), weights(by_name.model))
    with pytest.raises(uk.UnlearnkitError, match="leave 'trained' out"):
        uk.unlearn(problem, METHODS["image"]["esd"](trained="full"), **QUICK)
