"""A few answers or pictures of a measured model, small enough to lie beside its scores in the run folder."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.metrics.image import evenly

SIDE = 96  # pixels; larger pictures are kept this small
COLUMNS = ["split", "asked", "wanted", "said", "right", "picture"]


def samples(problem: Any, measured: Any, forget: int = 4, retain: int = 3) -> pd.DataFrame:
    """Rows with columns `COLUMNS`, spread evenly over what was measured; `Run.trace(rows, "samples")` keeps them.

    Of a language model `said` is its greedy answer, `wanted` the value and `right` whether the answer holds it. Of a
    pipeline `picture` is a PNG in base64, at most `SIDE` pixels a side, `wanted` what the prompt asks for and `right`
    whether the judge reads it; `said` is what it reads.

    Args:
        measured: what `measure` returned.
        forget, retain: how many of each split.
    """
    rows = []
    for split, count in (("forget", forget), ("retain", retain)):
        items = measured.split(split)
        for at in evenly(np.arange(len(items)), count):
            make = _picture if problem.modality == "image" else _answer
            rows.append({"split": split, **make(problem, split, items.index[at], items.iloc[at])})
    return pd.DataFrame(rows, columns=COLUMNS)


def _answer(problem: Any, split: str, key: str, item: pd.Series) -> dict[str, Any]:
    record = next(qa for qa in problem.direct(split) if qa.id == key)
    right = item["correct"] > 0 if pd.notna(item["correct"]) else None
    return {"asked": record.question, "wanted": record.value, "said": item["answer"], "right": right}


def _picture(problem: Any, split: str, key: str, item: pd.Series) -> dict[str, Any]:
    from PIL import Image

    drawn, data = Image.fromarray(item["picture"]), io.BytesIO()
    drawn.thumbnail((SIDE, SIDE))
    drawn.save(data, "PNG")
    read = " ".join(str(item[c]) for c in item.index if str(c).startswith("read_"))
    right = item["correct"] > 0 if "correct" in item and pd.notna(item["correct"]) else None
    return {
        "asked": item["prompt"], "wanted": item["prompt"], "said": read, "right": right,
        "picture": base64.b64encode(data.getvalue()).decode(),
    }  # fmt: skip
