"""Attribution: each view against its closed form, its invariants, and a control of the same size."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny_models
import tiny_pipelines
import torch
from captum.attr import FeatureAblation, LLMAttribution, TextTokenInput

import unlearnkit as uk
from unlearnkit.attribution import VIEWS, random_change
from unlearnkit.attribution.image.attention import map_entropy, overlap
from unlearnkit.attribution.text.data import SCORERS, Sketch, recall_at, record_gradient
from unlearnkit.attribution.text.layers import cka, decoder_layers, patching_drops, pca_similarity, unlearning_depth
from unlearnkit.attribution.text.tokens import answer_log_probability, question_of
from unlearnkit.attribution.text.weights import jaccard
from unlearnkit.models.recipe import corpus_of
from unlearnkit.models.source import ModelSource
from unlearnkit.text import collate, encode, pad_id

TOKEN_METHODS = ("ablation", "shapley", "integrated_gradients", "gradient_x_activation")


@pytest.fixture(scope="module")
def unlearned(small_problem: Any) -> Any:
    return uk.unlearn(small_problem, "grad_diff", steps=4, lr=3e-3, batch_size=4, progress=False)


@pytest.fixture(scope="module", params=tiny_models.KINDS)
def foreign(request: pytest.FixtureRequest, small_problem: Any) -> Any:
    """The small problem with random models of another architecture as original and oracle."""
    items = [qa for split in small_problem.splits.values() for qa in split]
    tokenizer = tiny_models.tokenizer_of(request.param, corpus_of(items))
    models = [ModelSource(lambda s=s: tiny_models.model_of(request.param, tokenizer, s), f"seed {s}") for s in (0, 1)]
    return dataclasses.replace(small_problem, tokenizer=tokenizer, original=models[0], oracles=models[1:], measured={})


def f_of(problem: Any, model: Any, prompt: str, target: str) -> Any:
    """log p(answer | question) from one plain pass over the tokenised text."""
    (coded,) = encode(problem.tokenizer, problem.template, [(prompt, target)], 128)

    def f(ids: list[int]) -> float:
        with torch.no_grad():
            logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(float(logp[k - 1, ids[k]]) for k in range(coded.start, len(ids)))

    return f, coded


def test_ablation_is_the_difference_made_by_one_token(small_problem: Any, unlearned: Any) -> None:
    record = small_problem.direct("forget")[0]
    table = uk.attribute(small_problem, unlearned, "tokens", method="ablation")
    assert set(table["who"]) == {"original", "unlearned", "oracle", "random"}
    f, coded = f_of(small_problem, unlearned.model, record.question, record.answer)
    mine = table[table["who"] == "unlearned"].set_index("place")
    assert "".join(mine["label"]).strip() == record.question  # nothing of the template, everything of the question
    start = next(k for k in range(len(coded.ids)) if small_problem.tokenizer.decode(coded.ids[k]) == mine["label"][0])
    for place in (0, 3, len(mine) - 1):
        ids = list(coded.ids)
        ids[start + place] = pad_id(small_problem.tokenizer)
        assert mine.loc[place, "value"] == pytest.approx(f(coded.ids) - f(ids), abs=1e-4)


@pytest.mark.parametrize("method", ["shapley", "integrated_gradients"])
def test_attributions_sum_to_the_difference_the_question_makes(small_problem: Any, unlearned: Any, method: str) -> None:
    record = small_problem.direct("forget")[0]
    table = uk.attribute(small_problem, unlearned, "tokens", method=method, samples=3)
    for who, model in (("original", small_problem.model), ("unlearned", unlearned.model)):
        asked = question_of(small_problem, model, record.question, record.answer)
        f = answer_log_probability(model, asked)
        with torch.no_grad():
            blank = torch.full_like(asked.question, asked.baseline)
            difference = float(f(asked.question[None]) - f(blank[None]))
        part = table[(table["who"] == who) & (table["measure"] == "attribution")]
        assert part["value"].sum() == pytest.approx(difference, rel=1e-3)
    if method == "integrated_gradients":
        gaps = table[table["measure"] == "completeness"]["value"]
        assert len(gaps) == 4 and gaps.max() <= 1e-4


def test_gradient_times_activation_by_hand(small_problem: Any, unlearned: Any) -> None:
    record, model = small_problem.direct("forget")[0], small_problem.original.fresh()
    table = uk.attribute(small_problem, unlearned, "tokens", method="gradient_x_activation")
    asked = question_of(small_problem, model, record.question, record.answer)
    ids = asked.whole(asked.question[None])
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_(True)
    logp = model(inputs_embeds=embedded).logits[0, -len(asked.answer) - 1 : -1].log_softmax(-1)
    logp.gather(1, asked.answer[:, None]).sum().backward()
    start = len(asked.before)
    wanted = (embedded.grad * embedded)[0].sum(-1)[start : start + len(asked.question)]
    mine = table[table["who"] == "original"]["value"].to_numpy()
    assert mine == pytest.approx(wanted.detach().numpy(), abs=1e-4)


def test_our_one_pass_agrees_with_captum_uncached_and_its_cached_path_is_not_used(
    small_problem: Any, unlearned: Any
) -> None:
    """captum's cached path is wrong with transformers ≥ 5.3; when this fails, a library has changed."""
    record, model, tokenizer = small_problem.direct("forget")[0], small_problem.model, small_problem.tokenizer
    asked = question_of(small_problem, model, record.question, record.answer)
    prompt = tokenizer.decode(torch.cat([asked.before, asked.question, asked.after]))
    ours = uk.attribute(small_problem, unlearned, "tokens", method="ablation")
    mine = ours[ours["who"] == "original"]["value"].to_numpy()

    def theirs(cached: bool) -> np.ndarray:
        tool = LLMAttribution(FeatureAblation(model), tokenizer)
        given = TextTokenInput(prompt, tokenizer, baselines=asked.baseline)
        found = tool.attribute(given, target=asked.answer, use_cached_outputs=cached).seq_attr
        return found[len(asked.before) : len(asked.before) + len(asked.question)].numpy()

    assert theirs(False) == pytest.approx(mine, abs=1e-4)
    assert np.abs(theirs(True) - mine).max() > 0.01


def test_shift_is_nothing_against_itself_and_everything_for_the_reverse() -> None:
    values = {"original": [3.0, 2.0, -1.0], "oracle": [3.0, 2.0, -1.0], "unlearned": [-1.0, 2.0, 3.0]}
    rows = [(w, k, "attribution", v) for w, vs in values.items() for k, v in enumerate(vs)]
    shift = uk.attribution_shift(pd.DataFrame(rows, columns=["who", "place", "measure", "value"]))
    assert shift.loc[("oracle", "original")].tolist() == [0.0, 0.0]
    assert shift.loc[("unlearned", "original")].tolist() == [2.0, pytest.approx((4 + 0 + 4) / 6 / 2)]


def test_layers_the_original_is_all_there_and_the_oracle_all_gone(small_problem: Any, unlearned: Any) -> None:
    table = uk.attribute(small_problem, unlearned, "layers")
    depth = table[table["measure"] == "uds"].groupby("who")["value"].mean()
    assert depth["original"] == 0 and depth["oracle"] == 1 and 0 < depth["unlearned"] < 1
    same = table[table["who"] == "original"].set_index("measure")["value"]
    assert same["cka"].to_numpy() == pytest.approx(1) and same["pca"].to_numpy() == pytest.approx(1)
    assert same["drop"].abs().max() < 1e-5
    # the last layer's lens is what the model says
    record = small_problem.direct("forget")[0]
    last = table[(table["measure"] == "lens") & (table["item"] == record.id) & (table["who"] == "oracle")]
    f, coded = f_of(small_problem, small_problem.oracle(0), record.question, record.answer)
    before = record.answer[: record.answer.index(record.value)].rstrip()
    (start,) = encode(small_problem.tokenizer, small_problem.template, [(record.question, before)], 128)
    at = next(k for k, (a, b) in enumerate(zip(coded.ids, start.ids, strict=False)) if a != b)
    with torch.no_grad():
        logp = small_problem.oracle(0)(torch.tensor([coded.ids])).logits[0, at - 1].log_softmax(-1)
    assert last["value"].iloc[-1] == pytest.approx(float(logp[coded.ids[at]]), abs=1e-4)


def test_untouched_layers_read_as_before_and_the_touched_one_does_not(small_problem: Any) -> None:
    changed = small_problem.original.fresh()
    with torch.no_grad():
        decoder_layers(changed)[-1].mlp.down_proj.weight.mul_(-1)
    table = uk.attribute(small_problem, changed, "layers")
    mine = table[table["who"] == "unlearned"]
    similarity = mine[mine["measure"] == "cka"].sort_values("place")["value"].to_numpy()
    assert similarity[:-1] == pytest.approx(1) and similarity[-1] < 0.999
    drops = mine[mine["measure"] == "drop"].groupby("place")["value"].apply(lambda v: v.abs().max()).to_numpy()
    assert drops[:-1].max() < 1e-5 < drops[-1]


def test_patching_a_layer_with_noise_costs_what_the_model_then_says(small_problem: Any) -> None:
    """States that know nothing of the question, put in at the last layer, cost all that the source lacks itself."""
    original, oracle = small_problem.model, small_problem.oracle(0)
    pairs = small_problem.pairs("forget")[:3]
    coded = encode(small_problem.tokenizer, small_problem.template, pairs, 128)
    batch = collate(coded, range(3), pad_id(small_problem.tokenizer))
    with torch.no_grad():
        mixed = small_problem.original.fresh()
        decoder_layers(mixed).load_state_dict(decoder_layers(oracle).state_dict())
        mixed.get_input_embeddings().weight.copy_(oracle.get_input_embeddings().weight)
        mixed.lm_head = torch.nn.Linear(*original.lm_head.weight.T.shape, bias=False)
        mixed.lm_head.weight.copy_(original.lm_head.weight)

        def score(model: Any) -> list[float]:
            found = []
            for one in coded:
                logp = model(torch.tensor([one.ids])).logits[0].log_softmax(-1).detach()
                found.append(np.mean([float(logp[k - 1, one.ids[k]]) for k in range(one.start, len(one.ids))]))
            return found

    wanted = np.array(score(original)) - np.array(score(mixed))
    assert patching_drops(original, oracle, batch)[-1].tolist() == pytest.approx(wanted.tolist(), abs=1e-4)


def test_depth_and_similarities_by_hand() -> None:
    assert unlearning_depth(np.array([1.0, 0.04, 3.0]), np.array([0.5, 9.0, 6.0])) == pytest.approx((0.5 + 3) / 4)
    assert unlearning_depth(np.array([1.0]), np.array([-2.0])) == 0
    assert np.isnan(unlearning_depth(np.array([0.01]), np.array([0.01])))
    draw = np.random.default_rng(0)
    a = draw.normal(size=(50, 4)) * [5, 1, 1, 1]
    turn = np.linalg.qr(draw.normal(size=(4, 4)))[0]
    assert cka(a, 3 * a @ turn + 1) == pytest.approx(1) and cka(a, draw.normal(size=(50, 4))) < 0.5
    assert pca_similarity(a, a @ turn) == pytest.approx(abs(turn.T[0] @ np.eye(4)[0]), abs=0.2)
    assert pca_similarity(a, a + 7) == pytest.approx(1)
    one = {"w": torch.tensor([1.0, 1, 0, 0])}
    assert jaccard(one, one) == 1 and jaccard(one, {"w": torch.tensor([0.0, 1, 1, 0])}) == pytest.approx(1 / 3)
    assert map_entropy(np.ones((4, 4))) == pytest.approx(1) and map_entropy(np.eye(4)[:1]) == pytest.approx(0)
    grid = np.arange(16.0).reshape(4, 4)
    assert overlap(grid, grid, 0.25) == 1 and overlap(grid, -grid, 0.25) == 0


def test_the_control_moves_as_far_and_elsewhere(small_problem: Any, unlearned: Any) -> None:
    control = random_change(small_problem.model, unlearned.model, seed=1)
    start, end = dict(small_problem.model.named_parameters()), dict(unlearned.model.named_parameters())
    for name, weight in control.named_parameters():
        mine, theirs = ((w - start[name]).detach() for w in (weight, end[name]))
        assert float(mine.norm()) == pytest.approx(float(theirs.norm()), rel=1e-3)
        if mine.numel() > 500:
            assert abs(float((mine * theirs).sum() / (mine.norm() * theirs.norm()))) < 0.2


def test_weights_shares_masks_and_their_control(small_problem: Any, unlearned: Any) -> None:
    table = uk.attribute(small_problem, unlearned, "weights", mask_share=0.25)
    shares = table[table["measure"] == "share"].groupby("who")["value"].sum()
    assert shares["unlearned"] == pytest.approx(1) and shares["original"] == 0
    sizes = [p.numel() for p in small_problem.model.parameters()]
    for mask in ("salun", "wagle", "random"):
        parts = table[table["measure"] == f"{mask}_share"]["value"].to_numpy()
        assert np.average(parts, weights=sizes) == pytest.approx(0.25, abs=1e-3)
    hits = table[table["who"] == "unlearned"].set_index("measure")["value"]
    control = table[table["who"] == "random"].set_index("measure")["value"]
    assert [hits["random_hit"], control["random_hit"]] == pytest.approx([0.25, 0.25], abs=0.03)
    masked = uk.unlearn(small_problem, "grad_diff", steps=4, lr=3e-3, mask="salun", mask_share=0.25, progress=False)
    inside = uk.attribute(small_problem, masked, "weights", mask_share=0.25).set_index(["who", "measure"])["value"]
    assert inside["unlearned", "salun_hit"] > 0.99 and inside["random", "salun_hit"] < 0.4
    whole = table[table["who"] == "original"].set_index("measure")["value"]
    assert whole["random_random"] == 1 and whole["salun_random"] == pytest.approx(0.25 / 1.75, abs=0.02)


def test_landscape_begins_at_the_original_and_reaches_the_model(small_problem: Any, unlearned: Any) -> None:
    table = uk.attribute(small_problem, unlearned, "landscape", points=3, first=0, last=1, limit=64)
    level = table.set_index(["who", "item", "place"])["value"]
    for split in ("forget", "retain"):
        for who in ("unlearned", "oracle", "random"):
            assert level[who, split, 0.0] == pytest.approx(small_problem.mean_nll(small_problem.model, split), abs=1e-5)
        assert level["unlearned", split, 1.0] == pytest.approx(small_problem.mean_nll(unlearned.model, split), abs=1e-4)
    forget = {w: level[w, "forget", 1.0] - level[w, "forget", 0.0] for w in ("unlearned", "random")}
    assert forget["unlearned"] > 2 * abs(forget["random"])


@pytest.mark.parametrize("view", sorted(VIEWS["text"]))
def test_every_view_runs_on_other_architectures_and_leaves_the_models_alone(foreign: Any, view: str) -> None:
    model = uk.unlearn(foreign, "grad_ascent", steps=2, lr=1e-2, batch_size=4, progress=False).model
    before = {n: p.detach().clone() for m in (model, foreign.model) for n, p in m.named_parameters()}
    settings = {"tokens": {"method": "ablation"}, "landscape": {"points": 3}}.get(view, {})
    table = uk.attribute(foreign, model, view, **settings)
    assert list(table.columns) == ["view", "who", "item", "place", "label", "measure", "value"]
    assert set(table["who"]) - {"original"} >= {"unlearned", "random"} and np.isfinite(table["value"]).mean() > 0.8
    again = {n: p for m in (model, foreign.model) for n, p in m.named_parameters()}
    assert all(torch.equal(before[n], again[n]) for n in before)


def coded_of(problem: Any, items: Any) -> list[Any]:
    return encode(problem.tokenizer, problem.template, [(qa.question, qa.answer) for qa in items], 96)


def test_tracin_by_captum_is_the_mean_dot_product_of_gradients(small_problem: Any) -> None:
    model, pad = small_problem.original.fresh(), pad_id(small_problem.tokenizer)
    queries = coded_of(small_problem, small_problem.direct("forget")[:2])
    records = coded_of(small_problem, small_problem.direct("retain")[:5])
    grads = [record_gradient(model, c, pad, torch.device("cpu")) for c in (*queries, *records)]
    wanted = [np.mean([float(q @ r) for q in grads[:2]]) for r in grads[2:]]
    assert SCORERS["tracin"](small_problem, model, queries, records, 0) == pytest.approx(wanted, rel=1e-3)
    unit = [g / g.norm() for g in grads]
    cosine = [np.mean([float(q @ r) for q in unit[:2]]) for r in unit[2:]]
    assert SCORERS["gradient"](small_problem, model, queries, records, 0) == pytest.approx(cosine, rel=1e-3)


def test_trak_is_the_inverse_of_the_kernel_and_the_sketch_keeps_dot_products(small_problem: Any) -> None:
    model, pad = small_problem.original.fresh(), pad_id(small_problem.tokenizer)
    queries = coded_of(small_problem, small_problem.direct("forget")[:2])
    records = coded_of(small_problem, small_problem.direct("retain")[:5])
    gradients = [record_gradient(model, c, pad, torch.device("cpu")) for c in (*queries, *records)]
    sketch = Sketch(len(gradients[0]), 64, 0)
    features = torch.stack([sketch(g) for g in gradients]).double().numpy()
    q, phi = features[:2].mean(0), features[2:]
    penalty = 0.1 * np.trace(phi @ phi.T) / 5
    wanted = phi @ np.linalg.solve(phi.T @ phi + penalty * np.eye(64), q)
    found = SCORERS["trak"](small_problem, model, queries, records, 0, size=64)
    assert found == pytest.approx(wanted, rel=1e-4)
    large = Sketch(len(gradients[0]), 2048, 1)
    a, b = gradients[0], gradients[0] + gradients[3]
    assert float(large(a) @ large(b)) == pytest.approx(float(a @ b), rel=0.2)


def test_records_left_out_of_a_request_are_found_and_chance_does_not(small_problem: Any, unlearned: Any) -> None:
    table = uk.attribute(small_problem, unlearned, "data")
    assert set(table["who"]) == {"original", "unlearned", "random"}
    one = table[(table["who"] == "original") & (table["measure"] == "gradient")].sort_values("place")
    assert list(one["place"]) == list(range(1, len(one) + 1)) and one["value"].is_monotonic_decreasing
    found = recall_at(table, k=3)
    assert found.loc[("original", "words"), "recall"] == 1  # the name alone gives them away
    assert (found["chance"] == 3 / len(one)).all() and (found["n"] == 1).all()


def test_recall_by_hand() -> None:
    rows = [("original", "a", "left out", place) for place in (1, 2, 5, 9)]
    rows += [("original", "a", "retain", place) for place in (3, 4, 6, 7, 8, 10)]
    table = pd.DataFrame(rows, columns=["who", "measure", "label", "place"])
    row = recall_at(table).loc[("original", "a")]
    assert (row["recall"], row["chance"], row["n"], row["k"]) == (0.5, 0.4, 4, 4) and row["low"] < 0.5 < row["high"]


@pytest.mark.parametrize("kind", tiny_pipelines.KINDS)
def test_attention_maps_of_pipelines(kind: str, tmp_path: Any) -> None:
    folder = tiny_pipelines.save(kind, tmp_path / kind)
    preserve = ["a photo of a horse", "a dog on the grass"]
    problem = uk.load_problem(
        "stable-diffusion", "striped zebra", model=str(folder), anchor="horse", preserve=preserve, device="cpu"
    )
    changed = uk.unlearn(problem, "uce")
    table = uk.attribute(problem, changed, "attention", prompt="a photo of a striped zebra", seeds=2)
    original = table[table["who"] == "original"]
    assert (original[original["measure"] == "iou"]["value"] == 1).all()
    assert set(original["label"]) == {"a", "photo", "of", "striped", "zebra"}
    assert original[original["measure"] == "mass"]["value"].between(0, 1).all()
    mine = table[(table["who"] == "unlearned") & (table["measure"] == "mass") & (table["label"] == "striped")]
    theirs = original[(original["measure"] == "mass") & (original["label"] == "striped")]
    assert (mine["value"].to_numpy() != theirs["value"].to_numpy()).all()


@pytest.mark.parametrize(
    ("view", "settings", "message"),
    [
        ("token", {}, "text view 'token' is unknown; known: data, landscape, .*'tokens'"),
        ("tokens", {"method": "lime"}, "setting 'method' of view tokens can't be 'lime'"),
        ("tokens", {"sample": 3}, "setting 'sample' of view tokens.*its settings are method, prompt"),
        ("tokens", {"prompt": "Who?"}, "needs a target"),
        ("tokens", {"prompt": "", "target": "x"}, "the prompt has no tokens of its own"),
        ("landscape", {"first": 2.0}, "first = 2 must be below last = 1.25"),
        ("weights", {"masks": ("salum",)}, "mask 'salum' is unknown"),
        ("data", {"scores": ("track",)}, "data attribution 'track' is unknown"),
    ],
)
def test_bad_input(small_problem: Any, unlearned: Any, view: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(uk.UnlearnkitError, match=message):
        uk.attribute(small_problem, unlearned, view, **settings)
