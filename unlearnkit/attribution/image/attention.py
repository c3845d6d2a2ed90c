"""Cross-attention maps: where each word of a prompt is heard, on the same seeds and noise for all models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from unlearnkit.attribution.base import View, ViewCard, register_view
from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.attention import attention_maps, word_positions


def map_entropy(weights: np.ndarray) -> float:
    """Entropy of a map over places, as a share of that of the uniform one: (height, width) → 0 … 1."""
    p = weights.ravel() / weights.sum()
    return float(-(p * np.log(np.maximum(p, 1e-30))).sum() / np.log(p.size))


def overlap(a: np.ndarray, b: np.ndarray, share: float) -> float:
    """Intersection over union of the `share` of places where each map is largest."""
    count = max(1, round(share * a.size))
    top = [set(np.argsort(-x.ravel(), kind="stable")[:count].tolist()) for x in (a, b)]
    return len(top[0] & top[1]) / len(top[0] | top[1])


@register_view("attention", modality="image")
class Attention(View):
    """One row a model, seed, word and measure; `place` is the seed.

    `mass` is the share of the attention a word gets; `entropy` of its map over the picture (1: everywhere alike);
    `iou` the overlap of its largest fifth with the original's on the same seed.
    """

    card = ViewCard(
        "Cross-attention maps",
        "Tang et al. 2022, arXiv 2210.04885; Hertz et al. 2022, arXiv 2208.01626",
        "a word that is heard as before and drawn as something else was redirected, not removed",
    )

    prompt: str | None = None  # by default the first forget prompt
    seeds: int = Field(4, ge=1)  # pictures
    share: float = Field(0.2, gt=0, lt=1)  # of the places that count as a map's largest

    def rows(self, problem: Any, models: Mapping[str, Any], seed: int) -> pd.DataFrame:
        prompt = self.prompt or problem.prompts_of("forget")[0][0]
        words = list(dict.fromkeys(prompt.split()))
        seeds = [1000 * seed + k for k in range(self.seeds)]
        rows: list[dict[str, Any]] = []
        reference: dict[str, np.ndarray] = {}
        for who, model in models.items():
            _, maps = attention_maps(model, prompt, seeds)  # (seeds, tokens, height, width)
            for word in words:
                at = word_positions(problem.model.pipe.tokenizer, prompt, word)
                if not at:
                    continue
                mine = maps[:, at].sum(1).float().cpu().numpy()  # (seeds, height, width)
                first = reference.setdefault(word, mine)
                for k, here, there in zip(seeds, mine, first, strict=True):
                    values = {
                        "mass": float(here.mean()),
                        "entropy": map_entropy(here),
                        "iou": overlap(here, there, self.share),
                    }
                    rows += [
                        {"who": who, "item": prompt, "place": k, "label": word, "measure": m, "value": v}
                        for m, v in values.items()
                    ]
        if not rows:
            raise UnlearnkitError(f"no word of '{prompt}' could be found among its tokens; give another prompt.")
        return pd.DataFrame(rows)
