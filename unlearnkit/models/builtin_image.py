"""The tiny pipelines of the image worlds: codec, judge, original and oracles, and how each is made."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors.torch import load_file

from unlearnkit.errors import UnlearnkitError
from unlearnkit.models import store
from unlearnkit.models.image_recipe import (
    CodecRecipe,
    ImageRecipe,
    JudgeRecipe,
    digest_pictures,
    train_prompt_tokenizer,
)
from unlearnkit.models.image_training import train_codec, train_diffusion, train_judge
from unlearnkit.models.judge import Judge, load_judge
from unlearnkit.models.recipe import digest_of
from unlearnkit.worlds import canvas as canvas_world
from unlearnkit.worlds import digits as digits_world
from unlearnkit.worlds.pictures import Concepts, ImageWorld, Pictures, together

DEFAULT_FORGET = {"canvas": "striped", "digits": "seven"}
SHIPPED_ORACLES = 2
CODEC_STEPS = {"canvas": 1000, "digits": 500}
SIZES: dict[str, dict[str, Any]] = {"canvas": {}, "digits": {"steps": 800, "channels": (24, 48)}}


def spare(world: ImageWorld) -> tuple[Pictures, Pictures]:
    """Pictures for codec and judge, and those their accuracy is measured on.

    In built-in worlds no pipeline is trained on either; a folder of one's own has no others to spare.
    """
    if world.kind == "imagefolder":
        return world.trained, world.holdout
    if world.kind == "digits":
        rest = digits_world.parts(world.seed)[2]
        third = len(rest) // 3
        return rest.take(range(third, len(rest))), rest.take(range(third))
    return canvas_world.draw(60, 900_001, "k"), canvas_world.draw(20, 900_002, "j")


def codec_recipe(world: ImageWorld) -> CodecRecipe:
    data = digest_pictures(spare(world)[0])
    return CodecRecipe(data=data, note=f"{world.kind}: autoencoder", steps=CODEC_STEPS.get(world.kind, 800))


def judge_pictures(world: ImageWorld) -> tuple[Pictures, Pictures]:
    """What a judge is trained on, and what its accuracy is measured on.

    There are too few scans for a judge of digits to do without those that pipelines are trained on; the ones it is
    measured on are seen by nobody.
    """
    pictures, held_out = spare(world)
    return (together(world.trained, pictures) if world.kind == "digits" else pictures), held_out


def judge_recipe(world: ImageWorld) -> JudgeRecipe:
    return JudgeRecipe(data=digest_pictures(judge_pictures(world)[0]), note=f"{world.kind}: judge")


def codec_of(world: ImageWorld, root: Path | None = None, force: bool = False) -> Path:
    """Folder of a world's autoencoder, trained on first use."""
    recipe = codec_recipe(world)

    def build(folder: Path) -> None:
        train_codec(recipe, spare(world)[0], f"training {recipe.note}").half().save_pretrained(folder)

    return store.fetch(recipe, build, root, force)


def judge_of(world: ImageWorld, root: Path | None = None, force: bool = False) -> Judge:
    """A world's judge, trained on first use."""
    recipe = judge_recipe(world)

    def build(folder: Path) -> None:
        pictures, held_out = judge_pictures(world)
        train_judge(recipe, pictures, held_out, world.concepts.domains, f"training {recipe.note}").save(folder)

    return load_judge(store.fetch(recipe, build, root, force))


def tokenizer_texts(world: ImageWorld) -> list[str]:
    """What the tokenizer is trained on: every caption a world can have; those of a folder of one's own as well."""
    own = world.trained.captions if world.kind == "imagefolder" else ()
    return [*all_prompts(world.concepts), *own]


def all_prompts(concepts: Concepts) -> list[str]:
    """Every caption a world can have, held-out wordings included."""
    return [
        concepts.prompt(dict(zip(concepts.domains, labels, strict=True)), template, synonym)
        for labels in product(*concepts.domains.values())
        for template in (*concepts.templates, *concepts.held_out)
        for synonym in (None, 0)
    ]


def image_recipes(
    world: ImageWorld, splits: dict[str, Pictures], request: str, seed: int, oracles: int, **sizes: Any
) -> list[tuple[ImageRecipe, Pictures]]:
    """Original first, then `oracles` retrained ones of different seeds; each with its training pictures."""
    shared = {
        "codec": codec_recipe(world).digest,
        "prompts": digest_of(tokenizer_texts(world)),
        "size": int(world.trained.images.shape[1]),
        **SIZES.get(world.kind, {}),
        **sizes,
    }

    def recipe(pictures: Pictures, note: str, number: int) -> tuple[ImageRecipe, Pictures]:
        try:
            found = ImageRecipe(data=digest_pictures(pictures), note=note, seed=1000 * seed + number, **shared)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            raise UnlearnkitError(
                f"'{name}' of a tiny pipeline can't be {shared.get(name)!r}: {first['msg']}."
            ) from error
        return found, pictures

    return [
        recipe(world.trained, f"{world.name}: original", 0),
        *(recipe(splits["retain"], f"{world.name}: oracle of {request}", k) for k in range(1, oracles + 1)),
    ]


def image_checkpoint(
    recipe: ImageRecipe, world: ImageWorld, pictures: Pictures, root: Path | None = None, force: bool = False
) -> Path:
    """Pipeline folder (float16 safetensors) of a recipe, trained on first use; plain diffusers loads it."""
    from diffusers import AutoencoderTiny

    def build(folder: Path) -> None:
        own = codec_of(world, root)  # read in parts: from_pretrained would write the folder's path into the config
        codec = AutoencoderTiny.from_config(AutoencoderTiny.load_config(own)).eval()
        codec.load_state_dict(load_file(own / "diffusion_pytorch_model.safetensors"))
        tokenizer = train_prompt_tokenizer(tokenizer_texts(world))
        model = train_diffusion(recipe, pictures, codec, tokenizer, f"training {recipe.note}")
        deepcopy(model).half().save_pretrained(folder)

    return store.fetch(recipe, build, root, force)


def builtin_recipes() -> list[tuple[Any, Callable[[Path, bool], Any]]]:
    """(recipe, build(root, force)) of every image checkpoint that ships, codecs and judges first."""
    out: list[tuple[Any, Callable[[Path, bool], Any]]] = []
    for kind, request in DEFAULT_FORGET.items():
        world = digits_world.digits() if kind == "digits" else canvas_world.canvas()
        out.append((codec_recipe(world), partial(codec_of, world)))
        out.append((judge_recipe(world), partial(judge_of, world)))
        for recipe, pictures in image_recipes(world, world.split(request), request, 0, SHIPPED_ORACLES):
            out.append((recipe, partial(image_checkpoint, recipe, world, pictures)))
    return out
