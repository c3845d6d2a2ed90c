"""Image worlds: the same pictures everywhere, requests, splits, and what of them a method is given."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import unlearnkit as uk
from unlearnkit.image_loaders import from_world
from unlearnkit.image_problem import ImageProblem, contains, swapped
from unlearnkit.methods import METHODS
from unlearnkit.models.builtin_image import all_prompts, image_recipes, spare
from unlearnkit.models.image_recipe import digest_pictures
from unlearnkit.models.store import shipped_dir
from unlearnkit.worlds import canvas as canvas_world
from unlearnkit.worlds import digits as digits_world
from unlearnkit.worlds.canvas import canvas
from unlearnkit.worlds.digits import digits
from unlearnkit.worlds.pictures import Concepts, ImageWorld, Pictures, article


@pytest.fixture(scope="module")
def world() -> ImageWorld:
    return canvas(images=4, holdout=1)


@pytest.fixture(scope="module")
def ask(small_image_problem: Any) -> Any:
    """A problem on any world and request without training: the model is the fixture's, whatever it draws."""
    folder = small_image_problem.original.name

    def make(world: ImageWorld, forget: Any, **more: Any) -> ImageProblem:
        own = {"model": folder, "oracles": [], "device": "cpu", "judge": small_image_problem.judge}
        return from_world(world, forget, 0, **own, **more)

    return make


def fingerprint(*parts: Pictures) -> str:
    found = hashlib.sha256()
    for pictures in parts:
        found.update(pictures.images.tobytes())
        found.update(repr((pictures.ids, pictures.captions, sorted(pictures.labels.items()))).encode())
    return found.hexdigest()


# --- canvas ----------------------------------------------------------------------------------------------------------


def test_canvas_has_at_least_six_objects_in_six_styles(world: ImageWorld) -> None:
    domains = world.concepts.domains
    assert len(domains["object"]) >= 6 and len(domains["style"]) >= 6
    pairs = list(zip(world.trained.labels["object"], world.trained.labels["style"], strict=True))
    assert set(pairs) == set(product(domains["object"], domains["style"]))
    assert {pairs.count(p) for p in pairs} == {4}
    images = world.trained.images
    assert images.dtype == np.uint8 and images.shape == (len(pairs), 32, 32, 3)
    assert len({i.tobytes() for i in [*images, *world.holdout.images]}) == len(pairs) + len(world.holdout)


def test_worlds_are_the_same_in_every_process_whatever_the_hash_seed(world: ImageWorld) -> None:
    program = """
import hashlib
from unlearnkit.worlds.canvas import canvas
from unlearnkit.worlds.digits import parts
world = canvas(images=4, holdout=1)
for some in ((world.trained, world.holdout), parts(0)):
    found = hashlib.sha256()
    for pictures in some:
        found.update(pictures.images.tobytes())
        found.update(repr((pictures.ids, pictures.captions, sorted(pictures.labels.items()))).encode())
    print(found.hexdigest())
"""
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, env=environment)
    wanted = [fingerprint(world.trained, world.holdout), fingerprint(*digits_world.parts(0))]
    assert done.stdout.split() == wanted, done.stderr[-500:]


def test_another_seed_draws_other_pictures_and_more_of_them_begin_with_the_same(world: ImageWorld) -> None:
    other = canvas(images=4, seed=1, holdout=1)
    assert not np.array_equal(other.trained.images, world.trained.images) and other.name != world.name
    assert other.trained.ids == world.trained.ids and digest_pictures(other.trained) != digest_pictures(world.trained)


def test_captions_use_trained_templates_and_one_in_four_other_words() -> None:
    many = canvas(images=30, holdout=0)
    concepts = many.concepts
    other = 0
    for caption, o, s in zip(
        many.trained.captions, many.trained.labels["object"], many.trained.labels["style"], strict=True
    ):
        ways = {
            synonym: {concepts.prompt({"object": o, "style": s}, template, synonym) for template in concepts.templates}
            for synonym in (None, 0)
        }
        assert caption in ways[None] | ways[0]
        other += caption in ways[0]
    share = other / len(many.trained)
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(many.trained))
    held = [article(t.format(object=o, style=s)) for t in concepts.held_out
            for o in concepts.domains["object"] for s in concepts.domains["style"]]  # fmt: skip
    assert len(concepts.held_out) >= 2 and not set(held) & set(many.trained.captions)
    assert all(len(concepts.synonyms[c]) >= 1 for values in concepts.domains.values() for c in values)


def test_every_style_and_every_shape_looks_different() -> None:
    """Where nothing but the concept varies, the pictures do."""
    for fixed in ("star", "circle"):
        drawn = [
            canvas_world.pictures(fixed, s, 1, np.random.default_rng(5)) for s in canvas_world.CONCEPTS.domains["style"]
        ]
        shapes = [
            canvas_world.pictures(o, "plain", 1, np.random.default_rng(5))
            for o in canvas_world.CONCEPTS.domains["object"]
        ]
        for some in (drawn, shapes):
            for i, a in enumerate(some):
                for b in some[:i]:
                    assert np.abs(a.astype(int) - b).mean() > 1


@pytest.mark.parametrize(("name", "value"), [("images", 3), ("images", 2001), ("images", "many"), ("holdout", -1)])
def test_numbers_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(uk.UnlearnkitError, match=f"{name} = {value!r} is not possible in the world canvas"):
        canvas(**{name: value})


def test_codec_and_judge_see_other_pictures_than_any_pipeline(world: ImageWorld) -> None:
    known = {i.tobytes() for i in [*canvas(images=100).trained.images, *canvas(images=100).holdout.images]}
    for part in spare(world):
        assert not known & {i.tobytes() for i in part.images}
    first, second = spare(world)
    assert not {i.tobytes() for i in first.images} & {i.tobytes() for i in second.images}


# --- digits ----------------------------------------------------------------------------------------------------------


def test_digits_are_the_scans_of_scikit_learn_in_three_disjoint_parts() -> None:
    data = load_digits()
    parts = digits_world.parts(0)
    rows = [[int(i.removeprefix("scan-")) for i in part.ids] for part in parts]
    assert sorted(r for part in rows for r in part) == list(range(1797))
    assert [len(r) for r in rows] == [800, 150, 847]
    for part, own in zip(parts, rows, strict=True):
        assert part.labels["digit"] == tuple(digits_world.WORDS[data.target[r]] for r in own)
        for image, r in list(zip(part.images, own, strict=True))[::97]:
            assert (image[..., 0] == image[..., 1]).all() and image.shape == (32, 32, 3)
            small = Image.fromarray(image[2:-2, 2:-2, 0]).resize((8, 8), Image.Resampling.BOX)
            scan = 255 - data.images[r] * 255 / 16
            assert np.corrcoef(np.asarray(small, float).ravel(), scan.ravel())[0, 1] > 0.95
    assert digits(0).trained.ids == parts[0].ids and digits(0).holdout.ids == parts[1].ids
    assert set(digits(1).trained.ids) != set(digits(0).trained.ids)
    judge = {i for part in spare(digits(0)) for i in part.ids}
    assert judge == set(parts[2].ids)
    with pytest.raises(uk.UnlearnkitError, match="seed = -1 is not possible in the world digits"):
        digits(-1)


# --- requests and splits ---------------------------------------------------------------------------------------------

REQUESTS = [
    ("striped", {"style": "striped"}),
    ("Circle", {"object": "circle"}),
    ("a striped circle", {"style": "striped", "object": "circle"}),
    ("circle striped", {"style": "striped", "object": "circle"}),
    (["c-striped-circle-000", "c-plain-star-003"], {"images": ("c-striped-circle-000", "c-plain-star-003")}),
    ("c-striped-circle-000, c-plain-star-003", {"images": ("c-striped-circle-000", "c-plain-star-003")}),
]


@pytest.mark.parametrize(("forget", "wanted"), REQUESTS, ids=str)
def test_requests_and_their_splits(world: ImageWorld, forget: Any, wanted: dict[str, Any]) -> None:
    assert world.requested(forget) == wanted
    splits = world.split(forget)
    sets = {name: set(part.ids) for name, part in splits.items()}
    assert sets["forget"] | sets["retain"] == set(world.trained.ids) and not sets["forget"] & sets["retain"]
    assert sets["holdout"] == set(world.holdout.ids) and not sets["holdout"] & set(world.trained.ids)
    place = {i: k for k, i in enumerate(world.trained.ids)}
    for name in ("forget", "retain"):
        part = splits[name]
        rows = [place[i] for i in part.ids]
        assert np.array_equal(part.images, world.trained.images[rows])
        assert part.captions == tuple(world.trained.captions[r] for r in rows)
        for k in range(len(part)):
            shown = {d: part.labels[d][k] for d in part.labels}
            asked = part.ids[k] in wanted["images"] if "images" in wanted else wanted.items() <= shown.items()
            assert asked == (name == "forget")


def test_a_digit_is_a_request(ask: Any) -> None:
    splits = digits(0).split("seven")
    assert set(splits["forget"].labels["digit"]) == {"seven"} and "seven" not in splits["retain"].labels["digit"]
    problem = ask(digits(0), "seven")
    assert problem.asked["forget"] == ["a handwritten seven"] and len(problem.asked["retain"]) == 9
    assert (problem.word, problem.anchor) == ("seven", "zero")
    assert ask(digits(0), "zero").anchor == "one"


@pytest.mark.parametrize(
    ("forget", "match"),
    [
        ("stripy", "concept 'stripy' is unknown; known: .*Did you mean 'striped'"),
        ("striped dotted", "names two concepts of the domain style; forget one at a time"),
        ("striped big circle", "concept 'big' is unknown"),
        (
            ["striped", "circle"],
            "a list of requests names images of canvas-4 by id, and 'striped' is none; ids look like",
        ),
        (["c-plain-star-003", "c-plain-star-999"], "and 'c-plain-star-999' is none"),
        ("h-striped-circle-000", "'h-striped-circle-000' of canvas-4 is held out"),
        ([], "the forget set is empty"),
        ("", "the forget set is empty"),
        ("striped,", "the forget set is empty"),
        ("the", "the request 'the' names nothing"),
    ],
)
def test_requests_the_world_does_not_know(world: ImageWorld, forget: Any, match: str) -> None:
    with pytest.raises(uk.UnlearnkitError, match=match) as caught:
        world.split(forget)
    assert "\n" not in str(caught.value)


def test_a_request_must_leave_something(world: ImageWorld) -> None:
    with pytest.raises(uk.UnlearnkitError, match="covers 144 of 144 images of canvas-4"):
        world.split(list(world.trained.ids))


def test_concepts_of_several_words_and_of_any_case() -> None:
    concepts = Concepts({"by": ("Van Gogh", "Van"), "what": ("Sunflowers",)}, ("{what} by {by}",))
    images = np.zeros((6, 8, 8, 3), np.uint8)
    ids = tuple("abcdef")
    labels = {"by": ("Van Gogh", "Van") * 3, "what": ("Sunflowers",) * 6}
    own = ImageWorld("own", concepts, Pictures(images, ids, labels, ids), Pictures(images[:0], (), {}, ()))
    assert own.requested("van gogh") == {"by": "Van Gogh"} and own.requested("VAN") == {"by": "Van"}
    assert own.requested("van gogh sunflowers") == {"by": "Van Gogh", "what": "Sunflowers"}
    assert own.split("Van Gogh")["forget"].ids == ("a", "c", "e")


def test_a_pair_of_concepts_that_no_wording_has_side_by_side(ask: Any) -> None:
    domains = {"kind": ("cat", "dog"), "place": ("sea", "hill"), "tone": ("dark", "light")}
    concepts = Concepts(domains, ("a picture of {kind} {place} {tone}",), anchors={d: v[0] for d, v in domains.items()})
    labels = [dict(zip(domains, values, strict=True)) for values in product(*domains.values())]
    captions = tuple(concepts.prompt(row) for row in labels)
    columns = {d: tuple(row[d] for row in labels) for d in domains}
    pictures = Pictures(np.zeros((8, 8, 8, 3), np.uint8), captions, columns, captions)
    own = ImageWorld("own", concepts, pictures, pictures.take([]), "imagefolder")
    problem = ask(own, "dark dog")
    assert (problem.word, problem.anchor) == ("dog dark", "cat dark")
    assert problem.asked["forget"] == ["a picture of dog dark sea", "a picture of dog dark hill"]
    assert len(problem.asked["retain"]) == 6 and len(problem.splits["forget"]) == 2
    assert set(problem.prompts_of("forget")[0]) == set(problem.asked["forget"])


# --- words -----------------------------------------------------------------------------------------------------------


def test_articles_and_swapped_words() -> None:
    assert article("a eight and a seven, a") == "an eight and a seven, a"
    assert swapped("a scan of an eight", "eight", "zero") == "a scan of a zero"
    assert swapped("a scan of a zero", "zero", "eight") == "a scan of an eight"
    assert swapped("An Eight, a weight", "eight", "seven") == "A seven, a weight"
    assert swapped("a striped circle", "striped", "orange") == "an orange circle"
    assert swapped("a circle that is striped", "striped", "plain") == "a circle that is plain"
    assert swapped("banana striped", "striped", r"\g<0>") == r"banana \g<0>"  # no pattern in what replaces
    assert contains("A STRIPED circle", "striped") and not contains("unstriped, striped2", "striped")
    assert contains("a (striped) one", "striped") and contains("van gogh's", "Van Gogh")
    concepts = canvas_world.CONCEPTS
    labels = {"object": "star", "style": "striped"}
    assert concepts.prompt(labels) == "a striped star" and concepts.prompt(labels, synonym=0) == "a banded asterisk"
    assert (
        concepts.prompt(labels, "a {object}") == "a star" and concepts.prompt(labels, "a {object}", 3) == "an asterisk"
    )
    with pytest.raises(uk.UnlearnkitError, match="concept 'blue' is unknown"):
        concepts.domain_of("blue")
    with pytest.raises(uk.UnlearnkitError, match="different lengths"):
        Pictures(np.zeros((2, 8, 8, 3), np.uint8), ("a",), {}, ("a", "b"))


def test_a_problem_asks_every_combination_on_its_side(world: ImageWorld, ask: Any) -> None:
    for forget, count, word, anchor in (
        ("striped", 6, "striped", "plain"),
        ("circle", 6, "circle", "square"),
        ("plain", 6, "plain", "striped"),
        ("striped circle", 1, "striped circle", "plain circle"),
        ("circle striped", 1, "striped circle", "plain circle"),
        ("plain circle", 1, "plain circle", "striped circle"),
    ):
        problem = ask(world, forget)
        assert (problem.word, problem.anchor) == (word, anchor)
        assert len(problem.asked["forget"]) == count and len(problem.asked["retain"]) == 36 - count
        assert all(contains(p, word) for p in problem.asked["forget"])
        assert not any(contains(p, word) for p in problem.asked["retain"])
        for side in ("forget", "retain"):
            for prompt, wanted in zip(problem.asked[side], problem.wanted[side], strict=True):
                assert prompt == world.concepts.prompt(wanted)
        replaced = [problem.replaced(p) for p in problem.asked["forget"]]
        assert set(replaced) <= set(problem.asked["retain"])
    assert ask(world, "striped").digest != ask(world, "dotted").digest
    assert ask(world, "striped", anchor="dotted").anchor == "dotted"
    assert ask(world, "circle striped", anchor="dotted star").replaced("a striped circle") == "a dotted star"
    with pytest.raises(uk.UnlearnkitError, match="the anchor 'very striped' contains the concept"):
        ask(world, "striped", anchor="very striped")


# --- what a method is given ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forget", ["striped", "circle", "striped circle", "ring"])
def test_no_method_is_given_other_words_or_held_out_templates_for_what_is_forgotten(
    world: ImageWorld, ask: Any, forget: str
) -> None:
    """So that paraphrase and synonym prompts stay an attack on every method."""
    problem = ask(world, forget)
    concepts = world.concepts
    words = {s for c in problem.concept.values() for s in concepts.synonyms[c]}
    held = {p for p in all_prompts(concepts) if not any(
        p == concepts.prompt(dict(zip(concepts.domains, pair, strict=True)), template, synonym)
        for pair in product(*concepts.domains.values()) for template in concepts.templates for synonym in (None, 0)
    )} if forget == "striped" else set()  # fmt: skip
    for name, cls in METHODS["image"].items():
        needed = cls().views_needed()
        given = [p for view in needed if view != "retain" for side in problem.prompts_of(view) for p in side]
        given += problem.asked["forget"]
        asked = [p for view in needed if view != "retain" for p in problem.prompts_of(view)[0]]
        assert all(contains(p, problem.word) for p in asked), name
        assert not any(contains(p, w) for p in given for w in words), name
        assert not held & set(given), name
        if len(problem.concept) == 1:  # neither do the retain pictures name it in other words
            kept = problem.prompts_of("retain")[0] if "retain" in needed else []
            assert not any(contains(p, w) for p in kept for w in (*words, problem.word)), name


@pytest.mark.parametrize("forget", ["striped", "circle", "striped circle"])
def test_anchors_are_aligned_picture_by_picture(world: ImageWorld, ask: Any, forget: str) -> None:
    problem = ask(world, forget)
    prompts, anchors = problem.prompts_of("forget")
    assert len(prompts) == len(problem.splits["forget"]) and anchors == [problem.replaced(p) for p in prompts]
    assert all(contains(a, problem.anchor) and not contains(a, problem.word) for a in anchors)
    prompts, anchors = problem.prompts_of("anchor")
    shown = problem.pictures("anchor")
    assert len(shown) == len(prompts) == len(anchors) and prompts == [problem.named(a) for a in anchors]
    assert all(contains(p, problem.word) for p in prompts)
    trained = {i: k for k, i in enumerate(world.trained.ids)}
    for k, i in enumerate(shown.ids):  # real pictures of the anchor, each with its own other labels in both prompts
        assert i in set(problem.splits["retain"].ids)
        labels = {d: world.trained.labels[d][trained[i]] for d in world.concepts.domains}
        assert " ".join(labels[d] for d in problem.concept) == problem.anchor
        for d, concept in labels.items():
            if d not in problem.concept:
                assert contains(prompts[k], concept) and contains(anchors[k], concept)
    assert len(shown) == {"striped": 24, "circle": 24, "striped circle": 4}[forget]


def test_training_data_draws_epochs_with_noise_of_their_own_and_encodes_every_prompt_once(
    small_image_problem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, model = small_image_problem, small_image_problem.model
    encoded: list[str] = []
    real = type(model).embed

    def counted(self: Any, prompts: Any) -> Any:
        encoded.extend(prompts)
        return real(self, prompts)

    monkeypatch.setattr(type(model), "embed", counted)
    loop = SimpleNamespace(batch_size=5)
    method = METHODS["image"]["salun"]()
    data = problem.training_data(method, model, loop, 3)
    draws = [data.draw() for _ in range(24)]
    assert sorted(encoded) == sorted(set(encoded)) and "" in encoded  # never one twice, in any of 24 draws
    for view, count in (("forget", 24), ("retain", 120)):
        per_epoch = -(-count // 5)
        rows = [r for d in draws[:per_epoch] for r in d[view].rows.tolist()]
        assert set(rows) == set(range(count)) and len(rows) == 5 * per_epoch
    for d in draws:
        for view, b in d.items():
            prompts, anchors = problem.prompts_of(view)
            assert b.prompts == [prompts[r] for r in b.rows] and len(b) == b.count == 5
            assert torch.equal(b.latents, problem.latents(view)[b.rows])
            torch.testing.assert_close(b.text.hidden, real(model, b.prompts).hidden.detach(), rtol=1e-4, atol=1e-5)
            if anchors:
                own = real(model, [anchors[r] for r in b.rows]).hidden.detach()
                torch.testing.assert_close(b.anchor.hidden, own, rtol=1e-4, atol=1e-5)
            else:
                assert b.anchor is None
            assert not b.text.hidden.requires_grad
    t = torch.cat([d["retain"].t for d in draws])
    assert t.min() >= 0 and t.max() < 1000 and t.float().mean().item() == pytest.approx(500, abs=110)
    noise = torch.cat([d["retain"].noise for d in draws])
    assert noise.mean().item() == pytest.approx(0, abs=0.02) and noise.std().item() == pytest.approx(1, abs=0.02)
    assert not torch.equal(draws[0]["retain"].noise, draws[1]["retain"].noise)
    again, other = (problem.training_data(method, model, loop, s).draw() for s in (3, 4))
    assert torch.equal(again["forget"].noise, draws[0]["forget"].noise)
    assert torch.equal(again["forget"].rows, draws[0]["forget"].rows)
    assert not torch.equal(other["forget"].noise, draws[0]["forget"].noise)


def test_losses_for_masks_and_fisher_leave_the_draws_as_they_are(small_image_problem: Any) -> None:
    problem, model = small_image_problem, small_image_problem.model
    loop, method = SimpleNamespace(batch_size=4), METHODS["image"]["retain_finetune"]()
    one, two = (problem.training_data(method, model, loop, 0) for _ in range(2))
    with torch.no_grad():
        first = [float(x) for x in one.losses(model, "forget", 2)]  # pictures that a step does not draw
        again = [float(x) for x in one.losses(model, "forget", 2)]
    assert first == again and len(first) == 2
    assert set(one.draw()) == {"retain"} == set(two.draw())
    a, b = one.draw()["retain"], two.draw()["retain"]
    assert torch.equal(a.noise, b.noise) and torch.equal(a.rows, b.rows)


def test_an_oracle_is_trained_on_what_is_left(world: ImageWorld) -> None:
    splits = world.split("striped")
    recipes = image_recipes(world, splits, "striped", 0, 2)
    assert [p.ids for _, p in recipes] == [world.trained.ids, splits["retain"].ids, splits["retain"].ids]
    digests = [r.digest for r, _ in recipes]
    assert len(set(digests)) == 3 and recipes[1][0].seed != recipes[2][0].seed
    assert len({r.codec for r, _ in recipes}) == len({r.prompts for r, _ in recipes}) == 1  # shared with the original


def test_no_json_of_a_checkpoint_names_a_folder_of_the_machine_it_was_built_on(small_image_problem: Any) -> None:
    def values(found: Any) -> list[str]:
        if isinstance(found, (dict, list)):
            return [v for part in (found.values() if isinstance(found, dict) else found) for v in values(part)]
        return [found] if isinstance(found, str) else []

    built = Path(small_image_problem.original.name)
    files = [*shipped_dir().rglob("*.json"), *built.rglob("*.json")]
    assert {f.parent.name for f in files if f.is_relative_to(built)} >= {"vae", "unet", "text_encoder", built.name}
    absolute = re.compile(r"(/[\w.-]+){2,}|[A-Za-z]:[\\/]")
    assert absolute.match("/a/model") and absolute.match("A:\\model")
    for file in files:
        assert not [v for v in values(json.loads(file.read_text())) if absolute.match(v)], file
