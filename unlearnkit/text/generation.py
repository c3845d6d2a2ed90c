"""Answers: greedy or sampled, in batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from unlearnkit.errors import UnlearnkitError
from unlearnkit.modes import at_rest
from unlearnkit.text.template import Template, context_length, pad_id


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
        UnlearnkitError: a question that leaves no room for an answer; a temperature that is no positive number.
    """
    if not questions:
        return []
    if samples and not 0 < temperature < math.inf:
        raise UnlearnkitError(
            f"temperature = {temperature!r} is not possible; give a number above 0 (greedy: samples=0)."
        )
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
    with at_rest(model), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
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
    return answers
