"""Prompts and answers as token ids: what stands around a question, and where its answer begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from unlearnkit.errors import UnlearnkitError


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


def pad_id(tokenizer: Any) -> int:
    """The id used for padding; its value never matters (see `Batch`)."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id


def context_length(model: nn.Module) -> int:
    """Tokens the model can attend to, by its configuration."""
    config: Any = model.config
    return int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2048)
