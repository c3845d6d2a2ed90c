"""The forget request as data, by the name of a world or the path of data: `load_problem`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from unlearnkit.errors import UnlearnkitError, whole_number
from unlearnkit.registry import Registry
from unlearnkit.text_loaders import from_world, load_authors, load_jsonl, load_tofu
from unlearnkit.text_problem import TextProblem as TextProblem
from unlearnkit.worlds import TextWorld


def _of_images(loader: str) -> Callable[..., Any]:
    """A loader of `image_loaders`, which is imported when a problem has pictures."""
    return lambda *which, **given: getattr(import_module("unlearnkit.image_loaders"), loader)(*which, **given)


WORLDS: Registry[Callable[..., Any]] = Registry("world")
WORLDS.update({
    "authors": load_authors, "tofu": load_tofu, "canvas": _of_images("load_canvas"),
    "digits": _of_images("load_digits"), "stable-diffusion": _of_images("load_prompts"),
})  # fmt: skip


def _named_once(model: Any, oracles: Any) -> None:
    """One retrained model under two names would make a noise floor of nothing."""
    if not isinstance(model, str | Path | None):
        raise UnlearnkitError(f"model = {model!r} is not possible; give a hub id or a folder.")
    seen = set()
    for oracle in oracles if isinstance(oracles, list | tuple) else ():
        if not isinstance(oracle, str | Path):
            raise UnlearnkitError(f"the oracle {oracle!r} is not possible; give a hub id or a folder.")
        place = Path(oracle).resolve()
        if place in seen:
            raise UnlearnkitError(f"the oracle {oracle} is given twice; name each retrained model once.")
        seen.add(place)


def load_problem(
    world: str | Path | TextWorld = "authors",
    forget: str | Sequence[str] | None = None,
    seed: int = 0,
    *,
    model: str | Path | None = None,
    oracles: int | Sequence[str | Path] | None = None,
    revision: str | None = None,
    device: str | None = None,
    **options: Any,
) -> Any:
    """A problem by the name of its world or the path of data of your own: a `TextProblem` or an `ImageProblem`.

    Text: "authors", "tofu", a JSONL file. Images: "canvas", "digits", "stable-diffusion" (any pipeline, by prompts
    alone), a folder with a metadata.jsonl.

    Args:
        forget: the request. Text: a split such as "forget05", an entity's name, a list of them, or "kind:award".
            Images: a concept ("striped"), a pair ("striped circle"), ids of images, or a concept as prompts name it.
        seed: of the world (built-in ones) and of every model trained for it.
        model: hub id or folder of the original; by default a tiny one is trained on the world, once.
        oracles: how many retrained models of different seeds to train (tiny worlds, default 2), or the
            hub ids / folders of the ones you have.
        revision: hub revision of `model`.
        options: of the world: `n_authors`, `facts` (authors); `instructions=True` (authors): the models are also
            taught, with other authors, to refuse what an instruction in the prompt names (about seven CPU minutes a
            model, once for each request); `data` (tofu: a folder or dataset id);
            `least` questions below which a request is refused before anything is trained (worlds of text, JSONL);
            `steps` and other `TextRecipe` fields for the tiny model trained on it; images: `anchor`, `judge`,
            `images` (canvas), `prompts` and `preserve` (stable-diffusion), fields of `ImageRecipe`.

    Raises:
        UnlearnkitError: unknown world, split or option, broken or empty data, models that can't be loaded.
    """
    if not isinstance(world, (str, Path, TextWorld)) or world == "":
        raise UnlearnkitError(
            f"world = {world!r} is not possible; give a name ({', '.join(sorted(WORLDS))}) or a path."
        )
    whole_number("seed", seed)
    if isinstance(oracles, (str, Path)):
        oracles = [oracles]
    _named_once(model, oracles)
    own = {"model": model, "oracles": oracles, "revision": revision, "device": device, **options}
    if isinstance(world, TextWorld):
        return from_world(world, forget, seed, **own)
    if Path(world).is_dir() and str(world) not in WORLDS:
        return _of_images("load_imagefolder")(Path(world), forget, seed, **own)
    if isinstance(world, Path) or str(world).endswith((".jsonl", ".json")) or "/" in str(world):
        return load_jsonl(Path(world), forget, seed, **own)
    return WORLDS[str(world)](forget, seed, **own)
