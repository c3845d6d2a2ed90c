"""Text as tensors: prompts, answer tokens, the one forward pass behind every teacher-forced number, generation."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig

from unlearnkit.errors import UnlearnkitError

IGNORE = -100  # label of every token that is not part of an answer


@dataclass(frozen=True)
class Template:
    """What stands around a question and its answer; `chat` when it comes from the tokenizer's chat template."""

    before_question: str = "Question: "
    before_answer: str = "\nAnswer:"
    answer_prefix: str = " "
    after_answer: str | None = None  # None: the end-of-sequence token
    chat: bool = False

    def prompt(self, question: str) -> str:
        return f"{self.before_question}{question}{self.before_answer}"


def template_of(tokenizer: Any) -> Template:
    """The tokenizer's own chat template where it has one (instruct models), else "Question: … Answer: …".

    The chat template is rendered once around sentinels, so any template works and nothing is rendered per item.
    """
    if not getattr(tokenizer, "chat_template", None):
        return Template()
    question, answer = "QUESTION-SENTINEL", "ANSWER-SENTINEL"
    user = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(user, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(
        [*user, {"role": "assistant", "content": answer}], tokenize=False, add_generation_prompt=False
    )
    if prompt.count(question) != 1 or whole.count(answer) != 1:
        raise UnlearnkitError("the tokenizer's chat template drops or repeats the message; give a plain tokenizer.")
    before_question, before_answer = prompt.split(question)
    # Some templates (Qwen, DeepSeek) put thinking tags between the generation prompt and the answer.
    after_answer = whole.split(answer)[1].rstrip("\n")
    return Template(before_question, before_answer, "", after_answer or None, chat=True)


@dataclass(frozen=True)
class Encoded:
    """Token ids of prompt and answer; `start` is the position of the first answer token."""

    ids: list[int]
    start: int


def encode(tokenizer: Any, template: Template, pairs: Sequence[tuple[str, str]], max_length: int) -> list[Encoded]:
    """Tokenise (question, answer) pairs; prompt and answer apart, so that generation sees the training prefix.

    Raises:
        UnlearnkitError: a pair is longer than `max_length` tokens, an answer is empty, or the tokenizer has no
            end-of-sequence token to close it with.
    """
    if not pairs:
        return []
    if template.after_answer is None and tokenizer.eos_token_id is None:
        raise UnlearnkitError("the tokenizer has no end-of-sequence token; set tokenizer.eos_token and save it again.")
    prompts = tokenizer([template.prompt(q) for q, _ in pairs], add_special_tokens=not template.chat, verbose=False)[
        "input_ids"
    ]
    tail = template.after_answer
    end = [tokenizer.eos_token_id] if tail is None else tokenizer(tail, add_special_tokens=False)["input_ids"]
    answers = tokenizer([template.answer_prefix + a for _, a in pairs], add_special_tokens=False, verbose=False)[
        "input_ids"
    ]
    encoded = []
    for (question, answer), prompt_ids, answer_ids in zip(pairs, prompts, answers, strict=True):
        if not answer.strip():
            raise UnlearnkitError(f"the answer to '{question}' is empty; give every question an answer.")
        ids = [*prompt_ids, *answer_ids, *end]
        if len(ids) > max_length:
            raise UnlearnkitError(
                f"question and answer are {len(ids)} tokens, the context holds {max_length}: '{question[:60]}…'; "
                "shorten the record or take a model with a longer context."
            )
        encoded.append(Encoded(ids, len(prompt_ids)))
    return encoded


@dataclass
class Batch:
    """Right-padded sequences.

    No attention mask is kept: under causal attention no answer token sees the padding to its right, and a mask
    guessed from ``ids != pad`` would be wrong wherever the pad token is also the end-of-sequence token.
    """

    ids: Tensor  # (sequences, tokens)
    labels: Tensor  # (sequences, tokens), IGNORE outside the answer
    rows: Tensor  # (sequences,) which record of its split each sequence is

    def __len__(self) -> int:
        return self.ids.shape[0]

    def to(self, device: torch.device) -> Batch:
        return Batch(*(t.to(device, non_blocking=True) for t in (self.ids, self.labels, self.rows)))

    @property
    def count(self) -> int:
        """Tokens, padding included: what the cost counts."""
        return self.ids.numel()


def collate(encoded: Sequence[Encoded], rows: Sequence[int], pad: int) -> Batch:
    """The records `rows` of `encoded` as one batch, padded to the longest of them."""
    width = max(len(encoded[i].ids) for i in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORE, dtype=torch.long)
    for k, i in enumerate(rows):
        sequence = torch.tensor(encoded[i].ids)
        ids[k, : len(sequence)] = sequence
        labels[k, encoded[i].start : len(sequence)] = sequence[encoded[i].start :]
    return Batch(ids, labels, torch.tensor(list(rows)))


def stack(batches: Sequence[Batch]) -> Batch:
    """Several batches as one, padded to a common width."""
    width = max(b.ids.shape[1] for b in batches)
    return Batch(
        torch.cat([F.pad(b.ids, (0, width - b.ids.shape[1])) for b in batches]),
        torch.cat([F.pad(b.labels, (0, width - b.labels.shape[1]), value=IGNORE) for b in batches]),
        torch.cat([b.rows for b in batches]),
    )


def widen(x: Tensor) -> Tensor:
    """At least float32: no loss is computed in half precision."""
    return x if x.dtype == torch.float64 else x.float()


@dataclass
class AnswerTokens:
    """Everything a loss or metric needs about the answer tokens of one batch."""

    logits: Tensor  # (answer tokens, vocabulary)
    labels: Tensor  # (answer tokens,)
    sequence: Tensor  # (answer tokens,) index of the sequence in the batch
    features: Tensor  # (answer tokens, width): what the output embedding was given
    rows: Tensor  # (sequences,)
    hidden: Tensor | None = None  # (answer tokens, width) of the layer asked for, at the answer tokens themselves

    @cached_property
    def token_nll(self) -> Tensor:
        """−log p of each answer token: (answer tokens,)."""
        return F.cross_entropy(widen(self.logits), self.labels, reduction="none")

    def per_sequence(self, values: Tensor) -> Tensor:
        """Sum of a per-token quantity within each sequence: (answer tokens,) → (sequences,)."""
        return values.new_zeros(len(self.rows)).index_add(0, self.sequence, values)

    @cached_property
    def lengths(self) -> Tensor:
        """|y|: answer tokens of each sequence, (sequences,)."""
        return self.per_sequence(torch.ones_like(self.sequence, dtype=torch.float32))

    @cached_property
    def nll(self) -> Tensor:
        """L: summed NLL of each answer, (sequences,)."""
        return self.per_sequence(self.token_nll)

    @property
    def loss(self) -> Tensor:
        """ℓ: token-mean cross-entropy over the batch, a scalar."""
        return self.token_nll.mean()


@contextmanager
def _answers_only(head: nn.Module, keep: Tensor, seen: list[Tensor]) -> Iterator[None]:
    """While open, the output embedding is given only the hidden states that predict an answer token."""

    def select(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        features = args[0][keep]  # (batch, tokens, width) → (answer tokens, width)
        seen.append(features)
        return (features, *args[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def answer_tokens(model: nn.Module, *batches: Batch, layer: int | None = None) -> list[AnswerTokens]:
    """One forward pass for all `batches` together (on a CPU: one each), with logits only at answer tokens.

    Args:
        layer: also return the hidden states after this many decoder layers (0 = the embeddings).
    """
    if len(batches) > 1 and batches[0].ids.device.type == "cpu" and not hasattr(model, "module"):
        # Arithmetic decides on a CPU, and a common width would add padding to it; a GPU prefers one launch for all.
        return [answer_tokens(model, b, layer=layer)[0] for b in batches]
    batch = stack(batches) if len(batches) > 1 else batches[0]
    answer = batch.labels != IGNORE  # (batch, tokens)
    keep = F.pad(answer[:, 1:], (0, 1))  # position t predicts token t + 1
    labels = batch.labels[answer]
    inner: Any = getattr(model, "module", model)
    features: list[Tensor] = []
    with _answers_only(inner.get_output_embeddings(), keep, features):
        out = model(input_ids=batch.ids, use_cache=False, output_hidden_states=layer is not None)
    logits = out.logits.reshape(-1, out.logits.shape[-1])
    sequence = answer.nonzero()[:, 0]
    hidden = out.hidden_states[layer][answer] if layer is not None else None

    parts, first = [], 0
    for b in batches:
        mine = (sequence >= first) & (sequence < first + len(b)) if len(batches) > 1 else slice(None)
        parts.append(
            AnswerTokens(
                logits[mine],
                labels[mine],
                sequence[mine] - first,
                features[0][mine],
                b.rows,
                None if hidden is None else hidden[mine],
            )
        )
        first += len(b)
    return parts


@dataclass(frozen=True)
class Shared:
    """Records that begin with the same `length` tokens: their prompt at least, and the answers as far as they agree."""

    rows: list[int]
    length: int


def shared_prefixes(encoded: Sequence[Encoded]) -> list[Shared]:
    """All records in groups that are cheapest to read together, longest prefixes first."""
    groups: list[Shared] = []
    for i in sorted(range(len(encoded)), key=lambda i: (encoded[i].start, encoded[i].ids)):
        one = encoded[i]
        alone = Shared([i], len(one.ids) - 1)  # the last token is only predicted
        group = groups[-1] if groups else None
        if group and encoded[group.rows[0]].start == one.start:
            common = _common(encoded[group.rows[0]].ids[: group.length], one.ids[:-1])
            # joining spares the newcomer `common` tokens, and costs every other member what it shared beyond them
            if common >= one.start and (len(group.rows) - 1) * (group.length - common) <= common:
                groups[-1] = Shared([*group.rows, i], common)
                continue
        groups.append(alone)
    return sorted(groups, key=lambda g: -g.length)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first tokens are the same."""
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@torch.inference_mode()
def shared_answer_tokens(model: Any, encoded: Sequence[Encoded], groups: Sequence[Shared], pad: int) -> AnswerTokens:
    """`answer_tokens` of some groups' records, group by group, for scoring: what a group shares is read once.

    The shared beginnings fill a key–value cache; every answer goes on from a copy of its group's part.
    """
    device, head, cache = model.device, model.get_output_embeddings(), DynamicCache(config=model.config)
    rows = [i for g in groups for i in g.rows]
    of = torch.tensor([k for k, g in enumerate(groups) for _ in g.rows])  # (sequences,) its group
    shared = torch.tensor([g.length for g in groups])  # (groups,) tokens read once
    starts = torch.tensor([encoded[g.rows[0]].start for g in groups])
    left = collate([Encoded(encoded[g.rows[0]].ids[: g.length], 0) for g in groups], range(len(groups)), pad).ids
    place = torch.arange(left.shape[1])
    seen = place < shared[:, None]  # (groups, tokens)
    keep = seen & (place >= starts[:, None] - 1)  # what predicts an answer token
    features: list[Tensor] = []
    with _answers_only(head, keep.to(device), features):
        out = model(
            input_ids=left.to(device), attention_mask=seen.long().to(device), past_key_values=cache, use_cache=True
        )
    logits = out.logits.reshape(-1, out.logits.shape[-1])

    answers = [encoded[i].ids[encoded[i].start :] for i in rows]
    ahead = torch.arange(max(map(len, answers)))
    real = ahead < torch.tensor([len(a) for a in answers])[:, None]  # (sequences, answer tokens)
    early = real & (ahead <= (shared - starts)[of, None])  # predicted within what is shared
    first = keep.sum(1).cumsum(0) - keep.sum(1)  # (groups,) where a group's predictions begin
    source = torch.where(early, first[of, None] + ahead, 0)  # (sequences, answer tokens) row of `logits`
    if not torch.equal(early, real):
        cache.batch_select_indices(of.to(device))
        tails = [encoded[i].ids[g.length : -1] for g in groups for i in g.rows]
        right = collate([Encoded(t, 0) for t in tails], range(len(rows)), pad).ids  # (sequences, tokens)
        place = torch.arange(right.shape[1])
        alive = place < torch.tensor([len(t) for t in tails])[:, None]
        with _answers_only(head, alive.to(device), features):
            out = model(
                input_ids=right.to(device),
                attention_mask=torch.cat([seen[of], torch.ones_like(alive)], 1).long().to(device),
                position_ids=(shared[of, None] + place).to(device),
                past_key_values=cache,
                use_cache=True,
            )
        source[real & ~early] = len(logits) + torch.arange(int(alive.sum()))
        logits = torch.cat([logits, out.logits.reshape(-1, logits.shape[-1])])
    pick = source[real].to(device)
    labels = torch.tensor([t for a in answers for t in a], device=device)
    return AnswerTokens(
        logits[pick],
        labels,
        real.nonzero()[:, 0].to(device),
        torch.cat(features)[pick],
        torch.tensor(rows, device=device),
    )


def by_length(encoded: Sequence[Encoded], batch_size: int) -> list[list[int]]:
    """All rows in batches of similar length, longest first (an out-of-memory error then comes at once)."""
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i].ids))
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def shuffled_batches(encoded: Sequence[Encoded], batch_size: int, order: random.Random) -> list[list[int]]:
    """One epoch in random batches, each of similar length (shuffle, sort within 16 batches, shuffle batches).

    The last, smaller batch is filled up from the start of the epoch, so that every batch has one size.
    """
    rows = list(range(len(encoded)))
    order.shuffle(rows)
    if len(rows) > batch_size:
        rows += rows[: -len(rows) % batch_size]
    batches = []
    for begin in range(0, len(rows), 16 * batch_size):
        chunk = sorted(rows[begin : begin + 16 * batch_size], key=lambda i: len(encoded[i].ids))
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    order.shuffle(batches)
    return batches


def pad_id(tokenizer: Any) -> int:
    """The id used for padding; its value never matters (see `Batch`)."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id


def context_length(model: nn.Module) -> int:
    """Tokens the model can attend to, by its configuration."""
    config: Any = model.config
    return int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2048)


@contextmanager
def _own_generation_config_off(model: Any) -> Iterator[None]:
    """While open, nothing but the caller's settings decides how text is generated."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    before, inner.generation_config = inner.generation_config, GenerationConfig()
    try:
        yield
    finally:
        inner.generation_config = before


@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: Any,
    template: Template,
    questions: Sequence[str],
    max_new_tokens: int = 32,
    batch_size: int = 128,
    samples: int = 0,
    temperature: float = 1.0,
    seed: int = 0,
    starts: Sequence[str] | None = None,
) -> list[str]:
    """Answers to `questions`: greedy (`samples=0`) or `samples` sampled ones each (returned question by question).

    With `starts`, each answer begins with the given words, and only what follows is returned.
    Batched with a key–value cache and left padding, questions of one length together; stops at the end token or
    where the context ends. What the model's own generation_config asks for (penalties, beams) is left out.

    Raises:
        UnlearnkitError: a question that leaves no room for an answer.
    """
    if not questions:
        return []
    prompts = tokenizer([template.prompt(q) for q in questions], add_special_tokens=not template.chat, verbose=False)[
        "input_ids"
    ]
    for i, start in enumerate(starts or ()):
        if start:
            prompts[i] = prompts[i] + tokenizer(template.answer_prefix + start, add_special_tokens=False)["input_ids"]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    stop = [tokenizer.eos_token_id]
    if template.after_answer:
        stop += tokenizer(template.after_answer, add_special_tokens=False)["input_ids"][:1]
    device, repeats = model.device, max(samples, 1)
    answers: list[str] = [""] * (len(prompts) * repeats)
    was_training = model.training
    model.eval()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            width = max(len(prompts[i]) for i in rows)
            ids = torch.full((len(rows), width), pad_id(tokenizer), dtype=torch.long)
            mask = torch.zeros_like(ids)
            for k, i in enumerate(rows):
                ids[k, width - len(prompts[i]) :] = torch.tensor(prompts[i])
                mask[k, width - len(prompts[i]) :] = 1
            room = context_length(model) - width
            if room < 1:
                raise UnlearnkitError(
                    f"a question of {width} tokens leaves no room for an answer in a context of {width + room}; "
                    "shorten it or take a model with a longer context."
                )
            settings = GenerationConfig(
                max_new_tokens=min(max_new_tokens, room),
                do_sample=samples > 0,
                num_return_sequences=repeats,
                pad_token_id=pad_id(tokenizer),
                eos_token_id=stop,
                **({"temperature": temperature, "top_k": 0, "top_p": 1.0} if samples else {}),
            )
            with _own_generation_config_off(model):
                out = model.generate(
                    input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=settings
                )
            texts = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
            for k, text in enumerate(texts):
                answers[rows[k // repeats] * repeats + k % repeats] = text.strip()
    model.train(was_training)
    return answers
