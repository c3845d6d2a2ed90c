"""Images of one's own: a folder with a metadata.jsonl, as Hugging Face's imagefolder has it."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from unlearnkit.errors import UnlearnkitError
from unlearnkit.worlds.pictures import Concepts, ImageWorld, Pictures

CAPTIONS = ("text", "caption", "prompt")  # the first of these columns that a line has is its caption
HELD_OUT = 10  # every tenth picture is one that no model is trained on
MOST = 2000  # combinations of labels: each becomes a prompt


def imagefolder(folder: str | Path) -> ImageWorld:
    """The pictures of a folder, with captions and labels from its ``metadata.jsonl``.

    A line has `file_name`, a caption (`text`, `caption` or `prompt`) and any number of label columns, each a domain
    whose values are concepts: every column that holds a string in the first line. All images are RGB or grey, square,
    and of one size; every tenth is held out.

    Raises:
        UnlearnkitError: no such folder or file, a broken line, a missing column, an image that can't be read or is of
            another size or mode (with line number and name), columns that are no labels.
    """
    folder = Path(folder)
    table = folder / "metadata.jsonl"
    if not table.is_file():
        raise UnlearnkitError(
            f"{folder} has no metadata.jsonl; write one JSON object a line with 'file_name', 'text' and label columns."
        )
    rows = _rows(table)
    images, captions, labels, ids, seen = [], [], [], [], set()
    domains = [k for k, v in rows[0][1].items() if isinstance(v, str) and k not in ("file_name", *CAPTIONS)]
    wrong = next((d for d in domains if not d.isidentifier()), None)
    if wrong is not None:
        raise UnlearnkitError(
            f"{table}: the label column '{wrong}' can't be used; allowed are letters, digits and underscores."
        )
    for number, row in rows:
        where = f"{table}, line {number}"
        caption = next((row[c] for c in CAPTIONS if isinstance(row.get(c), str)), None)
        if not isinstance(row.get("file_name"), str) or not caption:
            raise UnlearnkitError(f"{where}: 'file_name' and a caption in 'text' are needed, both as strings.")
        missing = [d for d in domains if not isinstance(row.get(d), str) or not row[d]]
        if missing:
            raise UnlearnkitError(f"{where}: label '{missing[0]}', which line {rows[0][0]} has, is missing.")
        late = [k for k, v in row.items() if isinstance(v, str) and k not in (*domains, "file_name", *CAPTIONS)]
        if late:
            raise UnlearnkitError(
                f"{where}: '{late[0]}' is a label here, and line {rows[0][0]} has no string there; give it to every "
                "line, as a string, or to none."
            )
        if row["file_name"] in seen:
            raise UnlearnkitError(f"{where}: '{row['file_name']}' stands there twice; name every image once.")
        seen.add(row["file_name"])
        images.append(_image(folder, row["file_name"], where))
        if images[-1].shape != images[0].shape:
            sizes = [f"{a.shape[1]}×{a.shape[0]}" for a in (images[-1], images[0])]
            raise UnlearnkitError(
                f"{where}: {row['file_name']} is {sizes[0]} pixels, the images before it {sizes[1]}; "
                "give all images one size."
            )
        captions.append(caption)
        labels.append({d: row[d] for d in domains})
        ids.append(row["file_name"])
    if len(images) < 4:
        raise UnlearnkitError(f"{table} names {len(images)} images; at least 4 are needed.")
    every = Pictures(
        np.stack(images), tuple(captions), {d: tuple(row[d] for row in labels) for d in domains}, tuple(ids)
    )
    held = np.arange(len(every)) % HELD_OUT == HELD_OUT - 1
    values = {d: tuple(sorted({row[d] for row in labels})) for d in domains}
    if prod(map(len, values.values())) > MOST:
        many = ", ".join(f"{d} {len(v)}" for d, v in values.items())
        raise UnlearnkitError(
            f"{table}: the labels have more than {MOST} combinations ({many} values); keep the columns whose values "
            "are concepts."
        )
    template = "a picture of " + " ".join(f"{{{d}}}" for d in domains) if domains else "a picture"
    anchors = {d: v[0] for d, v in values.items()}
    concepts = Concepts(values, (template,), (), {}, anchors)
    return ImageWorld(
        folder.name, concepts, every.take(np.flatnonzero(~held)), every.take(np.flatnonzero(held)), "imagefolder"
    )


def _rows(table: Path) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for number, line in enumerate(table.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UnlearnkitError(f"{table}, line {number}: not UTF-8; save the file as UTF-8.") from error
        except json.JSONDecodeError as error:
            raise UnlearnkitError(f"{table}, line {number}: not JSON ({error.msg}); mend or drop the line.") from error
        if not isinstance(row, dict):
            raise UnlearnkitError(f'{table}, line {number}: a JSON object is needed, such as {{"file_name": …}}.')
        rows.append((number, row))
    if not rows:
        raise UnlearnkitError(f"{table} holds no lines; write one JSON object a line with 'file_name' and 'text'.")
    return rows


def _image(folder: Path, name: str, where: str) -> np.ndarray:
    from PIL import Image

    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UnlearnkitError(f"{where}: '{name}' lies outside the folder; give names within it.")
    try:
        with Image.open(path) as opened:
            if opened.mode not in ("RGB", "L"):
                raise UnlearnkitError(f"{where}: {name} has mode {opened.mode}; save it as RGB (or grey, mode L).")
            image = np.asarray(opened.convert("RGB"))
    except (OSError, Image.DecompressionBombError) as error:
        reason = str(error).replace(str(path), name)
        raise UnlearnkitError(f"{where}: {name} can't be read as an image ({reason}).") from error
    if image.shape[0] != image.shape[1] or image.shape[0] % 8:
        raise UnlearnkitError(
            f"{where}: {name} is {image.shape[1]}×{image.shape[0]} pixels; square images whose side is a multiple of 8 "
            "are needed."
        )
    return image
