"""The denoiser: which word of a prompt drives its prediction, and where in the picture; by captum and by ablation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from captum.attr import IntegratedGradients
from pydantic import Field
from torch import Tensor

from unlearnkit.attribution.base import View, ViewCard, register_view
from unlearnkit.attribution.image.attention import map_entropy, overlap
from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.attention import word_positions
from unlearnkit.models.diffusion import denoise

COMPLETE = 1e-4  # largest gap of integrated gradients, as a share of what they must sum to
MOST_STEPS = 512


def encoders(model: Any) -> list[tuple[Any, Any]]:
    """(tokenizer, text encoder) of a pipeline: one pair, or two of an XL-class one."""
    pairs = [(model.pipe.tokenizer, model.text_encoder)]
    return [*pairs, (model.pipe.tokenizer_2, model.text_encoder_2)] if model.xl else pairs


def word_embeddings(model: Any, prompt: str, without: Sequence[str]) -> tuple[Tensor, ...]:
    """Token embeddings of a prompt with some words' tokens replaced by the pad token: (1, tokens, width) an encoder."""
    out = []
    for tokenizer, encoder in encoders(model):
        ids = tokenizer(
            prompt, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
        )["input_ids"].to(model.device)
        for word in without:
            ids[0, word_positions(tokenizer, prompt, word)] = tokenizer.pad_token_id
        with torch.no_grad():
            out.append(encoder.get_input_embeddings()(ids).detach())
    return tuple(out)


@contextmanager
def embeddings_given(model: Any, given: Sequence[Tensor]) -> Iterator[None]:
    """While open, the text encoders read these token embeddings, (n, tokens, width) each, whatever the n prompts."""
    hooks = [
        encoder.get_input_embeddings().register_forward_hook(lambda *_, new=new: new)
        for (_, encoder), new in zip(encoders(model), given, strict=True)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def predictor(model: Any, prompt: str, t: Tensor) -> Callable[..., Tensor]:
    """g(x_t (n, c, h, w), token embeddings (n, tokens, width), …) = the prediction of the denoiser: (n, c, h, w)."""

    def g(x: Tensor, *given: Tensor) -> Tensor:
        with embeddings_given(model, given):
            text = model.embed([prompt] * len(x))
        return model(x, t.expand(len(x)), text).float()

    return g


@torch.no_grad()
def word_maps(model: Any, prompt: str, words: Sequence[str], x: Tensor, t: Tensor) -> Tensor:
    """Squared change of the prediction at each place when a word is left out, mean over channels.

    Returns:
        (words, seeds, height, width) of the latents.
    """
    g, size = predictor(model, prompt, t), len(x)
    variants = [word_embeddings(model, prompt, without) for without in ([], *([w] for w in words))]
    whole, *others = (g(x, *(e.expand(size, -1, -1) for e in variant)) for variant in variants)
    return torch.stack([(whole - other).square().mean(1) for other in others])


def word_gradients(
    model: Any, prompt: str, words: Sequence[str], x: Tensor, t: Tensor, region: Tensor, steps: int
) -> tuple[Tensor, Tensor, float, int]:
    """Integrated gradients of what the words do to the prediction.

    Explained is the squared change of the prediction that all words together make, mean over channels and `region`;
    the path is that of the token embeddings, from pad tokens in the words' places to the prompt's.

    Args:
        region: bool (height, width) of the latents.

    Returns:
        (seeds, words); what they must sum to, (seeds,); the worst gap as a share of it; steps.
    """
    g, size = predictor(model, prompt, t), len(x)
    full, blank = (
        tuple(e.expand(size, -1, -1) for e in word_embeddings(model, prompt, without)) for without in ([], words)
    )
    with torch.no_grad():
        nothing = g(x, *blank)

    def f(*given: Any) -> Tensor:
        *embedded, state, start = given
        return (g(state, *embedded) - start).square()[..., region].mean((1, 2))  # (n,)

    with torch.no_grad():
        wanted = f(*full, x, nothing).double()  # (seeds,); nothing at the start of the path
    while True:
        found = IntegratedGradients(f).attribute(
            full,
            baselines=blank,
            additional_forward_args=(x, nothing),
            n_steps=steps,
            internal_batch_size=max(size, model.batch),
        )
        tokens = [part.detach().sum(-1) for part in found]  # (seeds, tokens) an encoder
        gap = (sum(part.double().sum(1) for part in tokens) - wanted).abs() / wanted.abs().clamp_min(1e-12)
        worst = float(gap.max())
        if worst <= COMPLETE or 2 * steps > MOST_STEPS:
            break
        steps *= 2
    shares = []
    for word in words:
        at = [word_positions(tokenizer, prompt, word) for tokenizer, _ in encoders(model)]
        shares.append(sum(part[:, where].sum(1) for part, where in zip(tokens, at, strict=True)))
    return torch.stack(shares, 1), wanted, worst, steps


@register_view("denoiser", modality="image")
class Denoiser(View):
    """One row a model, seed (`item`), timestep (`place`), word (`label`) and measure.

    All models are shown the same noisy latents, those of the original drawing the prompt. `attribution` are
    integrated gradients of the squared change that the words make to the prediction, in `region`, mean over places;
    they sum to `effect` (label ""), to within `completeness`, the worst gap as a share after `steps` steps. `ablation`
    is the squared change when the word alone is left out, mean over places; `entropy` that of its map over the picture
    (1: everywhere alike); `iou` the overlap of the map's largest `share` with the original's. A guidance rule is no
    part of the denoiser: models that differ in it alone read as the original.
    """

    card = ViewCard(
        "Words and pixels of the denoiser",
        "captum; Sundararajan et al. 2017, arXiv 1703.01365; Tang et al. 2022, arXiv 2210.04885",
        "a word that still drives the prediction where the original drew it was not removed",
    )

    prompt: str | None = None  # by default the first forget prompt
    seeds: int = Field(2, ge=1)  # pictures
    moments: tuple[float, ...] = Field((0.25, 0.5, 0.75), min_length=1)  # of the sampling, as shares of its steps
    region: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)  # top, left, bottom, right, shares of the picture
    share: float = Field(0.2, gt=0, lt=1)  # of the places that count as a map's largest
    steps: int = Field(16, ge=2)  # of integrated gradients, at first

    def rows(self, problem: Any, models: Mapping[str, Any], seed: int) -> pd.DataFrame:
        prompt = self.prompt or problem.prompts_of("forget")[0][0]
        original = models["original"]
        words = [w for w in dict.fromkeys(prompt.split()) if word_positions(original.pipe.tokenizer, prompt, w)]
        if not words:
            raise UnlearnkitError(f"no word of '{prompt}' could be found among its tokens; give another prompt.")
        if not all(0 <= m < 1 for m in self.moments):
            raise UnlearnkitError(f"moments = {self.moments} is not possible; give shares of the sampling, 0 … 1.")
        region = self._inside(*original.latent_shape[1:]).to(original.device)
        seeds = [1000 * seed + k for k in range(self.seeds)]
        rows: list[dict[str, Any]] = []
        for x, t in noisy_latents(original, prompt, seeds, self.moments):
            reference: np.ndarray | None = None
            for who, model in models.items():
                maps = word_maps(model, prompt, words, x, t).cpu().numpy()  # (words, seeds, height, width)
                reference = maps if reference is None else reference
                parts, effect, gap, steps = word_gradients(model, prompt, words, x, t, region, self.steps)
                for k, number in enumerate(seeds):
                    row = {"who": who, "item": f"seed {number}", "place": int(t)}
                    for w, word in enumerate(words):
                        values = {
                            "attribution": float(parts[k, w]),
                            "ablation": float(maps[w, k].mean()),
                            "entropy": map_entropy(maps[w, k] + 1e-30),
                            "iou": overlap(maps[w, k], reference[w, k], self.share),
                        }
                        rows += [{**row, "label": word, "measure": m, "value": v} for m, v in values.items()]
                    rows.append({**row, "label": "", "measure": "effect", "value": float(effect[k])})
                rows.append({**row, "item": prompt, "label": "", "measure": "completeness", "value": gap})
                rows.append({**row, "item": prompt, "label": "", "measure": "steps", "value": float(steps)})
        return pd.DataFrame(rows)

    def _inside(self, height: int, width: int) -> Tensor:
        top, left, bottom, right = self.region
        inside = torch.zeros(height, width, dtype=torch.bool)
        if 0 <= top < bottom <= 1 and 0 <= left < right <= 1:
            inside[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
        if not inside.any():
            raise UnlearnkitError(
                f"region = {self.region} holds no part of the picture; give top, left, bottom, right as shares, 0 … 1."
            )
        return inside


def noisy_latents(
    model: Any, prompt: str, seeds: Sequence[int], moments: Sequence[float]
) -> Iterator[tuple[Tensor, Tensor]]:
    """(x_t, t) at some moments of the model's sampling of a prompt: (seeds, c, h, w) and a scalar each."""
    path: list[Any] = []
    denoise(model, [prompt] * len(seeds), seeds, batch_size=len(seeds), path=path)
    for moment in moments:
        state = path[int(len(path) * moment)]
        yield state.x, state.t
