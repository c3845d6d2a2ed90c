"""The figures that the benchmarks leave beside their tables."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from unlearnkit.bench.clock import unit
from unlearnkit.plots import COLORS, style


def text_figure(steps: pd.DataFrame, forget: pd.DataFrame) -> Any:
    """Step time against model size (both ways, LoRA) and against the size of the forget set."""
    style()
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for column, name, color in (
        ("naive s/step", "naive", COLORS["original"]),
        ("ours s/step", "unlearnkit", COLORS["unlearned"]),
        ("LoRA s/step", "unlearnkit, LoRA", COLORS["oracle"]),
    ):
        left.loglog(
            [{"1M": 1e6, "10M": 1e7, "100M": 1e8}[m] for m in steps["model"]],
            steps[column],
            "o-",
            label=name,
            color=color,
        )
    left.set(xlabel="parameters", ylabel=f"{unit()} a step", title="NPO step, 8 + 8 sequences")
    left.legend(frameon=False)
    for column, name, color in (("s/step", "one step", COLORS["unlearned"]), ("prepare s", "preparation, once", "0.5")):
        right.loglog(forget["forget records"], forget[column], "o-", label=name, color=color)
    right.set(xlabel="forget records", ylabel=unit(), title="1M parameters, against the forget set")
    right.legend(frameon=False)
    return fig


def image_figure(esd: pd.DataFrame, resolution: pd.DataFrame, concepts: pd.DataFrame) -> Any:
    """An ESD iteration both ways, cost against resolution, and UCE against the number of concepts."""
    style()
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.3), layout="constrained")
    ways = (("fresh", "fresh trajectory", COLORS["original"]), ("bank", "bank", COLORS["unlearned"]))
    for k, (way, name, color) in enumerate(ways):
        bars = left.barh(np.arange(len(esd)) + 0.4 * k, esd[f"{way} s/iteration"], 0.38, label=name, color=color)
        if way == "bank":
            left.bar_label(bars, [f"{x:.1f} times faster" for x in esd["speed-up"]], padding=3, fontsize=8)
        middle.loglog(resolution["pixels"], resolution[f"{way} s/iteration"], "o-", label=f"ESD, {name}", color=color)
    left.set(yticks=np.arange(len(esd)) + 0.2, yticklabels=esd["ESD"], xlabel=f"{unit()} an iteration", title="ESD")
    left.invert_yaxis()
    left.legend(frameon=False, loc="lower right", fontsize=8)
    middle.loglog(resolution["pixels"], resolution["picture s"], "s--", label="a picture, 20 steps", color="0.5")
    middle.loglog(resolution["pixels"], resolution["uce s"], "d-", label="UCE", color=COLORS["oracle"])
    middle.set(xlabel="side of a picture, pixels", ylabel=unit(), title="against resolution")
    middle.set_xticks(resolution["pixels"], [str(p) for p in resolution["pixels"]])
    middle.minorticks_off()
    middle.legend(frameon=False, fontsize=8)
    right.loglog(concepts["concept prompts"], concepts["uce s"], "d-", color=COLORS["oracle"])
    right.set(xlabel="concept prompts edited at once", ylabel=unit(), title="UCE")
    return fig
