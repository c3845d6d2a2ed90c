"""One palette and one style: original / unlearned / oracle always in the same colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns

_CYCLE = sns.color_palette("colorblind")
COLORS: dict[str, Any] = {"original": _CYCLE[0], "unlearned": _CYCLE[1], "oracle": _CYCLE[2], "floor": "0.85"}
METHOD_COLORS = [_CYCLE[i] for i in (4, 9, 3, 5, 6, 8, 7)]  # colour-blind safe, and none of those above
GAP_CLIP = 3.0  # gaps beyond this are drawn at the edge and labelled


def style() -> None:
    """The look of every figure; called by the config cell of a notebook."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", font_scale=0.9)
    plt.rcParams.update({"figure.dpi": 80, "savefig.dpi": 110, "figure.autolayout": True})
    plt.rcParams.update({"axes.titlesize": 11, "axes.titleweight": "bold"})


def method_colors(names: Sequence[str]) -> dict[str, Any]:
    """A colour a method, the same in every figure of a notebook."""
    palette = METHOD_COLORS if len(names) <= len(METHOD_COLORS) else sns.color_palette("husl", len(names))
    return dict(zip(names, palette, strict=False))


def wrap(text: str, width: int = 24) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(str(text), width))
