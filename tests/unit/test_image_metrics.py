"""Image metrics: hand-computed values, what they do under the null, and the table of `evaluate` for image problems."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit import plots
from unlearnkit.data import ImageBatch, denoising_loss
from unlearnkit.evaluation import score
from unlearnkit.image_problem import ImageProblem
from unlearnkit.metrics import image as metric
from unlearnkit.metrics import measure_image
from unlearnkit.metrics.measure_image import MeasuredImages, denoising_losses, measure_images, questions
from unlearnkit.metrics.table import METRICS, metric_names
from unlearnkit.models.builtin_image import all_prompts, codec_recipe, judge_recipe
from unlearnkit.models.diffusion import Diffusion
from unlearnkit.models.image_recipe import ImageRecipe, new_pipeline, train_prompt_tokenizer
from unlearnkit.models.judge import load_judge
from unlearnkit.models.source import ModelSource
from unlearnkit.models.store import find
from unlearnkit.worlds.canvas import canvas, pictures
from unlearnkit.worlds.pictures import ImageWorld

# --- functions of arrays ---------------------------------------------------------------------------------------------


def test_readings_of_one_erased_concept_by_hand() -> None:
    # domains: style (0 = erased), object; five prompts, the first two ask for style 0
    asked = {"style": [0, 0, 1, 2, 1], "object": [0, 1, 0, 1, 1]}
    read = {"style": [0, 1, 1, 0, 1], "object": [0, 1, 1, 1, 1]}
    found = metric.readings(read, asked, {"style": 0})
    assert found["shown"].tolist() == [1, 0, 0, 1, 0]  # the fourth shows it though nobody asked
    assert found["correct"].tolist() == [1, 0, 0, 0, 1]
    np.testing.assert_array_equal(found["in_domain"], [np.nan, np.nan, 1, 0, 1])
    assert found["cross_domain"].tolist() == [1, 1, 0, 1, 1]  # on every prompt, the erased ones too


def test_readings_of_an_erased_pair_by_hand() -> None:
    asked = {"style": [0, 0, 1, 2], "object": [0, 1, 0, 2]}  # the pair; shares style; shares object; shares nothing
    read = {"style": [0, 0, 2, 2], "object": [1, 1, 0, 2]}
    found = metric.readings(read, asked, {"style": 0, "object": 0})
    assert found["shown"].tolist() == [0, 0, 0, 0]  # style alone is not the pair
    np.testing.assert_array_equal(found["in_domain"], [np.nan, 1, 0, np.nan])
    np.testing.assert_array_equal(found["cross_domain"], [np.nan, np.nan, np.nan, 1])


def test_readings_where_prompts_ask_for_nothing_or_nothing_is_erased() -> None:
    found = metric.readings({"digit": [3, 3, 4]}, {"digit": [3, -1, 3]}, {})
    np.testing.assert_array_equal(found["correct"], [1, np.nan, 0])
    assert np.isnan(found["shown"]).all() and np.isnan(found["in_domain"]).all()
    alone = metric.readings({"digit": [3, 4]}, {"digit": [3, 4]}, {"digit": 3})
    assert np.isnan(alone["cross_domain"]).all()  # there is no other domain


def test_alignment_by_hand() -> None:
    p = {
        "style": np.array([[0.5, 0.5], [0.1, 0.9], [0.2, 0.8]]),
        "object": np.array([[0.4, 0.6], [1.0, 0.0], [0.5, 0.5]]),
    }
    found = metric.alignment(p, {"style": [0, 1, -1], "object": [1, -1, -1]})
    np.testing.assert_allclose(found, [0.5 * 0.6, 0.9, np.nan])


def test_concept_distances_by_hand() -> None:
    features = np.array([[0.0, 0], [2, 0], [1, 3], [1, 5], [1, 1]])
    found = metric.concept_distances(features, ["a", "a", "b", "b", "c"], "a")  # the means: (1, 0), (1, 4), (1, 1)
    assert list(found.items()) == [("c", 1.0), ("b", 4.0)]


def test_paired_mmd_by_hand_and_zero_for_identical_samples() -> None:
    x, y, sigma = np.array([[0.0], [1.0]]), np.array([[2.0], [4.0]]), 1.5

    def k(a: float, b: float) -> float:
        return float(np.exp(-((a - b) ** 2) / (2 * sigma**2)))

    # two pairs (0, 2) and (1, 4): h = k(x1, x2) + k(y1, y2) − k(x1, y2) − k(x2, y1), the same for (i, j) and (j, i)
    assert metric.paired_mmd(x, y, sigma) == pytest.approx(k(0, 1) + k(2, 4) - k(0, 4) - k(1, 2))
    z = np.random.default_rng(0).normal(size=(40, 8))
    assert metric.paired_mmd(z, z.copy(), 2.0) == 0.0
    assert metric.permutation_p(z, z.copy(), 2.0) == 1.0


def test_median_distance_by_hand() -> None:
    assert metric.median_distance(np.array([[0.0, 0], [3, 4], [0, 1]])) == pytest.approx(np.sqrt(18))  # of 1, √18, 5


def test_mmd_is_unbiased_and_its_p_uniform_where_nothing_differs_even_if_pairs_share_their_noise() -> None:
    rng = np.random.default_rng(1)
    values, ps = [], []
    for trial in range(200):
        shared = rng.normal(size=(24, 4))  # what the starting noise has in common
        x, y = (0.8 * shared + 0.6 * rng.normal(size=(24, 4)) for _ in range(2))
        sigma = metric.median_distance(y)
        values.append(metric.paired_mmd(x, y, sigma))
        ps.append(metric.permutation_p(x, y, sigma, 99, seed=trial))
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert np.mean(ps) == pytest.approx(0.5, abs=0.07)
    assert 0.01 < np.mean(np.array(ps) <= 0.05) < 0.11  # 5 in 100, give or take
    assert np.mean(np.array(ps) > 0.75) == pytest.approx(0.25, abs=0.1)


def test_mmd_grows_and_its_p_falls_with_the_shift() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 40, 4))
    found = [metric.paired_mmd(x + shift, y, metric.median_distance(y)) for shift in (0, 0.3, 0.8, 2)]
    assert found == sorted(found) and found[-1] > 0.5
    ps = [metric.permutation_p(x + shift, y, metric.median_distance(y)) for shift in (0, 0.8, 2)]
    assert ps[0] > 0.05 and ps[1] < 0.01 and ps[2] == pytest.approx(0.001)


def test_permutation_p_is_the_share_of_all_swaps() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 6, 2))
    x = x + 0.7
    own = metric.paired_mmd(x, y, 1.0)
    every = []
    for swap in product((False, True), repeat=6):
        s = np.array(swap)[:, None]
        every.append(metric.paired_mmd(np.where(s, y, x), np.where(s, x, y), 1.0))
    exact = np.mean(np.array(every) >= own - 1e-12)
    assert metric.permutation_p(x, y, 1.0, 20_000) == pytest.approx(exact, abs=0.012)


def test_kid_is_torchmetrics_without_the_pairs_of_one_prompt() -> None:
    from torchmetrics.image.kid import KernelInceptionDistance

    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(30, 5)), rng.normal(0.5, 1, size=(30, 5))
    with pytest.warns(UserWarning, match="buffer"):
        library = KernelInceptionDistance(feature=nn.Identity(), subsets=1, subset_size=30)
    library.update(torch.from_numpy(y), real=True)
    library.update(torch.from_numpy(x), real=False)
    across = (x @ y.T / 5 + 1) ** 3
    without = (across.sum() - np.trace(across)) / (30 * 29)
    assert metric.kid(x, y) == pytest.approx(float(library.compute()[0]) + 2 * across.mean() - 2 * without, rel=1e-5)


def test_kid_of_perfect_samples_is_zero_on_average_where_every_prompt_has_as_many_pictures() -> None:
    rng = np.random.default_rng(6)
    prompts = 3 * np.repeat(rng.normal(size=(15, 4)), 2, 0)  # 15 prompts, 2 pictures each, far apart
    found = [metric.kid(*(prompts + rng.normal(size=(30, 4)) for _ in range(2))) for _ in range(300)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))


def test_frechet_distance_closed_forms() -> None:
    z = np.random.default_rng(5).normal(size=(200, 4))
    assert metric.frechet_distance(z, z) == pytest.approx(0, abs=1e-6)
    assert metric.frechet_distance(z + [1, 2, 0, 0], z) == pytest.approx(5.0, abs=1e-6)  # ‖Δμ‖²
    centred = z - z.mean(0)
    spread = np.cov(centred.T)  # y = 3x has covariance 9Σ: tr(Σ + 9Σ − 2·3Σ) = 4·tr Σ
    assert metric.frechet_distance(3 * centred, centred) == pytest.approx(4 * np.trace(spread), rel=1e-6)


def test_evenly_keeps_both_ends() -> None:
    assert metric.evenly(np.arange(10), 4).tolist() == [0, 3, 6, 9]
    assert metric.evenly(np.arange(3), 4).tolist() == [0, 1, 2]


# --- rows of the table, from typed-in items --------------------------------------------------------------------------


def typed(
    shown: Any, inside: Any, across: tuple[Any, Any], shift: float = 0.0, seed: int = 0, losses: Any = None, n: int = 20
) -> MeasuredImages:
    """`n` pictures of forget and of retain prompts (2 and 10 prompts), with features around `shift`."""
    rng = np.random.default_rng(seed)
    parts = []
    for split, values in (
        ("forget", {"shown": shown, "cross_domain": across[0], "weight": 2 / n}),
        ("retain", {"in_domain": inside, "cross_domain": across[1], "correct": inside, "weight": 10 / n}),
    ):
        table = pd.DataFrame({k: np.broadcast_to(np.asarray(v, float), n) for k, v in values.items()})
        table["features"] = list(rng.normal(size=(n, 3)) + (shift if split == "forget" else 0))
        if split == "retain":
            table["real_features"] = list(np.random.default_rng(9).normal(size=(n, 3)))
        table["picture"] = list(rng.integers(0, 255, (n, 4, 4, 3), dtype=np.uint8))
        table["distance"] = np.repeat([1.0, 2.0], n // 2) if split == "retain" else np.nan
        table["prompt"] = "a prompt"
        table.index = pd.MultiIndex.from_product([[split], range(n)])
        parts.append(table)
    for split, own in (losses or {}).items():
        index = pd.MultiIndex.from_product([[split], range(len(own))])
        parts.append(pd.DataFrame({"denoising_loss": np.asarray(own, float)}, index=index))
    return MeasuredImages(pd.concat(parts))


def half(count: int, n: int = 20) -> np.ndarray:
    """`count` ones, spread over n items."""
    out = np.zeros(n)
    out[np.linspace(0, n - 1, count).round().astype(int)] = 1
    return out


JUDGE = SimpleNamespace(accuracy={"style": 0.99, "object": 0.98}, held_out=200)
PROBLEM: Any = SimpleNamespace(modality="image", judge=JUDGE, measured={})
ORIGINAL = typed(half(20), half(20), (half(20), half(20)), 3.0)
ORACLES = [
    typed(half(1), half(19), (half(20), half(20)), 0.0, 1),
    typed(half(2), half(20), (half(19), half(20)), 0.0, 2),
]
IMAGE = metric_names("image")


def table(
    mine: MeasuredImages, names: Any = IMAGE, oracles: Any = ORACLES, original: Any = ORIGINAL, **more: Any
) -> Any:
    return score(PROBLEM, [mine], (original, oracles), names, **more)


def test_accuracies_of_typed_in_readings() -> None:
    mine = typed(half(3), half(17), (half(10), half(15)))
    found = table(mine)
    assert found.loc["ua", "unlearned"] == pytest.approx(1 - 3 / 20)
    assert found.loc["ua", "original"] == 0 and found.loc["ua", "oracle"] == pytest.approx(0.95)
    assert found.loc["ira", "unlearned"] == pytest.approx(17 / 20)
    assert found.loc["prompt_accuracy", "unlearned"] == pytest.approx(17 / 20)
    assert found.loc["cra", "unlearned"] == pytest.approx(
        (2 * 10 / 20 + 10 * 15 / 20) / 12
    )  # every prompt weighs the same
    assert found.loc["ua", "low"] <= 0.85 <= found.loc["ua", "high"]
    assert found.loc["ua", "gap"] == pytest.approx(abs(0.85 - 0.95) / 0.95)
    assert found.loc["ua", "floor"] == pytest.approx(0.05 / 0.95)


def test_a_pair_counts_cross_domain_on_retained_prompts_only() -> None:
    mine = typed(half(0), half(20), (np.nan, half(15)))
    assert table(mine, ["cra"], original=mine, oracles=[mine]).loc["cra", "unlearned"] == pytest.approx(15 / 20)


def test_oracle_as_unlearned_is_at_the_floor_and_original_has_gap_one() -> None:
    rows = ["ua", "oracle_mmd"]
    nothing = table(ORIGINAL, rows)
    assert nothing.loc[rows, "gap"].tolist() == pytest.approx([1, 1])
    exact = table(ORACLES[0], rows)
    assert exact.loc["ua", "gap"] == 0
    assert exact.loc["oracle_mmd", "unlearned"] == 0  # the very samples of oracle 0
    other = table(ORACLES[1], rows)
    assert other.loc["ua", "gap"] == pytest.approx(other.loc["ua", "floor"])
    assert other.loc["oracle_mmd", "gap"] == pytest.approx(0)  # it is compared with the other oracle's own distance


def test_distribution_rows_have_centred_intervals_and_tell_original_from_oracle() -> None:
    found = table(ORIGINAL, ["oracle_mmd", "oracle_mmd_p", "retain_kid", "retain_frechet"])
    for name in ("oracle_mmd", "retain_kid", "retain_frechet"):
        row = found.loc[name]
        assert row["low"] < row["unlearned"] < row["high"]
    assert found.loc["oracle_mmd", "unlearned"] > 10 * abs(found.loc["oracle_mmd", "oracle"])
    assert found.loc["oracle_mmd_p", "unlearned"] == pytest.approx(0.001)
    assert found.loc["oracle_mmd_p", "oracle"] > 0.05 and np.isnan(found.loc["oracle_mmd_p", "low"])


def test_membership_auc_of_typed_in_losses() -> None:
    members = {"members": np.arange(12), "holdout": np.arange(12) + 6.5}
    even = {"members": np.arange(12), "holdout": np.arange(12)}
    mine = typed(half(0), half(20), (half(20), half(20)), losses=members)
    same = typed(half(0), half(20), (half(20), half(20)), losses=even)
    found = table(mine, ["mia_denoising_loss", "members_denoising_loss"], [same, same], mine)
    # of 144 pairs the member has the higher loss where i > j + 6.5: 5 + 4 + 3 + 2 + 1 = 15
    assert found.loc["mia_denoising_loss", "unlearned"] == pytest.approx(1 - 15 / 144)
    assert found.loc["mia_denoising_loss", "oracle"] == pytest.approx(0.5)
    assert found.loc["members_denoising_loss", "unlearned"] == pytest.approx(5.5)


def test_too_few_items_and_incapable_originals_are_not_measurable() -> None:
    few = [typed(half(k, 8), half(8, 8), (half(8, 8), half(8, 8)), n=8) for k in (8, 0, 0)]
    found = table(few[0], original=few[0], oracles=few[1:])
    assert found.loc["ua", "why"] == "not measurable: 8 items are too few (at least 10)"
    assert found.drop("judge_accuracy")["unlearned"].isna().all()
    blind = typed(half(3), half(8), (half(20), half(20)))
    found = table(blind, ["ua", "ira"], original=blind)
    assert found.loc["ua", "why"] == "not measurable: the original itself is at 0.85"
    assert found.loc["ira", "why"] == "not measurable: the original itself reaches 0.40"
    assert found["unlearned"].drop("judge_accuracy").isna().all()
    assert "no oracle" in table(ORIGINAL, ["oracle_mmd"], oracles=[]).loc["oracle_mmd", "why"]
    wide = copy.deepcopy(ORIGINAL)
    wide.items["features"] = [np.tile(v, 8) for v in wide.items["features"]]
    assert (
        "20 pictures are too few for 24 features"
        in table(wide, ["retain_frechet"], [wide], wide).loc["retain_frechet", "why"]
    )


def test_the_judge_is_in_every_table() -> None:
    found = table(ORIGINAL, ["ira"])
    row = found.loc["judge_accuracy"]
    assert row["original"] == row["unlearned"] == 0.98 and row["n"] == 200 and np.isnan(row["gap"])
    assert row["low"] == pytest.approx(0.9497, abs=1e-3) and row["high"] == pytest.approx(0.9922, abs=1e-3)  # Wilson
    assert found.attrs["judge"] == {"accuracy": {"style": 0.99, "object": 0.98}, "held_out": 200}


def test_a_metric_of_ones_own_looks_at_pictures_and_stands_in_the_table() -> None:
    @uk.register_metric("brightness", modality="image")
    def brightness(items: uk.Items) -> float:
        return float(items.column("forget", "picture").mean())

    try:
        found = table(ORIGINAL, metric_names("image"))
        row = found.loc["forget_brightness"]
        pixels = np.stack(list(ORIGINAL.split("forget")["picture"]))
        assert row["unlearned"] == pytest.approx(pixels.mean()) and row["low"] < row["unlearned"] < row["high"]
        assert "forget_brightness" not in metric_names("text")
    finally:
        del METRICS["forget_brightness"]


def test_metrics_of_the_two_modalities_do_not_mix() -> None:
    with pytest.raises(uk.UnlearnkitError, match="metric 'ua' is one of image problems, and this is one of text"):
        metric_names("text", ["ua"])
    with pytest.raises(uk.UnlearnkitError, match="'forget_quality' is one of text problems, and this is one of image"):
        metric_names("image", ["forget_quality"])
    with pytest.raises(uk.UnlearnkitError, match="image metric 'oracle_mdm' is unknown.*Did you mean 'oracle_mmd'"):
        metric_names("image", ["oracle_mdm"])
    with pytest.raises(uk.UnlearnkitError, match="'forget_probability' is built in; register yours under another"):
        uk.register_metric("probability", modality="image")
    with pytest.raises(uk.UnlearnkitError, match="modality 'sound' is unknown; known: image, text"):
        uk.register_metric("loudness", modality="sound")
    assert set(metric_names("text")) | set(metric_names("image")) == set(METRICS)


# --- measuring models -------------------------------------------------------------------------------------------------


class Painter(nn.Module):
    """Stands for a pipeline: draws what is asked for in the styles it knows, anything else plain."""

    unet: Any = None  # by which a pipeline is known

    image_size = 32

    def __init__(self, unknown: tuple[str, ...] = (), salt: int = 0) -> None:
        super().__init__()
        self.unknown, self.salt = unknown, salt

    def paint(self, prompt: str, seed: int) -> np.ndarray:
        _, style, shape = prompt.split()
        style = "plain" if style in self.unknown else style
        return pictures(shape, style, 1, np.random.default_rng([seed, self.salt]))[0]


def painted(model: Painter, prompts: Any, seeds: Any, **_: Any) -> np.ndarray:
    return np.stack([model.paint(p, s) for p, s in zip(prompts, seeds, strict=True)])


@pytest.fixture(scope="module")
def world() -> ImageWorld:
    return canvas(images=4)


def shipped(recipe: Any) -> Path:
    """Folder of a checkpoint, which a test must not begin to train."""
    folder = find(recipe.digest)
    assert folder is not None, f"{recipe.note} ({recipe.digest}) is not shipped"
    return folder


@pytest.fixture(scope="module")
def judge(world: ImageWorld) -> Any:
    return load_judge(shipped(judge_recipe(world)))


def problem_of(world: ImageWorld, judge: Any, request: str, models: list[Any]) -> ImageProblem:
    from unlearnkit.image_loaders import _questions

    found = world.requested(request)
    concept = {d: str(c) for d, c in found.items() if d != "images"}
    asked, wanted = _questions(world.concepts, concept)
    sources = [ModelSource(lambda m=m: m, f"model {k}", kept=m) for k, m in enumerate(models)]  # type: ignore[misc]
    word = " ".join(concept.values())
    return ImageProblem(
        world.name, request, 0, world.split(request), concept, word, "plain" if word else "", asked, wanted,
        sources[0], sources[1:], judge, world.concepts, torch.device("cpu"),
    )  # fmt: skip


@pytest.fixture
def striped(world: ImageWorld, judge: Any, monkeypatch: pytest.MonkeyPatch) -> ImageProblem:
    """Painters as original (knows all) and as oracles (never saw stripes)."""
    monkeypatch.setattr(measure_image, "sample", painted)
    return problem_of(world, judge, "striped", [Painter(), Painter(("striped",), 1), Painter(("striped",), 2)])


def test_every_model_is_asked_the_same_and_as_often_as_the_limit_allows(striped: ImageProblem) -> None:
    asked = questions(striped, 60)
    count = pd.Series([q.split for q in asked]).value_counts()
    assert count.to_dict() == {"forget": 60, "retain": 60}  # 6 prompts × 10 seeds, 30 × 2
    assert len({q.seed for q in asked}) == len(asked)  # every picture has a noise of its own
    assert asked == questions(striped, 60) and all("striped" in q.prompt for q in asked if q.split == "forget")
    few = questions(striped, 10)
    assert len({q.prompt for q in few if q.split == "retain"}) == 10  # fewer than prompts: evenly chosen, one seed each
    first = measure_images(striped, Painter(), 12, progress=False).items
    again = measure_images(striped, Painter(), 12, progress=False).items
    pd.testing.assert_frame_equal(
        first.drop(columns=["picture", "features"]), again.drop(columns=["picture", "features"])
    )
    assert all((a == b).all() for a, b in zip(first["picture"].dropna(), again["picture"].dropna(), strict=True))


def test_evaluate_reads_models_that_know_and_that_do_not(striped: ImageProblem) -> None:
    unlearned = uk.evaluate(striped, [Painter(("striped",), 3), Painter(("striped",), 4)], limit=60)
    assert list(unlearned.columns) == list(table(ORIGINAL).columns) and "forget_quality" not in unlearned.index
    ua = unlearned.loc["ua"]
    assert ua["original"] <= 0.05 and ua["oracle"] >= 0.95 and ua["unlearned"] >= 0.95 and ua["seeds"] == 2
    assert (unlearned.loc[["ira", "cra", "prompt_accuracy", "related_accuracy"], "unlearned"] >= 0.95).all()
    assert unlearned.loc["oracle_mmd", "gap"] < 0.1 and unlearned.loc["oracle_mmd_p", "unlearned"] > 0.02
    assert unlearned.loc["forget_alignment", "original"] > 0.9 > 0.1 > unlearned.loc["forget_alignment", "unlearned"]
    assert unlearned.loc["retain_kid", "low"] < 0 < unlearned.loc["retain_kid", "high"]  # its pictures are real ones
    assert unlearned.loc["judge_accuracy", "unlearned"] >= 0.97 and unlearned.attrs["judge"]["held_out"] == 720
    assert "mia_denoising_loss" not in unlearned.index  # the request is a concept
    nothing = uk.evaluate(striped, Painter(), ["ua", "oracle_mmd", "oracle_mmd_p", "mia_denoising_loss"], limit=60)
    assert nothing.loc["ua", "gap"] == 1 and nothing.loc["oracle_mmd", "gap"] == 1
    assert nothing.loc["oracle_mmd_p", "unlearned"] == pytest.approx(0.001)
    assert nothing.loc["mia_denoising_loss", "why"].endswith("the request is a concept, not individual images")


def test_real_pictures_beside_samples_show_what_was_asked_for(striped: ImageProblem, judge: Any) -> None:
    mine = measure_images(striped, Painter(), 60, progress=False).split("retain")
    kept = striped.splits["retain"]
    own = {tuple(f.round(3)): row for row, f in enumerate(judge.read(kept.images)[1].astype(float))}
    rows = [own[tuple(f.round(3))] for f in mine["real_features"]]
    shown = [f"a {kept.labels['style'][i]} {kept.labels['object'][i]}" for i in rows]
    assert shown == list(mine["prompt"]) and len(set(rows)) == 60  # another picture for every seed


def test_related_damage_finds_the_damaged_concept(striped: ImageProblem) -> None:
    damage = uk.related_damage(striped, Painter(("striped", "crossed"), 5), limit=60, resamples=50)
    assert list(damage.index) != [] and damage["distance"].is_monotonic_increasing
    assert set(damage.index) == {"plain", "dotted", "checkered", "crossed", "shaded"}
    assert damage.loc["crossed", "drop"] > 0.9 and damage.loc["crossed", "low"] > 0.7
    assert damage.drop("crossed")["drop"].abs().max() < 0.1 and damage["oracle_drop"].abs().max() < 0.1
    assert (damage["n"] == 12).all()
    figure = plots.plot_related({"painter": damage})
    assert [t.get_text().split("\n")[0] for t in figure.axes[0].get_xticklabels()] == list(damage.index)


def test_what_was_measured_once_is_evaluated_and_shown_without_asking_again(striped: ImageProblem) -> None:
    mine = uk.measure(striped, Painter(("striped",), 3), 12, progress=False)
    again = uk.evaluate(striped, Painter(("striped",), 3), limit=12)
    pd.testing.assert_frame_equal(uk.evaluate(striped, mine, limit=12), again)
    with pytest.raises(uk.UnlearnkitError, match="12 has .* measure and evaluate with one limit"):
        uk.evaluate(striped, uk.measure(striped, Painter(), 24, progress=False), limit=12)
    prompts, shown = mine.pictures("forget", 3, seeds=2)
    assert shown.shape == (3, 2, 32, 32, 3) and all("striped" in p for p in prompts)
    first = questions(striped, 12)[0]
    assert (
        prompts[0] == first.prompt and (shown[0, 0] == Painter(("striped",), 3).paint(first.prompt, first.seed)).all()
    )
    figure = plots.image_grid({"original": shown, "oracle": shown[:, :1]}, prompts)
    assert [ax.get_title() for ax in figure.axes[:2]] == ["original", "oracle"] and len(figure.axes) == 6


def test_a_pair_and_a_judge_that_fails(world: ImageWorld, judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_image, "sample", painted)
    pair = problem_of(world, judge, "striped circle", [Painter(), Painter(("striped",), 1)])
    mine = measure_images(pair, Painter(), 35, progress=False)
    retain = mine.split("retain")
    assert retain["in_domain"].notna().sum() == 10 and retain["cross_domain"].notna().sum() == 25
    assert len(set(retain["concept"])) == 35 and retain["distance"].notna().all()
    assert len(mine.split("forget")) == 35 and mine.split("forget")["shown"].mean() > 0.95

    weak = copy.deepcopy(judge)
    weak.accuracy = {"object": 0.99, "style": 0.9}
    found = uk.evaluate(replace(pair, judge=weak, measured={}), Painter(), limit=20)
    judged = found.drop("judge_accuracy")
    assert judged["unlearned"].isna().all() and len(judged) >= 8
    assert set(judged["why"]) == {"not measurable: the judge reads 90% of held-out pictures, 97% are needed"}
    none = uk.evaluate(replace(pair, judge=None, measured={}), Painter(), limit=20)
    assert none["why"].str.startswith("not measurable: ").all() and none["unlearned"].isna().all()
    with pytest.raises(uk.UnlearnkitError, match="not measurable: the judge reads 90%"):
        uk.related_damage(replace(pair, judge=weak, measured={}), Painter(), limit=20)


def test_clip_scores_need_no_reading_judge(striped: ImageProblem) -> None:
    class Clip:
        domains: dict[str, Any] = {}
        accuracy: dict[str, float] = {}
        held_out = 0

        def score(self, images: np.ndarray, prompts: list[str]) -> np.ndarray:
            return np.array([float(len(p)) for p in prompts])

    clip = replace(striped, judge=Clip(), measured={})
    found = uk.evaluate(clip, Painter(), limit=20)
    lengths = [len(q.prompt) for q in questions(clip, 20) if q.split == "forget"]
    assert found.loc["forget_clip_score", "unlearned"] == pytest.approx(np.mean(lengths))
    assert "accuracy is not known" in found.loc["ua", "why"]
    assert "forget_clip_score" not in uk.evaluate(striped, Painter(), limit=12).index


@pytest.fixture(scope="module")
def untrained(world: ImageWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Diffusion]:
    """A genuine pipeline of tiny size with random weights."""
    from diffusers import AutoencoderTiny

    codec = AutoencoderTiny.from_pretrained(shipped(codec_recipe(world))).float()
    recipe = ImageRecipe(data="", codec="", prompts="", channels=(8, 16), text_width=16, text_layers=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield Diffusion(new_pipeline(recipe, codec, train_prompt_tokenizer(all_prompts(world.concepts)))).eval()


def test_individual_images_are_measured_by_their_denoising_losses(
    world: ImageWorld, judge: Any, untrained: Diffusion
) -> None:
    ids = ",".join(i for i in world.trained.ids if "striped-circle" in i or "plain-star" in i or "dotted-cross" in i)
    problem = problem_of(world, judge, ids, [untrained, untrained])
    found = measure_images(problem, untrained, 12, progress=False)
    assert len(found.split("members")) == 12 and len(found.split("holdout")) == 12
    shown = {"-".join(i.split("-")[1:3]) for i in found.split("holdout").index}
    assert shown == {"striped-circle", "plain-star", "dotted-cross"}  # unseen pictures of the same pairs

    # the same by the loss that methods descend, one picture and one timestep at a time
    losses = denoising_losses(problem, untrained, "forget", [4])
    x, text = problem.latents("forget")[[4]], untrained.embed([problem.splits["forget"].captions[4]])
    noises = torch.randn((measure_image.LOOKS, *x.shape[1:]), generator=torch.Generator().manual_seed(0))
    by_hand = []
    for k, noise in enumerate(noises):
        t, row = torch.tensor([50 + 100 * k]), torch.tensor([4])
        with torch.no_grad():
            by_hand.append(float(denoising_loss(untrained, ImageBatch(x, noise[None], t, text, None, row, [""]))))
    assert losses == pytest.approx([np.mean(by_hand)], rel=1e-5)
    assert denoising_losses(problem, untrained, "forget", [1, 4])[1] == pytest.approx(losses[0], rel=1e-4)

    scores = uk.evaluate(problem, untrained, limit=12, resamples=20)
    assert 0 <= scores.loc["mia_denoising_loss", "unlearned"] <= 1 and scores.loc["mia_denoising_loss", "n"] == 12
    assert "ua" not in scores.index and "retain_alignment" in scores.index


def test_cost_stands_beside_scores() -> None:
    run = SimpleNamespace(cost={"steps": 10, "seconds": 2.0, "peak_memory_mb": 5.0, "parameters_touched": 7})
    slow = SimpleNamespace(cost={"steps": 10, "seconds": 4.0, "peak_memory_mb": 5.0, "parameters_touched": 7})
    free = SimpleNamespace(cost={"steps": 0, "seconds": 0.1})
    found = uk.beside_cost(
        {"esd": table(ORACLES[0], ["ua"]), "sld": table(ORIGINAL, ["ua"])}, {"esd": [run, slow], "sld": free}, ["ua"]
    )
    assert list(found.index) == ["original", "esd", "sld", "oracle"]
    assert found["ua"].tolist() == pytest.approx([0, 0.95, 0, 0.95])
    assert found.loc["esd", "seconds"] == 3 and np.isnan(found.loc["sld", "parameters_touched"])
