"""Attacks on the input embeddings: concept inversion, adversarial prefix, embedding search with a teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from unlearnkit.attacks.base import AttackCard, Curve, register_attack
from unlearnkit.attacks.image.showing import (
    ImageAttack,
    draw,
    drawn_with,
    held,
    seen,
    shots,
    unattacked,
    unguarded,
)
from unlearnkit.data import ImageBatch, denoising_loss
from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods.image.esd import trajectory_bank
from unlearnkit.models.attention import word_positions
from unlearnkit.models.free_tokens import (
    Free,
    Places,
    all_tokens,
    at_start,
    embed_with,
    encoders,
    free_tokens,
    table_sizes,
)
from unlearnkit.models.pipeline import Conditioning, Diffusion
from unlearnkit.modes import at_rest

Loss = Callable[[Conditioning], Tensor]
PREFIX = "a"  # what stands in a prompt where a free token goes: one token to every CLIP tokenizer


class EmbeddingAttack(ImageAttack):
    """Optimises the input embeddings of free tokens on the attacked model; budget 0 is the prompt as it is."""

    unit = "optimisation steps"
    whole = True
    budgets = (0, 20, 60)
    shared: ClassVar[bool] = True  # whether all prompts get the same vectors

    lr: float = Field(0.1, gt=0, allow_inf_nan=False)  # Adam, in units of the root mean square of the embedding table
    batch_size: int = Field(16, ge=1)

    def places(self, problem: Any) -> Places:
        """Where the free tokens of a prompt are."""
        raise TypeError(f"{type(self).__name__} has no places(problem)")

    def wording(self, prompts: Sequence[str]) -> list[str]:
        """The prompts with room for the free tokens."""
        return list(prompts)

    def start(self, model: Diffusion, prompts: list[str], free: list[Free], generator: torch.Generator) -> list[Tensor]:
        """The vectors before the first step: those that stand there."""
        return at_start(model, prompts, free)

    def used(self, model: Diffusion, vectors: Sequence[Tensor]) -> list[Tensor]:
        """What stands in the prompt, of the vectors that are optimised."""
        return list(vectors)

    def losses(self, problem: Any, model: Diffusion, generator: torch.Generator) -> tuple[list[str], Loss]:
        """Prompts, and the loss of a step given their text states."""
        raise TypeError(f"{type(self).__name__} has no losses(problem, model, generator)")

    def curve(self, problem: Any, model: Any, budgets: Sequence[float], seed: int) -> Curve:
        plain = shots(problem, self.samples, seed)
        generator = torch.Generator().manual_seed(seed)
        places, asked = self.places(problem), list(problem.asked["forget"])
        with at_rest(model, frozen=True):
            prompts, loss_of = self.losses(problem, model, generator)
            free = free_tokens(model, prompts, places, self.shared)
            vectors = [v.requires_grad_() for v in self.start(model, prompts, free, generator)]
            sizes = table_sizes(model)
            groups = [{"params": [v], "lr": self.lr * size} for v, size in zip(vectors, sizes, strict=True)]
            optimizer, done = torch.optim.Adam(groups), 0
            for budget in sorted(budgets):
                while done < budget:
                    optimizer.zero_grad()
                    loss_of(embed_with(model, prompts, free, self.used(model, vectors))).backward()
                    optimizer.step()
                    done += 1
                if not budget:
                    yield budget, unattacked(problem, model, plain)
                    continue
                said = self.wording(asked)
                with torch.no_grad(), unguarded(model):
                    found = embed_with(
                        model, said, free_tokens(model, said, places, self.shared), self.used(model, vectors)
                    )
                    text = found.take([asked.index(p) for p in plain.prompts])
                    images = draw(problem, model, text, plain.seeds)
                yield budget, seen(problem, images, plain.ids)


class Pictured(EmbeddingAttack):
    """Optimised for the attacked model's own denoising loss on a few pictures of the concept."""

    pictures: int = Field(12, ge=1)  # the attacker holds

    def losses(self, problem: Any, model: Diffusion, generator: torch.Generator) -> tuple[list[str], Loss]:
        latents, captions, _ = held(problem, self.pictures)
        prompts = list(dict.fromkeys(captions))
        which = torch.tensor([prompts.index(c) for c in captions])
        latents = latents.to(model.device, model.dtype)

        def loss(text: Conditioning) -> Tensor:
            rows = torch.randint(len(latents), (self.batch_size,), generator=generator)
            x = latents[rows.to(latents.device)]
            noise = torch.randn(x.shape, generator=generator).to(x)
            t = torch.randint(0, model.timesteps, (len(x),), generator=generator).to(x.device)
            own = text.take(which[rows].to(text.device))
            return denoising_loss(model, ImageBatch(x, noise, t, own, None, rows, []))

        return self.wording(prompts), loss


@register_attack("concept_inversion", "image")
class ConceptInversion(Pictured):
    """Textual inversion: the embedding of the concept's own word is learned anew from a few of its pictures."""

    card = AttackCard(
        "Concept inversion", "Pham et al. 2023, arXiv 2308.01508; Gal et al. 2022, arXiv 2208.01618", "weights",
        "the word was cut off, the concept still answers to another embedding",
    )  # fmt: skip

    def places(self, problem: Any) -> Places:
        return lambda tokenizer, prompt: word_positions(tokenizer, prompt, problem.word)


@register_attack("adversarial_prefix", "image")
class AdversarialPrefix(Pictured):
    """Tokens before the prompt that make the model denoise the concept's pictures: projected gradient.

    Each step looks up the vocabulary's nearest token and gives its gradient to the continuous vector behind it, so
    what is found are words that anybody can type; with `hard` off the vectors themselves are used.
    """

    card = AttackCard(
        "Adversarial prefix (UnlearnDiffAtk)", "Zhang et al. 2023, arXiv 2310.11868", "weights",
        "the erased prompt is not erased behind other words",
    )  # fmt: skip

    tokens: int = Field(5, ge=1)
    hard: bool = True
    lr: float = Field(0.5, gt=0, allow_inf_nan=False)

    def places(self, problem: Any) -> Places:
        return lambda tokenizer, prompt: list(range(1, 1 + self.tokens))

    def wording(self, prompts: Sequence[str]) -> list[str]:
        return [" ".join([PREFIX] * self.tokens + [prompt]) for prompt in prompts]

    def start(self, model: Diffusion, prompts: list[str], free: list[Free], generator: torch.Generator) -> list[Tensor]:
        out = []
        for (tokenizer, table), f in zip(encoders(model), free, strict=True):
            longest = tokenizer.model_max_length
            cut = [
                p for p in prompts if len(tokenizer(p, truncation=True, max_length=longest + 1)["input_ids"]) > longest
            ]
            if cut:
                raise UnlearnkitError(
                    f"with {self.tokens} tokens before it '{cut[0]}' is longer than the {longest} tokens that the text "
                    "encoder reads; give fewer."
                )
            count = int(f.slot.max()) + 1
            rows = torch.randint(len(table.weight), (count,), generator=generator).to(table.weight.device)
            out.append(table.weight.detach()[rows].float().clone())
        return out

    def used(self, model: Diffusion, vectors: Sequence[Tensor]) -> list[Tensor]:
        if not self.hard:
            return list(vectors)
        tables = [table.weight.detach().float() for _, table in encoders(model)]
        return [v + (nearest(v.detach(), table) - v).detach() for v, table in zip(vectors, tables, strict=True)]


def nearest(vectors: Tensor, table: Tensor) -> Tensor:
    """The row of a table nearest to each vector: (n, width), (rows, width) → (n, width)."""
    return table[torch.cdist(vectors, table).argmin(1)]


@register_attack("embedding_search", "image")
class EmbeddingSearch(EmbeddingAttack):
    """Every token of each forget prompt is free, and is to predict on the attacked model what the original predicts."""

    card = AttackCard(
        "Embedding search with a teacher (P4D)", "Chin et al. 2023, arXiv 2309.06135", "weights",
        "some input leads to what the original drew; the attacker holds the original too",
    )  # fmt: skip
    shared = False

    def places(self, problem: Any) -> Places:
        return all_tokens

    def losses(self, problem: Any, model: Diffusion, generator: torch.Generator) -> tuple[list[str], Loss]:
        prompts = list(problem.asked["forget"])
        seed = generator.initial_seed()
        if ("teacher", seed) not in problem.measured:  # with η = −1 the bank's targets are ε₀(x_t, c) itself
            steps, guidance = drawn_with(problem)
            problem.measured["teacher", seed] = trajectory_bank(problem.model, prompts, -1.0, 2, steps, guidance, seed)
        bank = problem.measured["teacher", seed]

        def loss(text: Conditioning) -> Tensor:
            rows = torch.randint(len(bank), (self.batch_size,), generator=generator).to(bank.x.device)
            found = model(bank.x[rows], bank.t[rows], text.take(bank.which[rows]))
            return F.mse_loss(found.float(), bank.target[rows])

        return prompts, loss
