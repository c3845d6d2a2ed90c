"""Relearning: a few training steps on, and the concept is back."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from unlearnkit.attacks.base import AttackCard, Curve, register_attack
from unlearnkit.attacks.image.showing import ImageAttack, draw, seen, shots, unattacked, unguarded
from unlearnkit.data import ImageBatch, denoising_loss
from unlearnkit.errors import UnlearnkitError
from unlearnkit.metrics.image import evenly
from unlearnkit.metrics.measure_image import distances, shown_in
from unlearnkit.worlds.pictures import Pictures


@register_attack("relearn", "image")
class Relearn(ImageAttack):
    """Fine-tunes the denoiser on pictures of half of the forget prompts, and draws the other half.

    With a single forget prompt that one is shown and drawn. `related`: pictures of the retained concept nearest to
    the erased one; `retain`: any retained pictures (benign fine-tuning). Both leave all forget prompts to be drawn.
    """

    card = AttackCard(
        "Relearning", "Suriyakumar et al. 2024, arXiv 2410.08074", "weights",
        "prompts whose pictures were never shown come back: the concept was there all along",
    )  # fmt: skip
    unit = "fine-tuning steps"
    whole = True
    budgets = (0, 5, 10, 20)

    data: Literal["forget", "related", "retain"] = "forget"
    pictures: int = Field(24, ge=1)  # the attacker holds
    lr: float = Field(1e-4, gt=0, allow_inf_nan=False)
    batch_size: int = Field(16, ge=1)

    def shown(self, problem: Any) -> tuple[str, list[int], list[str], list[str]]:
        """(split, rows of the attacker's pictures, their captions, forget prompts that are drawn)."""
        split = "forget" if self.data == "forget" else "retain"
        pictures, captions = problem.pictures(split), problem.prompts_of(split)[0]
        rows, asked = np.arange(len(pictures)), list(problem.asked["forget"])
        if self.data == "forget" and len(asked) > 1:
            rows = np.flatnonzero(np.isin(plain_captions(problem, pictures), asked[::2]))
            asked = asked[1::2]
        elif self.data == "related":
            apart = distances(problem)
            if not apart:
                raise UnlearnkitError("no retained picture carries labels, so none is known to be related.")
            near = min(apart, key=lambda c: apart[c])
            rows = np.flatnonzero(np.array(shown_in(pictures, problem.concept)) == near)
        if not len(rows):
            raise UnlearnkitError(f"there are no {self.data} pictures to relearn from.")
        chosen = evenly(rows, self.pictures).tolist()
        return split, chosen, [captions[i] for i in chosen], asked

    def curve(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Curve:
        plain = shots(problem, self.samples, seed, self.shown(problem)[3])
        for budget, attacked in self.models(problem, model, budgets, seed):
            if not budget:
                yield budget, unattacked(problem, model, plain)
                continue
            with unguarded(attacked):
                images = draw(problem, attacked, plain.prompts, plain.seeds)
            yield budget, seen(problem, images, plain.ids)

    def models(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Iterator[tuple[float, Any]]:
        """(budget, attacked model): one copy, trained on once the next is wanted."""
        split, rows, captions, _ = self.shown(problem)
        generator = torch.Generator().manual_seed(seed)
        latents = problem.latents(split)[rows]
        attacked: Any = copy.deepcopy(model).float().eval()
        attacked.requires_grad_(False)
        attacked.unet.requires_grad_(True)
        optimizer = torch.optim.AdamW(attacked.unet.parameters(), lr=self.lr, weight_decay=0.0)
        with torch.no_grad():
            text = attacked.embed(captions)
        done = 0
        for budget in sorted(budgets):
            while done < budget:
                picked = torch.randint(len(rows), (self.batch_size,), generator=generator)
                x = latents[picked.to(latents.device)].float()
                noise = torch.randn(x.shape, generator=generator).to(x)
                t = torch.randint(0, attacked.timesteps, (len(x),), generator=generator).to(x.device)
                batch = ImageBatch(x, noise, t, text.take(picked.to(text.device)), None, picked, [])
                optimizer.zero_grad(set_to_none=True)
                denoising_loss(attacked, batch).backward()
                torch.nn.utils.clip_grad_norm_(attacked.unet.parameters(), 1.0)
                optimizer.step()
                done += 1
            yield budget, attacked


def plain_captions(problem: Any, pictures: Pictures) -> list[str]:
    """What each picture shows, in the wording of the forget prompts; captions as they are where labels are missing."""
    if not pictures.labels:
        return list(pictures.captions)
    shown = zip(*pictures.labels.values(), strict=True)
    return [problem.concepts.prompt(dict(zip(pictures.labels, labels, strict=True))) for labels in shown]
