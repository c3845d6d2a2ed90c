"""Pipelines of the shapes of Stable Diffusion 1, 2 and XL: pictures equal to plain diffusers', every method on them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pipelines
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from diffusers.pipelines.deprecated.stable_diffusion_safe import SafetyConfig, StableDiffusionPipelineSafe
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_pipelines import KINDS, WITHOUT_CROSS_ATTENTION
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

import unlearnkit as uk
from unlearnkit.methods import METHODS
from unlearnkit.methods.image import Negative, SafeLatent
from unlearnkit.methods.image.sld import STRENGTHS
from unlearnkit.models.builtin_image import CODEC_STEPS
from unlearnkit.models.clip_judge import ClipJudge
from unlearnkit.models.delta import load_delta, save_delta
from unlearnkit.models.diffusion import Diffusion, noise_of, sample
from unlearnkit.models.load import load_pipeline
from unlearnkit.worlds.pictures import Concepts, Pictures

CONCEPT, ANCHOR = "striped zebra", "horse"
PRESERVE = ["a photo of a dog", "the grass"]
GRADIENT = [name for name, cls in METHODS["image"].items() if not hasattr(cls, "apply")]
QUICK: dict[str, Any] = {"steps": 1, "batch_size": 2, "lr": 1e-3, "progress": False}
FEW: dict[str, dict[str, Any]] = {
    "esd": {"seeds": 1, "bank_steps": 2},
    "spm": {"seeds": 1, "bank_steps": 2},
    "advunlearn": {"seeds": 1, "bank_steps": 2, "attack_steps": 1},
    "selective_amnesia": {"fisher_batches": 1},
    "ssd": {"batches": 1, "batch_size": 2, "select": 0.5},
    "salun": {"mask": ""},
    "sld": {"strength": "max"},
}


def unlearn(problem: Any, name: str, **more: Any) -> Any:
    return uk.unlearn(problem, name, **{**(QUICK if name in GRADIENT else {}), **FEW.get(name, {}), **more})


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("pipelines")
    made = {kind: tiny_pipelines.save(kind, home / kind) for kind in KINDS}
    return made | {"plain": tiny_pipelines.save("sd1", home / "plain", **WITHOUT_CROSS_ATTENTION)}


@pytest.fixture(scope="module")
def problems(folders: dict[str, Path]) -> dict[str, Any]:
    return {
        kind: uk.load_problem(
            "stable-diffusion", CONCEPT, model=folder, anchor=ANCHOR, preserve=PRESERVE, device="cpu",
            prompts=["a photo of a striped zebra"],
        )
        for kind, folder in folders.items()
    }  # fmt: skip


# --- the same pictures as plain diffusers ----------------------------------------------------------------------------


def by_diffusers(pipe: Any, prompts: list[str], model: Diffusion, seeds: list[int], **more: Any) -> np.ndarray:
    """uint8 pictures of a diffusers pipeline called as its documentation says, with DDIM."""
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.set_progress_bar_config(disable=True)
    side = model.image_size
    found = pipe(prompts, latents=noise_of(model, seeds), height=side, width=side, output_type="np", **more)
    return (np.asarray(found.images) * 255).round().astype(np.uint8)


def close(mine: np.ndarray, theirs: np.ndarray) -> None:
    """Equal but for a rounding to the next of 256 levels."""
    assert mine.shape == theirs.shape and mine.std() > 2
    apart = np.abs(mine.astype(int) - theirs.astype(int))
    assert apart.max() <= 1 and (apart > 0).mean() < 0.02


@pytest.mark.parametrize("guidance", [1.0, 3.0, 7.5])
@pytest.mark.parametrize("kind", ["canvas", *KINDS])
def test_samples_are_those_of_plain_diffusers(
    kind: str, guidance: float, folders: dict[str, Path], small_image_problem: Any
) -> None:
    """Guidance w means ε∅ + w(ε_c − ε∅); XL's null prompt is zeros, and its time ids say the picture's size."""
    folder = small_image_problem.original.name if kind == "canvas" else folders[kind]
    prompts, seeds = ["a striped circle", "a photo of a horse", ""], [5, 6, 7]
    if kind == "xl":  # an empty prompt is encoded there when it is asked for, and is the null prompt here
        prompts, seeds = prompts[:2], seeds[:2]
    model = load_pipeline(folder, device="cpu")
    mine = sample(model, prompts, seeds, steps=6, guidance=guidance)
    pipe = DiffusionPipeline.from_pretrained(folder).to(torch.float32)  # the store keeps half precision
    close(mine, by_diffusers(pipe, prompts, model, seeds, num_inference_steps=6, guidance_scale=guidance))
    close(mine[1:2], sample(model, prompts[1:2], seeds[1:2], steps=6, guidance=guidance))  # whatever the batch
    parts = sample(model, prompts, seeds, steps=6, guidance=guidance, batch_size=1)
    close(mine, parts)


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_a_negative_prompt_is_that_of_diffusers(kind: str, folders: dict[str, Path]) -> None:
    model = load_pipeline(folders[kind], device="cpu")
    plain = sample(model, ["a photo of a horse"], [3], steps=6, guidance=4.0)
    model.rule = Negative(("striped zebra",))
    mine = sample(model, ["a photo of a horse"], [3], steps=6, guidance=4.0)
    pipe = DiffusionPipeline.from_pretrained(folders[kind])
    more = {"num_inference_steps": 6, "guidance_scale": 4.0, "negative_prompt": ["striped zebra"]}
    close(mine, by_diffusers(pipe, ["a photo of a horse"], model, [3], **more))
    assert not np.array_equal(mine, plain)


@pytest.mark.parametrize("strength", ["weak", "medium", "strong", "max"])
def test_safe_latent_diffusion_is_that_of_its_authors_pipeline(strength: str, folders: dict[str, Path]) -> None:
    model = load_pipeline(folders["sd1"], device="cpu")
    parts = {k: v for k, v in model.pipe.components.items() if k not in ("image_encoder",)}
    pipe = StableDiffusionPipelineSafe(**parts, requires_safety_checker=False)
    pipe.safety_concept = "striped zebra"
    theirs = {"weak": SafetyConfig.WEAK, "medium": SafetyConfig.MEDIUM, "strong": SafetyConfig.STRONG}
    given = dict(theirs.get(strength, SafetyConfig.MAX))
    warmup, scale, threshold, momentum, beta = STRENGTHS[strength]
    wanted = {
        "sld_warmup_steps": warmup, "sld_guidance_scale": scale, "sld_threshold": threshold,
        "sld_momentum_scale": momentum, "sld_mom_beta": beta,
    }  # fmt: skip
    assert {k: v for k, v in wanted.items() if v != given[k]} == (
        {"sld_guidance_scale": 200.0} if strength == "weak" else {}
    )
    prompts, seeds, more = ["a photo of a striped zebra"], [2], {"num_inference_steps": 18, "guidance_scale": 6.0}
    plain = sample(model, prompts, seeds, steps=18, guidance=6.0)
    model.rule = SafeLatent(("striped zebra",), *STRENGTHS[strength])
    mine = sample(model, prompts, seeds, steps=18, guidance=6.0)
    close(mine, by_diffusers(pipe, prompts, model, seeds, **more, **wanted))
    assert not np.array_equal(mine, plain)


def test_the_saved_pipeline_gives_the_same_pictures_in_a_process_without_unlearnkit(
    small_image_problem: Any, tmp_path: Path
) -> None:
    unlearned = uk.unlearn(small_image_problem, "uce")
    folder = unlearned.save(tmp_path / "unlearned")
    program = """
import sys
sys.modules["unlearnkit"] = None  # any import of it fails
import numpy as np, torch
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1])
assert type(pipe).__name__ == "StableDiffusionPipeline", type(pipe)
pipe.set_progress_bar_config(disable=True)
images = [
    pipe("a striped circle", generator=torch.Generator().manual_seed(seed), num_inference_steps=8, guidance_scale=3.0,
         output_type="np").images[0]
    for seed in (7, 8)
]
np.save(sys.argv[2], (np.stack(images) * 255).round().astype(np.uint8))
"""
    out = tmp_path / "pictures.npy"
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder), str(out)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    mine = sample(unlearned.model, ["a striped circle"] * 2, [7, 8], steps=8, guidance=3.0)
    close(mine, np.load(out))
    assert np.abs(mine[0].astype(int) - mine[1]).max() > 1  # seeds matter


# --- every method through the same call ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(n for n in METHODS["image"] if n != "oracle"))
@pytest.mark.parametrize("kind", KINDS)
def test_every_method_works_on_real_shapes(kind: str, name: str, problems: dict[str, Any], tmp_path: Path) -> None:
    problem = problems[kind]
    before = weights(problem.model)
    unlearned = unlearn(problem, name)
    after = weights(unlearned.model)
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    trained = {"advunlearn": {"text_encoder", "text_encoder_2"}}.get(name, {"unet"})
    assert {n.split(".")[0] for n in changed} <= trained and list(after) == list(before)
    assert {n: before[n] for n in before if not torch.equal(before[n], problem.model.get_parameter(n))} == {}
    drawn = sample(unlearned.model, ["a photo of a striped zebra"], [0], steps=3)
    assert drawn.shape == (1, 16, 16, 3)
    if name in ("sld", "negative_prompt"):
        assert not changed
        assert not np.array_equal(drawn, sample(problem.model, ["a photo of a striped zebra"], [0], steps=3))
        return
    assert changed
    again = DiffusionPipeline.from_pretrained(unlearned.save(tmp_path / "whole"))
    for n, p in again.unet.named_parameters():
        assert torch.equal(p, after[f"unet.{n}"])
    for n, p in again.text_encoder.named_parameters():
        assert torch.equal(p, after[f"text_encoder.{n}"])
    small = unlearned.save(tmp_path / "small", original=problem.model)
    assert {f.name for f in small.iterdir()} == {"delta.safetensors", "unlearnkit.json", "trace.csv"}
    assert set(load_file(small / "delta.safetensors")) == changed
    restored = load_delta(load_pipeline(problem.original.name, device="cpu"), small / "delta.safetensors")
    assert all(torch.equal(p, after[n]) for n, p in restored.named_parameters())


def test_a_real_pipeline_needs_no_pictures_they_are_sampled_once(problems: dict[str, Any]) -> None:
    problem = problems["sd1"]
    drawn = problem.pictures("forget")
    assert drawn is problem.pictures("forget") and len(drawn) == 4 and drawn.images.shape[1:] == (16, 16, 3)
    assert set(drawn.captions) == {"a photo of a striped zebra"}
    assert set(problem.pictures("retain").captions) == set(PRESERVE)
    assert set(problem.pictures("anchor").captions) == {"a photo of a horse"}
    prompts, anchors = problem.prompts_of("anchor")
    assert set(prompts) == {"a photo of a striped zebra"} and set(anchors) == {"a photo of a horse"}
    assert problem.replaced("An image of a Striped Zebra, striped zebras") == "An image of a horse, striped zebras"


# --- deltas ----------------------------------------------------------------------------------------------------------


def test_a_delta_is_small_names_its_base_and_is_refused_by_another_architecture(
    problems: dict[str, Any], folders: dict[str, Path], tmp_path: Path
) -> None:
    problem = problems["sd1"]
    unlearned = unlearn(problem, "uce")
    path = save_delta(unlearned.model, problem.model, tmp_path / "sub" / "uce.safetensors")
    assert path.stat().st_size < 0.1 * sum(f.stat().st_size for f in folders["sd1"].rglob("*.safetensors"))
    assert [p.name for p in path.parent.iterdir()] == ["uce.safetensors"]
    other = load_pipeline(folders["sd2"], device="cpu")
    before = weights(other)
    with pytest.raises(
        uk.UnlearnkitError, match="was made for .*sd1.*whose architecture is not that of this"
    ) as caught:
        load_delta(other, path)
    assert "\n" not in str(caught.value) and all(torch.equal(p, before[n]) for n, p in other.named_parameters())
    with pytest.raises(uk.UnlearnkitError, match="different architectures"):
        save_delta(unlearned.model, other, tmp_path / "x.safetensors")
    # the same tensors in a deeper model: nothing is missing, and still it is not the one
    deeper = Diffusion(tiny_pipelines.pipeline_of("sd1", layers_per_block=2))
    with pytest.raises(uk.UnlearnkitError, match="architecture"):
        load_delta(deeper, path)
    nothing = save_delta(problem.model, problem.model, tmp_path / "nothing.safetensors", base="org/name")
    assert load_file(nothing) == {}
    load_delta(load_pipeline(folders["sd1"], device="cpu"), nothing)
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(uk.UnlearnkitError, match="is no delta of a pipeline"):
        load_delta(other, tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(path.read_bytes()[:200])
    for name in ("broken.safetensors", "absent.safetensors"):
        with pytest.raises(uk.UnlearnkitError, match=f"{name} can't be read"):
            load_delta(other, tmp_path / name)
    with pytest.raises(uk.UnlearnkitError, match="could not be written"):
        save_delta(unlearned.model, problem.model, path / "below_a_file.safetensors")


def test_a_language_model_has_no_delta(small_problem: Any, tmp_path: Path) -> None:
    unlearned = uk.unlearn(small_problem, "grad_diff", steps=1, progress=False)
    with pytest.raises(uk.UnlearnkitError, match="a delta is of a pipeline"):
        unlearned.save(tmp_path / "x", original=small_problem.model)


# --- without cross-attention -----------------------------------------------------------------------------------------


def test_a_pipeline_without_cross_attention_names_the_methods_that_would_do(problems: dict[str, Any]) -> None:
    problem = problems["plain"]
    works = {
        "retain_finetune",
        "grad_ascent",
        "salun",
        "erasediff",
        "selective_amnesia",
        "ssd",
        "sld",
        "negative_prompt",
    }
    for name in sorted(set(METHODS["image"]) - {"oracle"}):
        if name in works:
            unlearn(problem, name)
            continue
        with pytest.raises(uk.UnlearnkitError, match="edits cross-attention, and this denoiser has none; methods that"):
            unlearn(problem, name)
    unlearn(problem, "esd", variant="full")
    with pytest.raises(
        uk.UnlearnkitError, match="this denoiser has no cross-attention, so there are no attention maps"
    ):
        unlearn(problem, "forget_me_not", trained="full")


def test_a_lora_adapter_needs_attention(tmp_path: Path) -> None:
    none = {**WITHOUT_CROSS_ATTENTION, "down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    folder = tiny_pipelines.save("sd1", tmp_path / "p", **{**none, "mid_block_type": None})
    problem = uk.load_problem("stable-diffusion", CONCEPT, model=folder, anchor=ANCHOR, preserve=PRESERVE, device="cpu")
    with pytest.raises(uk.UnlearnkitError, match="a LoRA adapter needs attention projections"):
        unlearn(problem, "grad_ascent", lora=2)


# --- bad input -------------------------------------------------------------------------------------------------------


def refuses(match: str, call: Callable[[], Any]) -> None:
    with pytest.raises(uk.UnlearnkitError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_prompts_that_don_t_fit_the_request(folders: dict[str, Path]) -> None:
    def load(**more: Any) -> Any:
        return uk.load_problem(
            "stable-diffusion", **{"forget": CONCEPT, "model": folders["sd1"], "device": "cpu", **more}
        )

    refuses("the prompt 'a zebra' does not contain the concept 'striped zebra'", lambda: load(prompts=["a zebra"]))
    refuses("to be preserved but contains the concept", lambda: load(preserve=["a dog", "one striped Zebra"]))
    refuses("the anchor 'a striped zebra' contains the concept", lambda: load(anchor="a striped zebra"))
    refuses("preserve is 'a dog'; give a list of prompts", lambda: load(preserve="a dog"))
    refuses("prompts is .*; give a list of prompts", lambda: load(prompts=["striped zebra", 3]))
    refuses("name the concept to forget", lambda: load(forget=None))
    refuses("name the concept to forget", lambda: load(forget=["striped zebra"]))
    refuses("oracles of a real pipeline are given by name", lambda: load(oracles=2))
    refuses("option 'steps' is not one of this image problem's", lambda: load(steps=3))


def test_what_a_method_needs_and_the_problem_lacks(folders: dict[str, Path]) -> None:
    bare = uk.load_problem("stable-diffusion", CONCEPT, model=folders["sd1"], device="cpu", prompts=[CONCEPT])
    for name in ("esd", "retain_finetune", "salun", "erasediff", "forget_me_not", "ssd"):
        refuses("needs something to retain; give load_problem", lambda name=name: unlearn(bare, name))
    refuses(r"RetainFinetune needs .*preserve=\['a prompt', …\]\)\.$", lambda: unlearn(bare, "retain_finetune"))
    refuses("or set alpha=0", lambda: unlearn(bare, "esd"))
    unlearn(bare, "esd", alpha=0.0)
    unlearn(bare, "sld")
    for name in ("uce", "concept_ablation", "selective_amnesia"):
        refuses("anchor=|needs something to retain", lambda name=name: unlearn(bare, name))
    refuses("give load_problem.*anchor='what takes its place'", lambda: unlearn(bare, "salun", alpha=0.0))
    anchored = uk.load_problem("stable-diffusion", CONCEPT, model=folders["sd1"], device="cpu", anchor=ANCHOR)
    refuses("uce needs prompts to preserve; .*or set preserve_scale=0", lambda: unlearn(anchored, "uce"))
    unlearn(anchored, "uce", preserve_scale=0.0)
    refuses("oracle -1 was asked for, this problem has 0", lambda: uk.unlearn(bare, "oracle"))


def test_folders_that_are_no_pipelines(folders: dict[str, Path], tmp_path: Path) -> None:
    def load(folder: Any, **more: Any) -> Any:
        return uk.load_problem("stable-diffusion", CONCEPT, model=folder, device="cpu", **more)

    def damaged(name: str) -> Path:
        return Path(shutil.copytree(folders["sd1"], tmp_path / name))

    pickled = damaged("pickled")
    weight = next((pickled / "unet").glob("*.safetensors"))
    torch.save(load_file(weight), pickled / "unet" / "diffusion_pytorch_model.bin")
    weight.unlink()
    refuses("unet has pickle weights only, which can run code", lambda: load(pickled))
    refuses("unet has pickle weights only", lambda: load(folders["sd1"], oracles=[pickled]))
    empty = damaged("empty")
    next((empty / "text_encoder").glob("*.safetensors")).unlink()
    refuses("text_encoder has no weights", lambda: load(empty))
    refuses("does not exist; give a folder or a hub id", lambda: load(tmp_path / "nowhere"))
    (tmp_path / "plain").mkdir()
    refuses("has no model_index.json", lambda: load(tmp_path / "plain"))
    index = json.loads((folders["sd1"] / "model_index.json").read_text())
    for name, text, match in (
        ("broken", "{", "model_index.json of .* is broken"),
        ("nameless", "{}", "model_index.json of .* is broken"),
        ("foreign", json.dumps({**index, "_class_name": ["my_pipeline", "Mine"]}), "brings code of its own"),
    ):
        folder = damaged(name)
        (folder / "model_index.json").write_text(text)
        refuses(match, lambda folder=folder: load(folder))
    cut = damaged("cut")
    weight = next((cut / "unet").glob("*.safetensors"))
    weight.write_bytes(weight.read_bytes()[:1000])
    refuses("the pipeline in .* can't be loaded", lambda: load(cut).model)
    config = damaged("sampled") / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "prediction_type": "sample"}))
    refuses("predicts 'sample'", lambda: load(tmp_path / "sampled").model)
    inpainting = tiny_pipelines.save("sd1", tmp_path / "inpainting", in_channels=9)
    refuses("denoiser takes 9 channels, as for inpainting", lambda: load(inpainting).model)


def test_a_hub_id_without_a_network_is_one_clear_sentence(tmp_path: Path) -> None:
    program = "import unlearnkit as uk; uk.load_problem('stable-diffusion', 'zebra', model='org/no-such-pipeline')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, env=environment, cwd=tmp_path
    )
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode != 0 and last.startswith(
        "unlearnkit.errors.UnlearnkitError: pipeline 'org/no-such-pipeline'"
    )
    assert "HF_HUB_OFFLINE is set" in last and "hf download org/no-such-pipeline --local-dir FOLDER" in last


# --- a folder of images ----------------------------------------------------------------------------------------------


def write_images(folder: Path, count: int = 24, side: int = 16) -> Path:
    """Squares and bars, dark and light, with captions in words of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    lines = []
    for k in range(count):
        shape, tone = ("Full Square", "bar")[k % 2], ("dark", "light")[k // 2 % 2]
        page = np.full((side, side, 3), 255, np.uint8)
        ink = draw.integers(0, 60, 3) + (0 if tone == "dark" else 120)
        page[4:12, 4 : 12 if k % 2 == 0 else 7] = ink
        Image.fromarray(page).save(folder / f"p{k:02d}.png")
        lines.append(
            {"file_name": f"p{k:02d}.png", "text": f"my own {tone} {shape.lower()}", "shape": shape, "tone": tone}
        )
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    return folder


def test_a_folder_of_images_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNLEARNKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(CODEC_STEPS, "imagefolder", 3)
    folder = write_images(tmp_path / "images")
    tiny = {"steps": 3, "batch_size": 4, "channels": (8, 16), "text_width": 16, "device": "cpu"}
    problem = uk.load_problem(folder, "full square", oracles=1, **tiny)
    assert problem.concept == {"shape": "Full Square"} and problem.word == "Full Square"
    assert problem.anchor == "bar" and problem.judge is None
    sizes = {name: len(split) for name, split in problem.splits.items()}
    assert sizes == {"forget": 12, "retain": 10, "holdout": 2}  # the tenth and the twentieth show a bar
    assert set(problem.splits["forget"].labels["shape"]) == {"Full Square"}
    assert "Full Square" not in problem.splits["retain"].labels["shape"]
    tokenizer = problem.model.pipe.tokenizer
    assert len(tokenizer("my own dark full square")["input_ids"]) == 7  # the captions' words are tokens
    unlearned = unlearn(problem, "concept_ablation")
    assert unlearned.cost["images"] == 4
    scores = uk.evaluate(problem, unlearned, limit=4)
    assert scores["why"].str.contains("there is no judge").any()
    single = uk.load_problem(folder, ["p00.png", "p05.png"], oracles=0, **tiny)
    assert single.splits["forget"].ids == ("p00.png", "p05.png") and not single.word
    refuses("'p09.png' of images is held out", lambda: uk.load_problem(folder, "p09.png", oracles=0, **tiny))
    refuses("concept 'triangle' is unknown; known: Full Square", lambda: uk.load_problem(folder, "triangle", **tiny))
    refuses("say what of .* is to be forgotten", lambda: uk.load_problem(folder, **tiny))


def test_images_of_another_size_than_the_pipelines(folders: dict[str, Path], tmp_path: Path) -> None:
    small, large = (write_images(tmp_path / str(side), side=side) for side in (16, 32))
    own = {"model": folders["sd1"], "oracles": [], "device": "cpu"}
    unlearn(uk.load_problem(small, "dark", **own), "grad_ascent")
    wrong = uk.load_problem(large, "dark", **own)
    refuses("the pictures of 32 are 32×32 pixels, the pipeline .* draws 16×16", lambda: unlearn(wrong, "grad_ascent"))


def edited(folder: Path, number: int, change: Callable[[dict[str, Any]], Any]) -> Path:
    """One line of the metadata changed: to another object, or to text as it is."""
    table = folder / "metadata.jsonl"
    lines = table.read_text(encoding="utf-8").splitlines()
    new = change(json.loads(lines[number - 1]))
    lines[number - 1] = new if isinstance(new, str) else json.dumps(new)
    table.write_text("\n".join(lines), encoding="utf-8")
    return folder


def picture(folder: Path, name: str, mode: str, size: tuple[int, int]) -> None:
    Image.new(mode, size).save(folder / name)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: edited(f, 3, lambda r: '{"file_name": '), "line 3: not JSON"),
        (lambda f: edited(f, 3, lambda r: "[1, 2]"), "line 3: a JSON object is needed"),
        (lambda f: edited(f, 4, lambda r: {k: v for k, v in r.items() if k != "file_name"}), "line 4: 'file_name' and"),
        (lambda f: edited(f, 4, lambda r: {k: v for k, v in r.items() if k != "text"}), "line 4: 'file_name' and a"),
        (lambda f: edited(f, 5, lambda r: {k: v for k, v in r.items() if k != "tone"}), "line 5: label 'tone'"),
        (lambda f: edited(f, 6, lambda r: {**r, "tone": 3}), "line 6: label 'tone'"),
        (lambda f: edited(f, 6, lambda r: {**r, "mood": "sad"}), "line 6: 'mood' is a label here, and line 1 has no"),
        (lambda f: edited(f, 1, lambda r: {**r, "tone": 3}), "line 2: 'tone' is a label here, and line 1 has no"),
        (lambda f: edited(f, 7, lambda r: {**r, "file_name": "p00.png"}), "line 7: 'p00.png' stands there twice"),
        (lambda f: edited(f, 2, lambda r: {**r, "file_name": "../secret.png"}), "line 2: .*outside the folder"),
        (lambda f: edited(f, 2, lambda r: {**r, "file_name": "/etc/hostname"}), "line 2: .*outside the folder"),
        (lambda f: edited(f, 2, lambda r: {**r, "file_name": "absent.png"}), "line 2: absent.png can't be read"),
        (lambda f: edited(f, 1, lambda r: {**r, "a.b": "x"}), "label column 'a.b' can't be used"),
        (lambda f: picture(f, "p05.png", "RGB", (8, 8)), "line 6: p05.png is 8×8 pixels, the images before it 16×16"),
        (lambda f: picture(f, "p00.png", "RGB", (16, 24)), "line 1: p00.png is 16×24 pixels; square"),
        (lambda f: picture(f, "p00.png", "RGB", (12, 12)), "line 1: p00.png is 12×12 pixels; .*multiple of 8"),
        (lambda f: picture(f, "p05.png", "RGBA", (16, 16)), "line 6: p05.png has mode RGBA; save it as RGB"),
        (lambda f: (f / "p05.png").write_bytes(b"no image"), "line 6: p05.png can't be read as an image"),
        (lambda f: (f / "metadata.jsonl").write_bytes(b'{"file_name": "p\xff.png"}'), "line 1: not UTF-8"),
        (lambda f: (f / "metadata.jsonl").write_text("\n\n"), "holds no lines"),
        (lambda f: (f / "metadata.jsonl").unlink(), "has no metadata.jsonl"),
    ],
)  # fmt: skip
def test_a_folder_of_images_with_a_fault(change: Callable[[Path], Any], match: str, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 12)
    change(folder)
    refuses(match, lambda: uk.load_problem(folder, "bar", device="cpu"))


def test_more_of_a_folder_of_images(tmp_path: Path) -> None:
    refuses("names 3 images; at least 4", lambda: uk.load_problem(write_images(tmp_path / "few", 3), "bar"))
    many = write_images(tmp_path / "many", 12)
    rows = [json.loads(line) for line in (many / "metadata.jsonl").read_text().splitlines()]
    for k, row in enumerate(rows):
        row |= {f"note{j}": f"{k} {j}" for j in range(4)}
    (many / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    refuses("more than 2000 combinations", lambda: uk.load_problem(many, "bar"))
    from unlearnkit.worlds.imagefolder import imagefolder

    folder = write_images(tmp_path / "odd", 12)
    text = (folder / "metadata.jsonl").read_text().replace("my own", "my\\u2028own", 1)
    (folder / "metadata.jsonl").write_text("\ufeff" + text.replace("\\u2028", "\u2028"), encoding="utf-8")
    world = imagefolder(folder)  # a byte order mark and a line separator within a caption are no faults
    assert len(world.trained) == 11 and len(world.holdout) == 1 and "\u2028" in world.trained.captions[0]
    assert world.concepts.domains == {"shape": ("Full Square", "bar"), "tone": ("dark", "light")}


# --- a CLIP checkpoint as a judge ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = tiny_pipelines.tokenizer_of("")
    text = tiny_pipelines.text_config(tokenizer, 16, 2, "quick_gelu").to_dict()
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(text_config=text, vision_config={**vision, "image_size": 16, "patch_size": 8}, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    CLIPProcessor(CLIPImageProcessor(**size), tokenizer).save_pretrained(folder)
    return folder


def test_a_clip_judge_reads_scores_and_is_calibrated(clip: Path, tmp_path: Path, folders: dict[str, Path]) -> None:
    concepts = Concepts({"animal": ("zebra", "horse", "dog")}, ("a photo of a {animal}",))
    judge = ClipJudge(clip, concepts)
    images = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3)).astype(np.uint8)
    found, features = judge.read(images)
    assert found["animal"].shape == (5, 3) and features.shape == (5, 8)
    np.testing.assert_allclose(np.linalg.norm(features, axis=-1), 1, rtol=1e-5)
    with torch.no_grad():  # CLIP's own way
        texts = [f"a picture of {c}" for c in concepts.domains["animal"]]
        inputs = judge.processor(text=texts, images=list(images), return_tensors="pt", padding=True)
        own = judge.model(**inputs)
    np.testing.assert_allclose(found["animal"], own.logits_per_image.softmax(-1), rtol=1e-4, atol=1e-6)
    scores = judge.score(images[:3], texts)
    scale = float(judge.model.logit_scale.exp())
    np.testing.assert_allclose(scores, 100 * own.logits_per_image.diagonal()[:3] / scale, rtol=1e-4)
    assert judge.read(images[:0])[0]["animal"].shape == (0, 3)

    assert judge.accuracy == {} and judge.weakest() == 0
    shown = found["animal"].argmax(-1)
    labels = [concepts.domains["animal"][i] for i in shown]
    labels[0] = next(c for c in concepts.domains["animal"] if c != labels[0])
    ids = tuple("abcde")
    judge.calibrate(Pictures(images, ids, {"animal": tuple(labels)}, ids))
    assert judge.accuracy == {"animal": 0.8} and judge.held_out == 5
    refuses(
        "labelled in animal; these have 'cow'",
        lambda: judge.calibrate(Pictures(images, ids, {"animal": ("cow",) * 5}, ids)),
    )
    refuses("these have 'no label'", lambda: judge.calibrate(Pictures(images, ids, {}, ids)))
    refuses("neither a folder of Judge.save nor a CLIP checkpoint", lambda: ClipJudge(tmp_path, concepts))
    refuses(
        "is no CLIP checkpoint: .* tensors are absent|nor a CLIP checkpoint",
        lambda: ClipJudge(folders["sd1"] / "text_encoder", concepts),
    )


def test_steps_on_a_pipeline_that_was_loaded_in_bfloat16(small_image_problem: Any) -> None:
    from unlearnkit.models.source import ModelSource

    half = small_image_problem.original.fresh().to(torch.bfloat16)
    source = ModelSource(lambda: None, "half", kept=half)
    problem = dataclasses.replace(small_image_problem, original=source, measured={})
    for method, own in (("salun", {}), ("grad_ascent", {"precision": "no"})):
        made = unlearn(problem, method, steps=1, progress=False, **own)
        assert np.isfinite(made.trace["forget_loss"]).all()
