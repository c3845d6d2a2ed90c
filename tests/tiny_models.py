"""Tiny random models of three architectures, saved as folders: instead of downloads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from unlearnkit.models.recipe import train_tokenizer

KINDS = ("llama", "gpt2", "qwen2")
CONTEXT = 128
CHATML = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def tokenizer_of(kind: str, corpus: Sequence[str]) -> Any:
    """Llama: a begin token before every prompt. GPT-2: no padding token. Qwen: a chat template."""
    tokenizer = train_tokenizer(corpus, 400, CONTEXT)
    if kind == "llama":
        begin = tokenizer.convert_tokens_to_ids("<pad>")  # any id of its own will do
        tokenizer.bos_token = "<pad>"
        tokenizer._tokenizer.post_processor = TemplateProcessing(single="<pad> $A", special_tokens=[("<pad>", begin)])
        tokenizer.pad_token = "<end>"  # the padding is the end token
    elif kind == "gpt2":
        tokenizer.pad_token = None
    else:
        tokenizer.chat_template = CHATML
    return tokenizer


def model_of(kind: str, tokenizer: Any, seed: int = 0) -> Any:
    """Three layers of width 32; grouped heads in Llama, learned positions in GPT-2, attention biases in Qwen."""
    torch.manual_seed(seed)
    size = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.2,
    }
    made: Any
    if kind == "qwen2":
        size["vocab_size"] += 8  # as in the real ones, more rows than the tokenizer has tokens
        made = Qwen2ForCausalLM(Qwen2Config(**size, **shape, tie_word_embeddings=True))
    elif kind == "llama":
        made = LlamaForCausalLM(LlamaConfig(**size, **shape, tie_word_embeddings=False))
    else:
        made = GPT2LMHeadModel(
            GPT2Config(**size, n_embd=32, n_layer=3, n_head=4, n_positions=CONTEXT, initializer_range=0.2)
        )
    return made.eval()


def save(kind: str, folder: Path, corpus: Sequence[str], seed: int = 0) -> Path:
    """A model folder with its tokenizer, in safetensors."""
    tokenizer = tokenizer_of(kind, corpus)
    model_of(kind, tokenizer, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
