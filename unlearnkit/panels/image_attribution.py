"""Cross-attention of a text-to-image model as panels show it: maps on the same seed and noise, and their pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from unlearnkit.attribution.image.attention import map_entropy, overlap
from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.attention import attention_maps
from unlearnkit.panels import html

SHARE = 0.2  # of the places that count as a map's largest, as in the view `attention`


@dataclass(frozen=True)
class Maps:
    """One prompt and seed: its tokens, and each model's picture (h, w, 3) and attention maps (tokens, h, w)."""

    prompt: str
    seed: int
    tokens: list[str]
    pictures: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]


def attention_of(
    problem: Any, models: Mapping[str, Any], prompt: str, seed: int = 0, step: Callable[[], None] = lambda: None
) -> Maps:
    """Where each token of a prompt is heard while each model draws it, from the same noise.

    Raises:
        UnlearnkitError: an empty prompt, or a denoiser without cross-attention.
    """
    if not prompt.strip():
        raise UnlearnkitError("the prompt is empty; say what is to be drawn.")
    tokenizer = problem.model.pipe.tokenizer
    ids = tokenizer(prompt, truncation=True, max_length=tokenizer.model_max_length)["input_ids"]
    tokens = [str(t).removesuffix("</w>") for t in tokenizer.convert_ids_to_tokens(ids)]
    found = Maps(prompt, seed, tokens, {}, {})
    for who, model in models.items():
        drawn, maps = attention_maps(model, prompt, [seed])
        found.pictures[who] = drawn[0]
        found.maps[who] = maps[0, : len(tokens)].float().cpu().numpy()
        step()
    return found


def attention_measures(found: Maps, token: int) -> pd.DataFrame:
    """`mass` (share of the attention), `entropy` (1: everywhere alike), `iou` with the original; a row a model."""
    here = {who: maps[token] for who, maps in found.maps.items()}
    return pd.DataFrame(
        {w: {"mass": m.mean(), "entropy": map_entropy(m), "iou": overlap(m, here["original"], SHARE)}
         for w, m in here.items()}
    ).T  # fmt: skip


def attention_html(found: Maps, token: int, titles: Mapping[str, str]) -> str:
    """Pictures and maps side by side, one scale for all maps, and the measures."""
    low, high = _range(found, token)
    word, measures = found.tokens[token], attention_measures(found, token)
    cards = {}
    for who, picture in found.pictures.items():
        title = titles.get(who, who)
        cards[who] = (
            html.picture(picture, f"{title}: {found.prompt}, seed {found.seed}")
            + f"<small>attention to “{escape(word)}”</small>"
            + html.heat(found.maps[who][token], low, high, f"{title}: attention to {word}")
        )
    named = {
        "mass": "share of the attention",
        "entropy": "entropy (1: everywhere alike)",
        "iou": "overlap with original",
    }
    rows = [
        (label, *(html.cell(html.number(v, sign=False)) for v in measures[column])) for column, label in named.items()
    ]
    return html.columns(cards, titles) + (
        html.legend(html.number(low, sign=False), html.number(high, sign=False),
                    "share of the attention that a place gives to the token", html.MAGNITUDE)
        + html.table(["measure", *(titles.get(w, w) for w in measures.index)], rows,
                     f"“{word}”, the same noise (seed {found.seed}) for all models",
                     ["currentColor", *map(html.color_of, measures.index)])
    )  # fmt: skip


def attention_figure(found: Maps, token: int, titles: Mapping[str, str]) -> Figure:
    """The panel as one still: pictures above, maps below, with their scale and measures."""
    low, high = _range(found, token)
    measures = attention_measures(found, token)
    figure = Figure(figsize=(2.3 * len(found.maps) + 0.9, 5.2), layout="constrained")
    axes = figure.subplots(2, len(found.maps), squeeze=False)
    for column, (who, maps) in enumerate(found.maps.items()):
        top, below = axes[:, column]
        top.imshow(found.pictures[who], interpolation="nearest")
        top.set_title(titles.get(who, who), color=html.color_of(who), fontsize=11, weight="bold", parse_math=False)
        shown = below.imshow(maps[token], cmap=html.MAGNITUDE, vmin=low, vmax=high)
        said = measures.loc[who]
        below.set_xlabel(f"mass {said['mass']:.3f}\nentropy {said['entropy']:.3f}\nIoU {said['iou']:.2f}", fontsize=9)
        for ax in (top, below):
            ax.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel(found.prompt, fontsize=9, parse_math=False)
    axes[1, 0].set_ylabel(f"attention to “{found.tokens[token]}”", fontsize=9, parse_math=False)
    figure.colorbar(shown, ax=axes[1, :].tolist(), shrink=0.8, label="share of the attention")
    return figure


def _range(found: Maps, token: int) -> tuple[float, float]:
    values = [maps[token] for maps in found.maps.values()]
    return float(min(v.min() for v in values)), float(max(v.max() for v in values))
