"""Text as tensors: prompts, answer tokens, the one forward pass behind every teacher-forced number, generation."""

from unlearnkit.text.batches import IGNORE, Batch, by_length, collate, shuffled_batches, stack
from unlearnkit.text.generation import generate
from unlearnkit.text.reading import AnswerTokens, answer_tokens, widen
from unlearnkit.text.shared import Shared, shared_answer_tokens, shared_prefixes
from unlearnkit.text.template import Encoded, Template, context_length, encode, pad_id, template_of

__all__ = [
    "AnswerTokens",
    "Batch",
    "Encoded",
    "IGNORE",
    "Shared",
    "Template",
    "answer_tokens",
    "by_length",
    "collate",
    "context_length",
    "encode",
    "generate",
    "pad_id",
    "shared_answer_tokens",
    "shared_prefixes",
    "shuffled_batches",
    "stack",
    "template_of",
    "widen",
]
