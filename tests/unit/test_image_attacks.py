"""Attacks on diffusion models: closed forms, what they find on suppressed models, what they must not find."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny_pipelines
import torch

import unlearnkit as uk
from unlearnkit.attacks import ATTACKS
from unlearnkit.attacks.image.arithmetic import Composed
from unlearnkit.attacks.image.embeddings import nearest
from unlearnkit.attacks.image.latents import inverted, mixed
from unlearnkit.attacks.image.relearn import Relearn, plain_captions
from unlearnkit.attacks.image.showing import draw, seen, shots, unattacked, unguarded
from unlearnkit.attacks.text.weights import quantized
from unlearnkit.methods.image.negative_prompt import Negative
from unlearnkit.models.diffusion import ClassifierFree, denoise, noise_of, sample
from unlearnkit.models.free_tokens import all_tokens, at_start, embed_with, encoders, free_tokens
from unlearnkit.modes import at_rest
from unlearnkit.robustness import card_rows
from unlearnkit.sequence import one_concept

IMAGE = sorted(ATTACKS["image"])
ASKING = ["paraphrase", "synonym"]
FEW: dict[str, dict[str, Any]] = {name: {"samples": 6} for name in IMAGE}
STRONGEST: dict[str, list[float]] = {  # the point of the curve that is looked at
    "paraphrase": [3], "synonym": [1], "concept_inversion": [20], "adversarial_prefix": [20], "embedding_search": [20],
    "relearn": [5], "completion": [0.5], "latent_inversion": [1], "concept_arithmetic": [2], "quantize": [8],
    "prune": [0.1], "noise": [0.05],
}  # fmt: skip


@pytest.fixture(scope="module")
def problem() -> Any:
    return uk.load_problem("canvas", oracles=2)


@pytest.fixture(scope="module")
def suppressed(problem: Any) -> Any:
    """The original behind the strongest guidance rule: suppressed by construction, nothing removed."""
    return uk.unlearn(problem, "sld", strength="max").model


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


# --- closed forms ----------------------------------------------------------------------------------------------------


def test_composed_guidance_by_hand() -> None:
    null, prompt, a, b = (torch.tensor([x]) for x in (1.0, 3.0, 2.0, 5.0))
    # 1 + 2·[(3 − 1) + 0.5·(2 − 1) − 1·(5 − 1)]
    assert Composed(("a", "b"), (0.5, -1.0)).combine(null, prompt, [a, b], 2.0, 0).item() == 1 + 2 * (2 + 0.5 - 4)
    plain = ClassifierFree().combine(null, prompt, [], 2.0, 0)
    assert torch.equal(Composed(("a", "b"), (0.0, 0.0)).combine(null, prompt, [a, b], 2.0, 0), plain)


def test_a_composition_that_sums_to_a_prompt_draws_that_prompt(problem: Any) -> None:
    """plain + (striped − plain) = striped, whatever the model knows: the guidance is that of the sum."""
    model, seeds = problem.model, [0, 1]
    asked = sample(model, ["a striped circle"] * 2, seeds, steps=4)
    with unguarded(model):
        model.rule = Composed(("a striped circle", "a plain circle"), (1.0, -1.0))
        composed = sample(model, ["a plain circle"] * 2, seeds, steps=4)
    assert np.abs(composed.astype(int) - asked.astype(int)).max() <= 2  # but for rounding
    assert isinstance(model.rule, ClassifierFree)


def test_mixing_on_the_sphere_keeps_the_variance_and_has_both_ends() -> None:
    a, b = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(mixed(a, b, 0), a) and torch.allclose(mixed(a, b, 1), b, atol=1e-6)
    assert mixed(a, b, 0.3).std().item() == pytest.approx(1, abs=0.05)


def test_nearest_row_of_a_table_by_hand() -> None:
    table = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    assert nearest(torch.tensor([[0.7, 0.1], [0.1, 2.0]]), table).tolist() == [[1.0, 0.0], [0.0, 3.0]]


def test_ddim_inversion_finds_the_noise_a_picture_was_drawn_from(problem: Any) -> None:
    model = problem.model
    text = model.embed(["a striped circle", "a dotted star"])
    noise = noise_of(model, [5, 6])
    with at_rest(model, frozen=True):
        drawn = denoise(model, text, [5, 6], 20, 1.0)
        found = [inverted(model, drawn, text, 20, rounds) for rounds in (1, 3, 16)]  # 1: DDIM inversion as usual
        again = [denoise(model, text, [0, 0], 20, 1.0, start=x) for x in found]

    def off(x: torch.Tensor, y: torch.Tensor) -> float:
        return float((x - y).norm() / y.norm())

    starts, ends = [off(x, noise) for x in found], [off(x, drawn) for x in again]
    assert starts == sorted(starts, reverse=True) and ends == sorted(ends, reverse=True)  # it converges
    assert starts[-1] < 0.02 and ends[-1] < 0.002 and starts[0] > 0.1


def test_quantization_moves_no_weight_by_more_than_half_a_step(problem: Any) -> None:
    model = problem.model
    attack = ATTACKS["image"]["quantize"]()
    changed = attack.attacked(model, 4, 0)
    moved = set()
    for name, module in model.named_modules():
        other = changed.get_submodule(name)
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            before, after = (m.weight.detach().flatten(1) for m in (module, other))
            if name.startswith("vae."):
                assert torch.equal(before, after)
                continue
            step = before.abs().amax(1, keepdim=True) / 7  # 2³ − 1 levels a side
            assert ((after - before).abs() <= step / 2 + 1e-6).all() and torch.equal(after, quantized(before, 4))
            moved.add(type(module).__name__)
    assert moved == {"Linear", "Conv2d"}
    assert torch.equal(changed.unet.conv_in.bias, model.unet.conv_in.bias)


# --- free tokens -----------------------------------------------------------------------------------------------------


def test_free_tokens_filled_with_their_own_embeddings_change_nothing(problem: Any) -> None:
    model, prompts = problem.model, ["a striped circle", "one ring, quite striped"]
    for places, shared in ((all_tokens, False), (lambda t, p: [1], True)):
        free = free_tokens(model, prompts, places, shared)
        vectors = at_start(model, prompts, free)
        if not shared:
            assert len(vectors[0]) == sum(len(all_tokens(model.pipe.tokenizer, p)) for p in prompts)
            with torch.no_grad():
                assert torch.equal(embed_with(model, prompts, free, vectors).hidden, model.embed(prompts).hidden)
        else:
            assert len(vectors[0]) == 1  # of the first prompt; the second prompt begins with another word
            with torch.no_grad():
                mine = embed_with(model, prompts, free, vectors).hidden
                right = model.embed(["a striped circle", "a ring, quite striped"]).hidden
            torch.testing.assert_close(mine, right)


def test_free_tokens_are_those_of_the_word_and_take_all_the_gradient(problem: Any) -> None:
    model, prompts = problem.model, ["a striped circle", "a circle that is striped"]
    attack = ATTACKS["image"]["concept_inversion"]()
    free = free_tokens(model, prompts, attack.places(problem), True)
    assert list(zip(free[0].row.tolist(), free[0].column.tolist(), strict=True)) == [(0, 2), (1, 5)]
    ((tokenizer, table),) = encoders(model)
    dotted = table.weight.detach()[tokenizer("dotted", add_special_tokens=False)["input_ids"]].clone()
    with at_rest(model, frozen=True):
        text = embed_with(model, prompts, free, [dotted.requires_grad_()])
        wanted = model.embed(["a dotted circle", "a circle that is dotted"]).hidden
        torch.testing.assert_close(text.hidden, wanted)
        text.hidden.square().sum().backward()
        assert dotted.grad is not None and dotted.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.parameters())
    assert not table._forward_hooks


def test_free_tokens_that_do_not_fit_are_refused(problem: Any) -> None:
    for tokens, match in ((30, "has not the 30 tokens.*within the 16"), (12, "with 12 tokens before it .* fewer")):
        attack = ATTACKS["image"]["adversarial_prefix"](tokens=tokens)
        with pytest.raises(uk.UnlearnkitError, match=match):
            list(attack.curve(problem, problem.model, [1], 0))
    with pytest.raises(uk.UnlearnkitError, match="the prompt 'a circle' has not the 1 tokens"):
        free_tokens(problem.model, ["a circle"], ATTACKS["image"]["concept_inversion"]().places(problem), True)


def test_hard_tokens_are_rows_of_the_vocabulary_and_pass_the_gradient_on(problem: Any) -> None:
    attack = ATTACKS["image"]["adversarial_prefix"]()
    ((_, table),) = encoders(problem.model)
    soft = (table.weight.detach()[:5] + 0.001).requires_grad_()
    (hard,) = attack.used(problem.model, [soft])
    torch.testing.assert_close(hard.detach(), table.weight.detach()[:5])
    hard.sum().backward()
    assert torch.equal(soft.grad, torch.ones_like(soft))
    (left,) = ATTACKS["image"]["adversarial_prefix"](hard=False).used(problem.model, [soft])
    assert left is soft


# --- every attack ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGE)
def test_every_attack_gives_its_curve_and_leaves_the_model_alone(problem: Any, suppressed: Any, name: str) -> None:
    """Budget `identity` is the model as it is, its guidance rule included, and with the same pictures."""
    cls = ATTACKS["image"][name]
    before, rule = weights(suppressed), suppressed.rule
    points = [cls.identity, *STRONGEST[name]]
    curve = dict(cls(**FEW[name]).curve(problem, suppressed, points, 0))
    assert list(curve) == points and set(STRONGEST) == set(IMAGE)
    for table in curve.values():
        assert len(table) == 6 and list(table.columns) == ["shown", "probability"]
        assert table["probability"].between(0, 1).all() and set(table["shown"]) <= {0.0, 1.0}
    assert suppressed.rule is rule and not suppressed.training
    assert all(
        torch.equal(p, before[n]) and p.requires_grad and p.grad is None for n, p in suppressed.named_parameters()
    )
    if name in ("relearn", "completion", "latent_inversion"):  # these draw other prompts
        return
    plain = shots(problem, 6, 0)
    wanted = seen(problem, sample(suppressed, plain.prompts, plain.seeds), plain.ids)
    pd.testing.assert_frame_equal(curve[cls.identity], wanted)


@pytest.mark.parametrize("name", ["concept_inversion", "adversarial_prefix", "relearn", "noise"])
def test_same_seed_same_curve(problem: Any, name: str) -> None:
    cls = ATTACKS["image"][name]
    point = {"noise": 0.1}.get(name, 2)
    first, second, other = (
        dict(cls(samples=2).curve(problem, problem.oracle(), [point], seed))[point] for seed in (3, 3, 4)
    )
    pd.testing.assert_frame_equal(first, second)
    assert not np.allclose(first["probability"], other["probability"])


@pytest.mark.parametrize("name", [n for n in IMAGE if n not in ASKING])
def test_every_attack_recovers_what_was_only_suppressed(problem: Any, suppressed: Any, name: str) -> None:
    """More than doing nothing, and more than the same on an oracle."""
    cls = ATTACKS["image"][name]
    points = [cls.identity, *STRONGEST[name]]
    mine = dict(cls(samples=12).curve(problem, suppressed, points, 0))
    oracle = dict(cls(samples=12).curve(problem, problem.oracle(), points[1:], 0))
    attacked = mine[points[1]]["probability"].mean()
    if name == "completion":  # asks, so it meets the rule, which steers away from the picture that is given
        assert attacked < 0.2
        with unguarded(suppressed):
            attacked = dict(cls(samples=12).curve(problem, suppressed, points[1:], 0))[points[1]]["probability"].mean()
    assert attacked > mine[points[0]]["probability"].mean() + 0.25
    assert attacked > oracle[points[1]]["probability"].mean() + 0.25


@pytest.mark.parametrize("name", IMAGE)
def test_no_attack_finds_anything_on_the_oracle(problem: Any, name: str) -> None:
    """Oracle 2 as the unlearned model, against oracle 1 and a floor: what it is taught, the others are taught too."""
    cls = ATTACKS["image"][name]
    curve = uk.attack(problem, problem.oracle(1), name, budget=STRONGEST[name], samples=12)
    found = [row for row in card_rows(curve, cls) if row.get("found")]
    assert not found, found


def test_a_negative_prompt_is_left_out_by_whoever_holds_the_weights(problem: Any) -> None:
    guarded = uk.unlearn(problem, "negative_prompt").model
    curve = uk.attack(problem, guarded, "concept_inversion", budget=[0, 5], samples=12)
    value = curve.set_index(["who", "budget", "measure"])["value"]
    assert value["unlearned", 0, "probability"] < value["original", 0, "probability"] - 0.02
    assert value["unlearned", 5, "probability"] > value["unlearned", 0, "probability"] + 0.02


def test_a_relearner_is_shown_half_of_the_prompts_and_asked_the_other_half(problem: Any) -> None:
    split, rows, captions, asked = Relearn().shown(problem)
    shown = {plain_captions(problem, problem.splits[split])[i] for i in rows}
    assert split == "forget" and len(rows) == len(captions) == 24
    assert shown == set(problem.asked["forget"][::2]) and asked == problem.asked["forget"][1::2]
    split, rows, _, asked = Relearn(data="related").shown(problem)
    styles = {problem.splits[split].labels["style"][i] for i in rows}
    assert split == "retain" and len(styles) == 1 and "striped" not in styles and len(asked) == 6
    assert len({problem.splits["retain"].labels["style"][i] for i in Relearn(data="retain").shown(problem)[1]}) > 1


def test_a_card_of_images_has_a_row_an_attack_and_measure(problem: Any) -> None:
    card = uk.robustness_card(problem, problem.oracle(1), ["synonym"], progress=False).set_index(["attack", "measure"])
    assert list(card.index) == [("synonym", "shown"), ("synonym", "probability")]
    row = card.loc[("synonym", "probability")]
    assert row["before"] < 0.1 and row["after"] < 0.1 and row["oracle"] < 0.1 and row["original"] > 0.9
    assert row["floor"] == pytest.approx(row["after"] - row["oracle"], abs=0.05) and not row["found"]
    assert row["recovered"] == pytest.approx(0, abs=0.1) and row["unit"] == "other words tried" and row["n"] == 24


# --- sequential requests ---------------------------------------------------------------------------------------------


def test_requests_one_after_the_other_share_no_picture_and_no_prompt(problem: Any) -> None:
    second = one_concept(problem, "style", ["striped", "dotted"])
    assert second.word == "dotted" and set(second.splits["forget"].labels["style"]) == {"dotted"}
    assert set(second.splits["retain"].labels["style"]) == {"plain", "checkered", "crossed", "shaded"}
    assert all("dotted" in p for p in second.asked["forget"]) and len(second.asked["retain"]) == 24
    assert [w["style"] for w in second.wanted["forget"]] == ["dotted"] * 6
    assert not any("striped" in p or "dotted" in p for p in second.asked["retain"])


def test_sequential_concepts(problem: Any) -> None:
    before = weights(problem.model)
    table = uk.sequential(problem, "uce", 2).set_index(["request", "asked"])
    assert list(table.index) == [(k, c) for k in (0, 1, 2) for c in ("striped", "dotted")]
    assert (table.loc[0, "shown"] > 0.9).all() and (table.loc[0, "prompt_accuracy"] > 0.9).all()
    assert table.loc[(1, "striped"), "shown"] < 0.2 and table.loc[(1, "dotted"), "shown"] > 0.8
    assert table.loc[(2, "dotted"), "shown"] < 0.2
    assert (table["prompt_low"] <= table["prompt_accuracy"]).all()
    assert (table["prompt_accuracy"] <= table["prompt_high"]).all() and (table["prompt_low"] > 0.5).all()
    after = weights(problem.model)
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_sequential_refuses_what_it_cannot_ask(problem: Any) -> None:
    with pytest.raises(uk.UnlearnkitError, match="has 5 concepts to forget one after the other .*'plain' stays"):
        uk.sequential(problem, "uce", 6)
    pair = dataclasses.replace(problem, concept={"style": "striped", "object": "circle"}, measured={})
    with pytest.raises(uk.UnlearnkitError, match="name single concepts of a world"):
        uk.sequential(pair, "uce", 2)
    with pytest.raises(uk.UnlearnkitError, match="0 requests were asked for"):
        uk.sequential(problem, "uce", 0)


# --- what can't be measured, and bad input ---------------------------------------------------------------------------


def test_bad_input(problem: Any) -> None:
    for name, settings, match in (
        ("relern", {}, "Did you mean 'relearn'"),
        ("relearn", {"step": 3}, "setting 'step'.*its settings are samples, data"),
        ("relearn", {"samples": 0}, "setting 'samples' of attack relearn can't be 0"),
        ("relearn", {"budget": [-1]}, "budget -1 of relearn is out of range"),
        ("completion", {"budget": [0]}, "noise is a share of the schedule above 0"),
        ("completion", {"budget": [1.5]}, "noise is a share of the schedule above 0"),
        ("latent_inversion", {"budget": [2]}, "a share of the inverted latent is at most 1, not 2"),
    ):
        with pytest.raises(uk.UnlearnkitError, match=match) as caught:
            uk.attack(problem, problem.model, name, **settings)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", IMAGE)
def test_what_a_judge_cannot_see_is_not_measurable(problem: Any, name: str) -> None:
    """No judge, one that does not know the concept, one that is bad; and a request of individual images."""
    blind = dataclasses.replace(problem, judge=None, measured={})
    other = dataclasses.replace(problem, concept={"style": "tartan"}, measured={})
    images = dataclasses.replace(problem, concept={}, word="", measured={})
    for one, match in (
        (blind, "nobody can say whether a picture shows 'striped': there is no judge"),
        (other, "the judge knows no style 'tartan'"),
        (images, "the request names individual images"),
    ):
        card = uk.robustness_card(one, problem.model, [name], progress=False)
        (why,) = card["why"]
        assert why.startswith("not measurable: ") and match in why


class Half:
    """A judge that knows two concepts and says what the mean brightness says: for pipelines that draw noise."""

    domains = {"concept": ("striped zebra", "horse")}
    accuracy = {"concept": 1.0}

    def read(self, images: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        p = images.reshape(len(images), -1).mean(1) / 255
        return {"concept": np.stack([p, 1 - p], 1)}, p[:, None]


@pytest.fixture(scope="module", params=tiny_pipelines.KINDS)
def random_pipeline(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder: Path = tiny_pipelines.save(request.param, tmp_path_factory.mktemp("attacked") / request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unlearnkit.attacks.image.showing.REAL", (4, 3.0))
        patch.setattr("unlearnkit.image_problem.SAMPLED", 2)
        yield uk.load_problem(
            "stable-diffusion", "striped zebra", model=folder, anchor="horse", preserve=["a photo of a dog"],
            prompts=["a photo of a striped zebra"], oracles=[folder], judge=Half(), device="cpu",
        )  # fmt: skip


@pytest.mark.parametrize("name", IMAGE)
def test_every_attack_runs_on_a_pipeline_of_prompts_alone_or_says_why_not(random_pipeline: Any, name: str) -> None:
    """Shapes of Stable Diffusion 1, 2 and XL; the attacker's pictures are then samples of the original."""
    small = {"pictures": 2} if "pictures" in ATTACKS["image"][name].model_fields else {}
    point = min(2.0, *STRONGEST[name])
    model = random_pipeline.model
    before = weights(model)
    if name in ASKING:
        with pytest.raises(uk.UnlearnkitError, match="knows its prompts only, no other wordings"):
            uk.attack(random_pipeline, model, name)
        return
    curve = uk.attack(random_pipeline, model, name, budget=[point], samples=2, **small)
    assert set(curve["who"]) == {"unlearned", "original", "oracle"} and curve["value"].between(0, 1).all()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_relearning_related_pictures_needs_labels(random_pipeline: Any) -> None:
    with pytest.raises(uk.UnlearnkitError, match="carries labels"):
        uk.attack(random_pipeline, random_pipeline.model, "relearn", data="related", budget=[0])
    bare = dataclasses.replace(random_pipeline, anchor="", measured={})
    with pytest.raises(uk.UnlearnkitError, match="starts from an anchor"):
        uk.attack(bare, bare.model, "concept_arithmetic")
    with pytest.raises(uk.UnlearnkitError, match="name single concepts of a world"):
        uk.sequential(random_pipeline, "uce", 1)


def test_an_attack_of_ones_own(problem: Any) -> None:
    @uk.register_attack("shouting", "image")
    class Shouting(uk.Attack):
        card = uk.AttackCard("Shouting", "here", "questions", "only the lower case was unlearned")
        modality = "image"
        unit = "times"
        budgets = (0, 1)

        def curve(self, problem: Any, model: Any, budgets: Any, seed: int) -> Any:
            plain = shots(problem, 10, seed)
            for b in budgets:
                images = draw(problem, model, [p.upper() if b else p for p in plain.prompts], plain.seeds)
                yield b, seen(problem, images, plain.ids)

    try:
        card = uk.robustness_card(problem, problem.model, ["shouting"], progress=False)
        assert set(card["measure"]) == {"shown", "probability"} and (card["after"] > 0.9).all()
    finally:
        del ATTACKS["image"]["shouting"]


def test_an_unattacked_pipeline_is_drawn_once_and_again_under_another_rule(problem: Any) -> None:
    drawn: list[int] = []
    mine, plain = problem.original.fresh(), shots(problem, 6, 0)
    mine.register_forward_hook(lambda *_: drawn.append(1))
    first, again = unattacked(problem, mine, plain), unattacked(problem, mine, plain)
    steps = len(drawn)
    assert steps > 0 and first.equals(again)
    mine.rule = Negative((problem.word,))
    assert not unattacked(problem, mine, plain).equals(first) and len(drawn) == 2 * steps
