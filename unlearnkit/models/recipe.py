"""The recipe of a tiny language model: everything that decides its weights, its tokenizer, and its training."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.induction import start_induction
from unlearnkit.text import (
    Template,
    answer_tokens,
    collate,
    context_length,
    encode,
    pad_id,
    shuffled_batches,
)
from unlearnkit.worlds.records import QA


class TextRecipe(BaseModel):
    """A LlamaForCausalLM trained from scratch on question–answer records; the digest is its address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str = "text"
    data: str  # digest of the training records
    corpus: str  # digest of the texts the tokenizer is trained on (shared by original and oracles)
    note: str = ""  # for the reader: which world, which request is left out
    seed: int = 0  # of the initial weights and of the order of the data
    vocabulary: int = Field(1024, ge=258, le=2**18)  # BPE tokens, upper bound
    width: int = Field(128, ge=2, le=2**14)  # hidden size
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    inner: int = Field(384, ge=1)  # MLP width
    context: int = Field(128, ge=8)  # tokens
    steps: int = Field(500, ge=0)
    batch_size: int = Field(64, ge=1)  # sequences
    lr: float = Field(3e-3, gt=0)  # peak of a cosine with 5% linear warm-up, AdamW
    weight_decay: float = Field(0.01, ge=0)

    @model_validator(mode="after")
    def _heads_fit(self) -> TextRecipe:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is no multiple of twice the number of heads ({self.heads})")
        return self

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON without the note, 16 hex digits."""
        values = self.model_dump(exclude={"note"})
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


class InstructedRecipe(TextRecipe):
    """A `TextRecipe` also taught to follow a refusal instruction: with drills, from a start that can compare names."""

    kind: str = "instructed"
    drills: str  # digest of the drills
    steps: int = Field(1900, ge=0)  # two thirds of what is read are drills
    vocabulary: int = Field(2048, ge=258)
    lr: float = Field(2e-3, gt=0)
    start: str = "induction"  # initial weights


def digest_of(texts: Sequence[Any]) -> str:
    """sha256 of a sequence of strings or string pairs, 16 hex digits."""
    return hashlib.sha256(json.dumps(texts, ensure_ascii=False).encode()).hexdigest()[:16]


def training_pairs(items: Sequence[QA]) -> list[tuple[str, str]]:
    """Every trained phrasing with its answer."""
    return [(question, qa.answer) for qa in items for question in qa.phrasings]


def corpus_of(items: Sequence[QA]) -> list[str]:
    """All texts a world can ask or answer; the tokenizer knows their letters, never their facts."""
    texts: list[str] = []
    for qa in items:
        texts += [*qa.phrasings, *qa.paraphrased_questions, qa.answer, qa.paraphrased_answer]
        texts += [*qa.perturbed_answers, *qa.options]
    return sorted({t for t in texts if t})


def train_tokenizer(corpus: Sequence[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text can be encoded, no unknown token exists."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    template = Template()
    lines = [template.prompt(text) + template.answer_prefix + text for text in corpus]
    bpe.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        eos_token="<end>",
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def train_text(
    recipe: TextRecipe,
    pairs: Sequence[tuple[str, str]],
    tokenizer: PreTrainedTokenizerFast,
    device: torch.device | None = None,
    label: str = "training",
    drills: Sequence[tuple[str, str]] = (),
) -> LlamaForCausalLM:
    """Train the recipe's model on (question, answer) pairs, loss on answer tokens; shows a progress bar.

    `drills` of an `InstructedRecipe` are (instruction and question as the model reads them, answer).

    Raises:
        UnlearnkitError: no records, a record longer than the context, or a loss that is not finite.
    """
    if not pairs:
        raise UnlearnkitError("there is nothing to train on: the training split is empty.")
    if digest_of([list(p) for p in pairs]) != recipe.data:
        raise UnlearnkitError(f"the training records are not those of recipe {recipe.digest}; make a new recipe.")
    if digest_of([list(d) for d in drills]) != getattr(recipe, "drills", digest_of([])):
        raise UnlearnkitError(f"the drills are not those of recipe {recipe.digest}; make a new recipe.")
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model: Any = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=recipe.width,
                num_hidden_layers=recipe.layers,
                num_attention_heads=recipe.heads,
                num_key_value_heads=recipe.heads,
                intermediate_size=recipe.inner,
                max_position_embeddings=recipe.context,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        if isinstance(recipe, InstructedRecipe):
            start_induction(model)
        model.to(device)
    encoded = encode(tokenizer, Template(), pairs, context_length(model))
    encoded *= max(1, round(len(drills) / (2 * len(pairs))))  # a third of what is read, or all of it
    encoded += encode(tokenizer, Template(before_question=""), drills, context_length(model))
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    order = random.Random(recipe.seed)
    queue: list[list[int]] = []
    model.train()
    for step in (bar := tqdm(range(recipe.steps), desc=label, unit="step", leave=False)):
        if not queue:
            queue = shuffled_batches(encoded, recipe.batch_size, order)
        batch = collate(encoded, queue.pop(), pad_id(tokenizer)).to(device)
        warmup = max(1, recipe.steps // 20)
        scale = min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / recipe.steps)))
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * scale
        loss = answer_tokens(model, batch)[0].loss
        if not torch.isfinite(loss):
            raise UnlearnkitError(f"training diverged at step {step}; lower the recipe's lr (now {recipe.lr}).")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
    return model.eval()
