"""Base of the language-model methods: the retain term they share, and the refusals they may train on."""

from __future__ import annotations

import random
from typing import Any, Literal

import yaml
from torch import Tensor, nn

from unlearnkit.methods.base import Method
from unlearnkit.methods.text.reference import Reference, kl, reference
from unlearnkit.paths import data_dir
from unlearnkit.text import AnswerTokens

Retain = Literal["nll", "kl"]


class TextMethod(Method):
    """A language-model method with a retain term: NLL on the retain answers, or KL to the original on them."""

    retain_loss: Retain = "nll"

    def prepare(self, model: nn.Module, data: Any) -> dict[str, Reference]:
        """The original's distributions on the retain set, for the KL term only."""
        return {"retain": reference(model, data, "retain", distributions=True)} if self.retain_loss == "kl" else {}

    def retain(self, tokens: AnswerTokens, cached: dict[str, Reference]) -> Tensor:
        """R: ℓ on r, or KL(p_θ₀‖p_θ) on the answer tokens of r."""
        return kl(cached["retain"].logits(tokens), tokens.logits) if self.retain_loss == "kl" else tokens.loss


def refusals(problem: Any, seed: int) -> list[tuple[str, str]]:
    """Each forget question with a refusal drawn from ``data/prompts/refusals.yml``."""
    texts = yaml.safe_load((data_dir() / "prompts" / "refusals.yml").read_text(encoding="utf-8"))["en"]
    draw = random.Random(seed)
    return [(question, draw.choice(texts)) for question, _ in problem.pairs("forget")]
