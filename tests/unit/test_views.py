"""Neurons, tracing, planes, sharpness, sensitivity, masks, the denoiser: against closed forms and invariants."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny_pipelines
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn.utils import vector_to_parameters

import unlearnkit as uk
from unlearnkit.attacks.text.inside import at_value
from unlearnkit.attribution.image.denoiser import noisy_latents, predictor, word_embeddings, word_maps
from unlearnkit.attribution.losses import loss_of
from unlearnkit.attribution.plane import coordinates, plane_basis, weights_of
from unlearnkit.attribution.sharpness import loss_rises, top_eigenvalue
from unlearnkit.attribution.text.layers import decoder_layers
from unlearnkit.attribution.text.neurons import layer_gradients, mlp_output
from unlearnkit.attribution.text.sensitivity import coded_prompts, prompt_sets, sensitivity
from unlearnkit.attribution.text.tokens import question_of
from unlearnkit.attribution.text.tracing import (
    ALL,
    GROUPS,
    LAST,
    PREFIX,
    RANDOM,
    SUBJECT,
    position_groups,
    value_log_probability,
)
from unlearnkit.attribution.text.weights import block_of
from unlearnkit.text import pad_id

PROMPT = "a photo of a striped zebra"


@pytest.fixture(scope="module")
def unlearned(small_problem: Any) -> Any:
    return uk.unlearn(small_problem, "grad_diff", steps=4, lr=3e-3, batch_size=4, progress=False).model


@pytest.fixture(scope="module", params=tiny_pipelines.KINDS)
def pictured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A problem of prompts with a random pipeline and a second one as its oracle, and what uce makes of it."""
    folder = tmp_path_factory.mktemp(request.param)
    paths = [str(tiny_pipelines.save(request.param, folder / str(seed), seed)) for seed in (0, 1)]
    problem = uk.load_problem(
        "stable-diffusion", "striped zebra", model=paths[0], oracles=paths[1:], anchor="horse",
        preserve=["a photo of a horse", "a dog on the grass"], device="cpu",
    )  # fmt: skip
    return problem, uk.unlearn(problem, "uce").model


def column(table: pd.DataFrame, who: str, measure: str) -> pd.DataFrame:
    return table[(table["who"] == who) & (table["measure"] == measure)]


# neurons


def test_gradients_of_a_linear_layer_are_weight_times_difference_and_of_a_product_half_each() -> None:
    inner = nn.Linear(3, 2, bias=False)
    x, blank = torch.tensor([[[1.0, 2.0, -1.0]]]), torch.tensor([[[0.5, 0.0, 0.0]]])
    out = torch.tensor([2.0, -3.0])
    found, gap, _ = layer_gradients(lambda e: (inner(e) * out).sum((1, 2)), inner, x, blank, False, 2)
    assert found[0, 0].tolist() == pytest.approx((out * inner(x - blank)[0, 0]).tolist(), abs=1e-6) and gap < 1e-5
    product, _, _ = layer_gradients(lambda e: inner(e).prod(2).sum(1), inner, x, torch.zeros_like(x), False, 4)
    half = float(inner(x).prod().detach()) / 2
    assert product[0, 0].tolist() == pytest.approx([half, half], abs=1e-6)


def test_neurons_are_complete_and_name_what_the_layers_do(small_problem: Any, unlearned: Any) -> None:
    table = uk.attribute(small_problem, unlearned, "neurons")
    assert set(table["who"]) == {"original", "unlearned", "oracle", "random"}
    assert table[table["measure"] == "completeness"]["value"].max() <= 1e-4
    record = small_problem.direct("forget")[0]
    asked = question_of(small_problem, unlearned, record.question, record.answer)
    blank = torch.full_like(asked.question, asked.baseline)
    module, kept = mlp_output(decoder_layers(unlearned)[1]), []

    def f(question: torch.Tensor, hook: Any = None) -> float:
        handle = module.register_forward_pre_hook(hook or (lambda *_: None))
        with torch.no_grad():
            ids = asked.whole(question[None])
            logp = unlearned(ids).logits[0, -len(asked.answer) - 1 : -1].log_softmax(-1)
        handle.remove()
        return float(logp.gather(1, asked.answer[:, None]).sum())

    nothing = f(blank, lambda _, given: kept.append(given[0].clone()))
    sums = table[table["measure"].isin(["question", "template", "answer"]) & (table["who"] == "unlearned")]
    whole = f(asked.question) - nothing
    assert sums.groupby("place")["value"].sum().tolist() == pytest.approx([whole] * 3, rel=1e-3)
    effect = f(asked.question) - f(asked.question, lambda *_: (kept[0],))
    assert column(table, "unlearned", "mlp").set_index("place")["value"][1] == pytest.approx(effect, rel=1e-3, abs=1e-4)
    assert (column(table, "original", "overlap_original")["value"] == 1).all()
    assert (column(table, "oracle", "overlap_oracle")["value"] == 1).all()
    assert column(table, "unlearned", "overlap_original")["value"].between(0, 1).all()


@pytest.mark.parametrize("method", ["integrated_gradients", "gradient_x_activation"])
def test_neurons_follow_a_permutation(small_problem: Any, method: str) -> None:
    turned = small_problem.original.fresh()
    mlp = decoder_layers(turned)[0].mlp
    with torch.no_grad():
        for part in (mlp.gate_proj, mlp.up_proj):
            part.weight.copy_(part.weight.flip(0))
        mlp.down_proj.weight.copy_(mlp.down_proj.weight.flip(1))
    table = uk.attribute(small_problem, turned, "neurons", method=method, shown=400)
    size = mlp.down_proj.in_features
    units = {
        who: column(table, who, "neuron").query("place == 0").assign(unit=lambda t: t["label"].astype(int))
        for who in ("original", "unlearned")
    }
    before, after = (u.set_index("unit")["value"] for u in units.values())
    assert len(before) == size
    assert after.to_numpy() == pytest.approx(before[size - 1 - after.index].to_numpy(), abs=1e-4)
    whole = column(table, "unlearned", "overlap_original").set_index("place")["value"]
    assert whole[0] < 0.5 and whole[1] == whole[2] == 1


# tracing


def test_tracing_restores_what_the_change_made_and_nothing_of_the_original(small_problem: Any) -> None:
    early, late = small_problem.original.fresh(), small_problem.original.fresh()
    with torch.no_grad():
        for model, layer in ((early, 0), (late, -1)):
            decoder_layers(model)[layer].mlp.down_proj.weight.mul_(-2)
    first, last = (uk.attribute(small_problem, m, "tracing") for m in (early, late))
    assert column(first, "original", "gain")["value"].abs().max() < 1e-5
    assert column(first, "original", "restored").empty  # there is nothing to restore
    everything = column(first, "unlearned", "restored").query(f"label == '{ALL}'")
    assert len(everything) and everything["value"].to_numpy() == pytest.approx(1, abs=1e-3)
    gains = column(last, "unlearned", "gain")
    assert gains[gains["place"] < 2]["value"].abs().max() < 1e-4  # the change comes after
    final = gains[gains["place"] == 2].pivot(index="item", columns="label", values="value")
    assert final[ALL].to_numpy() == pytest.approx(final["last token"].to_numpy(), abs=1e-4)
    assert final[PREFIX].abs().max() < 1e-5 < final[ALL].abs().max()
    grid = uk.trace_grid(first)
    assert list(grid.columns) == [0, 1, 2] and set(grid.index) <= set(GROUPS)


def test_every_token_up_to_the_value_is_of_one_kind_and_the_subject_is_the_entity(small_problem: Any) -> None:
    items = [qa for qa in small_problem.direct("forget") if qa.value in qa.answer][:3]
    batch, positions, _ = at_value(small_problem, small_problem.model, items)
    groups = position_groups(small_problem, items, batch, positions)
    kinds = torch.stack([groups[name] for name in GROUPS if name not in (ALL, RANDOM)]).sum(0)
    assert torch.equal(kinds > 0, groups[ALL]) and kinds.max() == 1
    assert (groups[RANDOM].sum(1) == 1).all() and (groups[LAST].sum(1) == 1).all()
    for row, qa in enumerate(items):
        tokens = batch.ids[row][groups[SUBJECT][row] | groups[LAST][row]]
        assert qa.entity in small_problem.tokenizer.decode(tokens)


# landscapes


def test_the_plane_holds_the_three_models_with_their_losses(small_problem: Any, unlearned: Any) -> None:
    table = uk.attribute(small_problem, unlearned, "plane", points=3, limit=64)
    models = {"original": small_problem.model, "unlearned": unlearned, "oracle": small_problem.oracle(0)}
    origin = weights_of(models["original"])
    basis = plane_basis(origin, weights_of(unlearned), weights_of(models["oracle"]))
    assert (basis @ basis.T).numpy() == pytest.approx(np.eye(2), abs=1e-5)
    probe = small_problem.original.fresh()
    own = table[table["place"] == -1].set_index(["who", "measure", "item"])["value"]
    for who, model in models.items():
        x, y = own[who, "x", ""], own[who, "y", ""]
        vector_to_parameters(origin + x * basis[0] + y * basis[1], probe.parameters())
        for split in ("forget", "retain"):
            level = small_problem.mean_nll(model, split)
            assert own[who, "loss", split] == pytest.approx(level, abs=1e-4)
            assert small_problem.mean_nll(probe, split) == pytest.approx(level, abs=1e-3)
        assert own[who, "off", ""] == pytest.approx(0, abs=1e-2)
    assert own["unlearned", "y", ""] == pytest.approx(0, abs=1e-4) and own["oracle", "y", ""] > 0
    assert own["random", "off", ""] == pytest.approx(own["unlearned", "x", ""], rel=0.1)
    x, y, z = uk.plane_grid(table, "retain")
    vector_to_parameters(origin + x[2] * basis[0] + y[1] * basis[1], probe.parameters())
    assert z.shape == (3, 3) and z[1, 2] == pytest.approx(small_problem.mean_nll(probe, "retain"), abs=1e-3)


def test_plane_by_hand() -> None:
    o, u, r = torch.tensor([1.0, 0, 0]), torch.tensor([3.0, 0, 0]), torch.tensor([2.0, 4, 0])
    basis = plane_basis(o, u, r)
    assert basis.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert coordinates(basis, o, torch.tensor([2.0, 4, 7])) == pytest.approx((1, 4, 7))
    with pytest.raises(uk.UnlearnkitError, match="lie on a line"):
        plane_basis(o, u, torch.tensor([9.0, 0, 0]))


class Bowl(nn.Module):
    """½ Σ λ (w − c)² over two tensors, at its minimum."""

    def __init__(self, curvature: list[float]) -> None:
        super().__init__()
        self.curvature = torch.tensor(curvature)
        self.a, self.b = nn.Parameter(torch.tensor([3.0, 4.0])), nn.Parameter(torch.full((len(curvature) - 2,), 2.0))
        self.centre = torch.cat([self.a, self.b]).detach().clone()

    def loss(self) -> torch.Tensor:
        return 0.5 * (self.curvature * (torch.cat([self.a, self.b]) - self.centre).square()).sum()


def test_sharpness_of_a_quadratic() -> None:
    even = Bowl([2.0] * 6)
    rises = loss_rises(even, [lambda m: m.loss()], radius=0.1, samples=3, seed=0)
    assert rises.shape == (3, 1) and rises[:, 0] == pytest.approx(0.5 * 2 * 0.01 * (25 + 16), rel=1e-4)
    steep = Bowl([1.0, 0.5, 7.0, 2.0, 0.0, -9.0] + [0.1] * 20)
    assert top_eigenvalue(steep.loss, list(steep.parameters()), 1e-4) == pytest.approx(7, rel=1e-3)
    small = Bowl([4.0, 1.0])
    assert top_eigenvalue(small.loss, [small.a], 1e-4) == pytest.approx(4)


def test_sharpness_of_a_model_agrees_with_finite_differences(small_problem: Any, unlearned: Any) -> None:
    table = uk.attribute(small_problem, unlearned, "sharpness", samples=2, limit=4, eigenvalue=True)
    loss = loss_of(small_problem, "forget", 4)
    assert column(table, "unlearned", "loss").set_index("item")["value"]["forget"] == pytest.approx(
        float(loss(unlearned).detach()), abs=1e-5
    )
    value = column(table, "original", "eigenvalue").set_index("item")["value"]["retain"]
    model, retain = copy.deepcopy(small_problem.model), loss_of(small_problem, "retain", 4)
    weights = [p.requires_grad_(True) for p in model.parameters()]
    step, eps = [torch.randn(p.shape, generator=torch.Generator().manual_seed(3)) for p in weights], 1e-3
    for _ in range(30):  # power iteration by differences of gradients
        size = float(torch.stack([s.square().sum() for s in step]).sum().sqrt())
        step = [s / size for s in step]
        found = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, s in zip(weights, step, strict=True):
                    p.add_(s, alpha=sign * eps)
            found.append(torch.autograd.grad(retain(model), weights))
            with torch.no_grad():
                for p, s in zip(weights, step, strict=True):
                    p.add_(s, alpha=-sign * eps)
        step = [(a - b) / (2 * eps) for a, b in zip(*found, strict=True)]
    wanted = float(torch.stack([s.square().sum() for s in step]).sum().sqrt())
    assert value == pytest.approx(wanted, rel=0.2)


def test_rank_correlations_say_how_little_few_models_show(small_problem: Any, unlearned: Any) -> None:
    table = pd.DataFrame({"same": [1.0, 2, 3, 5, 9], "back": [5.0, 4, 3, 2, 1], "speed": [0.1, 0.2, 0.3, 0.4, 0.5]})
    found = uk.rank_correlations(table)
    assert found["spearman"].tolist() == [pytest.approx(1), pytest.approx(-1)] and (found["n"] == 5).all()
    noisy = uk.rank_correlations(pd.DataFrame({"x": [3.0, 1, 4, 2, 5], "speed": [1.0, 2, 3, 4, 5]})).loc["x"]
    assert noisy["low"] < 0 < noisy["high"]
    assert uk.rank_correlations(table[:3])["spearman"].isna().all()
    models = {"few": unlearned, "none": small_problem.original.fresh()}
    rows = uk.relearning_predictors(small_problem, models, steps=3, samples=2, limit=8)
    assert np.isnan(rows.loc["none", "speed"]) and rows.loc["none", "distance"] == 0  # it has nothing to relearn
    assert rows.loc["few", "distance"] > 0 and {"rise_forget", "rise_retain", "nll"} <= set(rows.columns)


# sensitivity


def test_sensitivity_is_the_gradient_of_one_sequence_at_a_time(small_problem: Any) -> None:
    model, items = small_problem.original.fresh(), small_problem.direct("forget")[:2]
    every = {p.label for p in prompt_sets(small_problem, items, 500, 0)}
    sets = {"plain", "role_play", "many_shot", "prefix", "paraphrase"}
    assert every == sets | {f"harmless {name}" for name in sets}
    prompts = prompt_sets(small_problem, items, 96, 0)  # what the context holds
    assert {p.label for p in prompts} >= {"plain", "harmless plain", "prefix", "harmless prefix", "paraphrase"}
    assert {p.record.entity for p in prompts if p.label == "plain"}.isdisjoint(
        {p.record.entity for p in prompts if p.label == "harmless plain"}
    )
    coded = coded_prompts(small_problem, prompts, "I don't know that.", 96)
    found = sensitivity(model, coded, pad_id(small_problem.tokenizer), 1e-2, 1, 0)
    for k in (0, len(prompts) // 2, len(prompts) - 1):
        x = model.get_input_embeddings()(torch.tensor([coded[k].ids])).detach().requires_grad_(True)
        logp = model(inputs_embeds=x).logits[0].log_softmax(-1)
        loss = -torch.stack([logp[j - 1, coded[k].ids[j]] for j in range(coded[k].start, len(coded[k].ids))]).mean()
        (slope,) = torch.autograd.grad(loss, x)
        assert found["loss"][k] == pytest.approx(float(loss.detach()), abs=1e-4)
        size = float(slope[0, : coded[k].start].norm())
        assert found["gradient"][k] == pytest.approx(size, rel=1e-3, abs=1e-5)
        length = float(x[0, : coded[k].start].detach().norm())
        assert 0 < abs(found["rise"][k]) < 2e-2 * size * length + 1e-4  # Cauchy–Schwarz, to first order
    given = [p for p in prompts if p.label == "prefix"][0]
    (begun,) = coded_prompts(small_problem, [given], "I don't know that.", 96)
    said = small_problem.tokenizer.decode(begun.ids[: begun.start])
    assert given.start and said.endswith(given.start)
    assert "know" in small_problem.tokenizer.decode(begun.ids[begun.start :])


def test_detection_is_one_when_separable_and_otherwise_what_scikit_learn_says() -> None:
    draw = np.random.default_rng(0)
    sets = {"plain": [0.1, 0.2, 0.3], "role_play": [1.0, 2, 3], "harmless role_play": [4.0, 5, 6]}
    rows = [("m", "sure", s, k, v) for s, values in sets.items() for k, v in enumerate(values)]
    noise = {s: draw.normal(size=20).round(1) for s in sets}
    rows += [("m", "noise", s, k, v) for s, values in noise.items() for k, v in enumerate(values)]
    table = pd.DataFrame(rows, columns=["who", "measure", "label", "place", "value"])
    found = uk.detection(table)
    assert found.loc[("m", "sure", "role_play", "plain"), ["auc", "low", "high"]].tolist() == [1, 1, 1]
    assert found.loc[("m", "sure", "role_play", "harmless role_play"), "auc"] == 0
    row = found.loc[("m", "noise", "role_play", "plain")]
    truth = [0] * 20 + [1] * 20
    assert row["auc"] == pytest.approx(roc_auc_score(truth, [*noise["plain"], *noise["role_play"]]))
    assert row["low"] < row["auc"] < row["high"] and row["high"] - row["low"] > 0.2
    curve = uk.roc(table, "m", "sure", "role_play")
    assert np.trapezoid(curve["tpr"], curve["fpr"]) == 1
    with pytest.raises(uk.UnlearnkitError, match="no 'sure' of 'prefix'"):
        uk.roc(table, "m", "sure", "prefix")


# masks


def test_masks_side_by_side_at_the_same_settings(small_problem: Any) -> None:
    table = uk.mask_tradeoff(
        small_problem, masks=("none", "salun", "random"), seeds=(0, 1), share=0.2, steps=3, lr=3e-3, batch_size=4
    )
    assert len(table) == 6 and table.groupby("mask")["forget"].nunique().min() == 2  # another seed, another model
    model = uk.unlearn(
        small_problem, "grad_diff", mask="salun", mask_share=0.2, steps=3, lr=3e-3, batch_size=4, seed=1, progress=False
    ).model
    levels = {s: small_problem.mean_nll(model, s) for s in ("forget", "retain")}
    first = {s: small_problem.mean_nll(small_problem.model, s) for s in levels}
    oracle = small_problem.mean_nll(small_problem.oracle(0), "forget")
    mine = table[(table["mask"] == "salun") & (table["seed"] == 1)].iloc[0]
    assert mine["gap"] == pytest.approx(abs(levels["forget"] - oracle) / abs(first["forget"] - oracle), abs=1e-3)
    assert mine["utility"] == pytest.approx(np.exp(first["retain"] - levels["retain"]), abs=1e-4)


def test_what_a_mask_gains_by_hand() -> None:
    rows = [("salun", s, 0.5 + d, 0.9) for s, d in enumerate([0.1, 0.2, 0.3])]
    rows += [("random", s, 0.5, 0.9) for s in range(3)]
    found = uk.against_control(pd.DataFrame(rows, columns=["mask", "seed", "gap", "utility"]))
    gap = found.loc[("salun", "gap")]
    assert gap["difference"] == pytest.approx(0.2) and gap["high"] - 0.2 == pytest.approx(4.302653 * 0.1 / 3**0.5)
    assert found.loc[("salun", "utility")].tolist() == [0, 0, 0, 3]
    with pytest.raises(uk.UnlearnkitError, match="no mask 'random'"):
        uk.against_control(pd.DataFrame(rows[:3], columns=["mask", "seed", "gap", "utility"]))


def test_blocks_of_tensors() -> None:
    names = {
        "model.layers.2.mlp.up_proj.weight": "layer 3", "transformer.h.0.attn.c_attn.weight": "layer 1",
        "unet.down_blocks.1.resnets.0.conv1.weight": "down 1", "unet.mid_block.attentions.0.norm.bias": "middle",
        "unet.up_blocks.0.resnets.1.conv1.weight": "up 0", "unet.conv_in.weight": "rest",
        "text_encoder.text_model.encoder.layers.0.fc1.bias": "text_encoder", "lm_head.weight": "rest",
    }  # fmt: skip
    assert {name: block_of(name) for name in names} == names


# pipelines


def test_weight_masks_of_a_denoiser(pictured: Any) -> None:
    problem, _ = pictured
    moved = problem.original.fresh()
    with torch.no_grad():
        moved.unet.conv_in.weight.add_(1)
    table = uk.attribute(problem, moved, "weights", masks=("salun", "random"), mask_share=0.3)
    whole = (
        column(table, "original", "random_random")["value"].tolist()
        + column(table, "original", "salun_salun")["value"].tolist()
    )
    assert whole == [1, 1]
    overlap = float(column(table, "original", "salun_random")["value"].iloc[0])
    assert overlap == pytest.approx(0.3 / 1.7, abs=0.05)
    sizes: dict[str, int] = {}
    for name, p in problem.model.named_parameters():
        if name.startswith("unet."):
            sizes[block_of(name)] = sizes.get(block_of(name), 0) + p.numel()
    control = column(table, "original", "random_block").set_index("label")["value"]
    assert set(control.index) == set(sizes) and {"down 0", "middle", "up 1"} <= set(sizes)
    for block, size in sizes.items():
        assert control[block] == pytest.approx(size / sum(sizes.values()), abs=0.03)
    assert column(table, "original", "salun_block")["value"].sum() == pytest.approx(1)
    changed = column(table, "unlearned", "share")
    assert changed.loc[changed["value"].idxmax(), "label"] == "unet.conv_in.weight"
    assert changed["value"].max() == pytest.approx(1)


def test_the_denoiser_is_complete_and_the_original_agrees_with_itself(pictured: Any) -> None:
    problem, changed = pictured
    table = uk.attribute(problem, changed, "denoiser", prompt=PROMPT, moments=(0.5,))
    assert set(table["who"]) == {"original", "unlearned", "oracle", "random"}
    assert table[table["measure"] == "completeness"]["value"].max() <= 1e-4
    sums = table[table["measure"] == "attribution"].groupby(["who", "item"])["value"].sum()
    effect = table[table["measure"] == "effect"].set_index(["who", "item"])["value"].reindex(sums.index)
    assert sums.to_numpy() == pytest.approx(effect.to_numpy(), rel=1e-3) and (effect > 0).all()
    assert (column(table, "original", "iou")["value"] == 1).all()
    ((x, t),) = noisy_latents(problem.model, PROMPT, [0, 1], (0.5,))
    with torch.no_grad():
        whole = problem.model(x, t.expand(2), problem.model.embed([PROMPT]).repeat(2))
        mine = predictor(problem.model, PROMPT, t)(
            x, *(e.expand(2, -1, -1) for e in word_embeddings(problem.model, PROMPT, []))
        )
    assert mine.numpy() == pytest.approx(whole.numpy(), abs=1e-5)
    maps = word_maps(problem.model, PROMPT, ["zebra"], x, t)
    assert maps.shape == (1, 2, *problem.model.latent_shape[1:]) and float(maps.max()) > 0
    ablated = column(table, "original", "ablation").query("label == 'zebra'")["value"].to_numpy()
    assert ablated == pytest.approx(maps[0].mean((1, 2)).numpy(), rel=1e-3)


def test_a_denoiser_that_hears_nothing_is_driven_by_no_word(pictured: Any) -> None:
    problem, _ = pictured
    deaf = problem.original.fresh()
    with torch.no_grad():
        for name, weight in deaf.unet.named_parameters():
            if "attn2.to_v" in name or "add_embedding" in name:
                weight.zero_()
    table = uk.attribute(problem, deaf, "denoiser", prompt=PROMPT, seeds=1, moments=(0.5,))
    assert column(table, "unlearned", "effect")["value"].abs().max() < 1e-10
    assert column(table, "unlearned", "ablation")["value"].abs().max() < 1e-10
    assert column(table, "original", "effect")["value"].min() > 1e-8


@pytest.mark.parametrize("view", ["landscape", "plane", "sharpness"])
def test_landscapes_of_pipelines(pictured: Any, view: str) -> None:
    problem, changed = pictured
    settings = {"landscape": {"points": 3}, "plane": {"points": 2}, "sharpness": {"samples": 2}}[view]
    table = uk.attribute(problem, changed, view, limit=4, **settings)
    assert np.isfinite(table["value"]).all() and {"unlearned", "oracle", "random"} <= set(table["who"])
    if view == "plane":
        own = table[table["place"] == -1].set_index(["who", "measure", "item"])["value"]
        with torch.no_grad():
            level = float(loss_of(problem, "forget", 4)(changed))
        assert own["unlearned", "loss", "forget"] == pytest.approx(level, rel=1e-4)
        assert own["unlearned", "off", ""] < 1e-2 * own["unlearned", "x", ""] + 1e-3


# what every view leaves behind


@pytest.mark.parametrize("view", ["neurons", "tracing", "plane", "sharpness", "sensitivity"])
def test_views_leave_modes_flags_and_hooks_as_they_were(small_problem: Any, unlearned: Any, view: str) -> None:
    model = copy.deepcopy(unlearned).train()
    for k, p in enumerate(model.parameters()):
        p.requires_grad_(k % 2 == 0)
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}

    def hooks() -> list[int]:  # transformers leaves some of its own in a model whose hidden states were asked for
        return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]

    before = hooks()
    settings = {
        "plane": {"points": 2}, "sharpness": {"eigenvalue": True, "samples": 2, "limit": 2}, "tracing": {"limit": 2},
        "neurons": {"method": "gradient_x_activation"}, "sensitivity": {"limit": 2},
    }[view]  # fmt: skip
    uk.attribute(small_problem, model, view, **settings)
    assert all(m.training for m in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [k % 2 == 0 for k in range(len(weights))]
    assert hooks() == before
    assert all(torch.equal(p, weights[n]) and p.grad is None for n, p in model.named_parameters())


@pytest.mark.parametrize(
    ("method", "settings"), [("guardrail", {}), ("in_context", {"least": 0, "text": "No {names}."})]
)
def test_views_of_models_that_only_hide(small_problem: Any, method: str, settings: dict[str, Any]) -> None:
    hidden = uk.unlearn(small_problem, method, **settings).model
    small = {"tracing": {"limit": 2}, "sensitivity": {"limit": 2}, "neurons": {"method": "gradient_x_activation"}}
    tables = {view: uk.attribute(small_problem, hidden, view, **some) for view, some in small.items()}
    for table in tables.values():
        assert "unlearned" in set(table["who"]) and np.isfinite(table["value"]).all()
    items = [qa for qa in small_problem.direct("forget") if qa.value in qa.answer][:2]
    asked = at_value(small_problem, small_problem.model, items)
    lost = value_log_probability(small_problem.model, *asked) - value_log_probability(hidden, *asked)
    final = column(tables["tracing"], "unlearned", "gain").query(f"place == 2 and label == '{ALL}'")["value"]
    assert final.to_numpy() == pytest.approx(lost.numpy(), abs=1e-3) and lost.abs().max() > 1e-3
    if method == "in_context":  # embeddings are read without the instruction
        wide = tables["sensitivity"].pivot(index=["item", "label", "measure"], columns="who", values="value")
        assert wide["unlearned"].to_numpy() == pytest.approx(wide["original"].to_numpy(), abs=1e-4)


@pytest.mark.parametrize(
    ("view", "settings", "message"),
    [
        ("neurons", {"prompt": "Who?"}, "needs a target"),
        ("neurons", {"share": 1.0}, "setting 'share' of view neurons"),
        ("plane", {"around": "oracle"}, "setting 'around' of view plane"),
        ("sensitivity", {"refusal": " "}, "give the words of a refusal"),
        ("sharpness", {"radius": 0}, "setting 'radius' of view sharpness"),
    ],
)
def test_bad_settings(small_problem: Any, unlearned: Any, view: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(uk.UnlearnkitError, match=message):
        uk.attribute(small_problem, unlearned, view, **settings)


def test_a_plane_needs_three_models_of_one_make(small_problem: Any) -> None:
    with pytest.raises(uk.UnlearnkitError, match="lie on a line"):
        uk.attribute(small_problem, small_problem.original.fresh(), "plane")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"region": (0.5, 0.0, 0.5, 1.0)}, "holds no part of the picture"),
        ({"moments": (1.5,)}, "give shares of the sampling"),
        ({"prompt": "   "}, "could be found among its tokens"),
    ],
)
def test_bad_settings_of_pipelines(pictured: Any, settings: dict[str, Any], message: str) -> None:
    problem, changed = pictured
    with pytest.raises(uk.UnlearnkitError, match=message):
        uk.attribute(problem, changed, "denoiser", **settings)
