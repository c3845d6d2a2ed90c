"""The checkpoint store: a folder per recipe digest; shipped ones in data/models, others in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock
from safetensors import SafetensorError

from unlearnkit.errors import UnlearnkitError
from unlearnkit.paths import data_dir


class Recipe(Protocol):
    @property
    def digest(self) -> str: ...
    def model_dump(self) -> dict[str, Any]: ...


def cache_dir() -> Path:
    """Where models built on this machine are kept: ``$UNLEARNKIT_HOME`` or ``~/.cache/unlearnkit``."""
    return Path(os.environ.get("UNLEARNKIT_HOME") or Path.home() / ".cache" / "unlearnkit") / "models"


def shipped_dir() -> Path:
    return data_dir() / "models"


def find(digest: str) -> Path | None:
    """The checkpoint of a recipe, shipped or cached; None when it has not been built."""
    for root in (shipped_dir(), cache_dir()):
        if (root / digest / "recipe.json").is_file():
            return root / digest
    return None


def fetch(recipe: Recipe, build: Callable[[Path], None], root: Path | None = None, force: bool = False) -> Path:
    """The folder of a recipe's checkpoint; built by `build(folder)` when it isn't there, once, whole or not at all.

    Two processes that want the same one: the first builds, the other waits.
    """
    found = find(recipe.digest)
    if found and not force:
        return found
    root = root or cache_dir()
    final = root / recipe.digest
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{recipe.digest}.lock"):
            if (final / "recipe.json").is_file() and not force:
                return final
            for left in root.glob(f".{recipe.digest}-*"):  # of a build that was killed; nobody else holds the lock
                shutil.rmtree(left, ignore_errors=True)
            work = Path(tempfile.mkdtemp(prefix=f".{recipe.digest}-", dir=root))
            try:
                build(work)
                manifest = {"recipe": recipe.model_dump(), "digest": recipe.digest, "files": _hashes(work)}
                (work / "recipe.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
                work.chmod(0o755)
                if final.exists():
                    final.rename(root / f".{recipe.digest}-old")
                work.rename(final)
                shutil.rmtree(root / f".{recipe.digest}-old", ignore_errors=True)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnlearnkitError(
            f"the checkpoint {recipe.digest} could not be written to {root}: {reason}; "
            "free some space or point UNLEARNKIT_HOME to another folder."
        ) from error
    return final


def _hashes(folder: Path) -> dict[str, str]:
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(folder.rglob("*"))
        if f.is_file() and f.name != "recipe.json"
    }


def manifests() -> list[tuple[Path, dict[str, Any]]]:
    """Every checkpoint of the store with its manifest, shipped ones first."""
    return [
        (path.parent, json.loads(path.read_text()))
        for root in (shipped_dir(), cache_dir())
        for path in sorted(root.glob("[0-9a-f]*/recipe.json"))
    ]


def listing() -> list[dict[str, Any]]:
    """One row a checkpoint: digest, kind, note, seed, megabytes, where it lies."""
    return [
        {
            "digest": manifest["digest"],
            "kind": manifest["recipe"].get("kind", ""),
            "note": manifest["recipe"].get("note", ""),
            "seed": manifest["recipe"].get("seed"),
            "MB": round(sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6, 1),
            "where": "shipped" if folder.parent == shipped_dir() else "cache",
        }
        for folder, manifest in manifests()
    ]


def verify() -> list[str]:
    """Problems of the store, empty when there are none: files changed, recipe and address apart, one missing."""
    from unlearnkit.models.image_recipe import CodecRecipe, ImageRecipe, JudgeRecipe
    from unlearnkit.models.recipe import InstructedRecipe, TextRecipe

    kinds: dict[str, Any] = {"text": TextRecipe, "instructed": InstructedRecipe, "codec": CodecRecipe}
    kinds |= {"judge": JudgeRecipe, "image": ImageRecipe}
    problems = []
    for folder, manifest in manifests():
        if _hashes(folder) != manifest["files"]:
            problems.append(
                f"{folder.name}: files are not those that were built; run `unlearnkit models build --force`."
            )
        recipe = kinds.get(manifest["recipe"].get("kind"))
        digest = recipe(**manifest["recipe"]).digest if recipe else ""
        if not digest == manifest["digest"] == folder.name:
            problems.append(
                f"{folder.name}: its recipe's digest is {digest or 'unknown'}; run `unlearnkit models build`."
            )
    for wanted, _ in shipped_recipes():
        if not (shipped_dir() / wanted.digest / "recipe.json").is_file():
            problems.append(f"{wanted.digest} ({wanted.note}) is not shipped; run `unlearnkit models build`.")
    return problems


def shipped_recipes() -> list[tuple[Any, Callable[[Path, bool], Any]]]:
    """(recipe, build(root, force)) of every checkpoint that ships in data/models, in the order they are built."""
    from unlearnkit.models import builtin, builtin_image

    return [*builtin.builtin_recipes(), *builtin_image.builtin_recipes()]


def build(force: bool = False) -> None:
    """Train every shipped checkpoint that is missing (all of them with `force`) and drop those no recipe asks for."""
    wanted = shipped_recipes()
    for recipe, make in wanted:
        if force or not (shipped_dir() / recipe.digest / "recipe.json").is_file():
            make(shipped_dir(), force)
    keep = {recipe.digest for recipe, _ in wanted}
    for folder in shipped_dir().glob("[0-9a-f]*"):
        if folder.name not in keep:
            shutil.rmtree(folder)
