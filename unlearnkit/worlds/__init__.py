"""What can be forgotten: built-in worlds, TOFU, and files of one's own."""

from unlearnkit.worlds.authors import authors
from unlearnkit.worlds.jsonl import read_jsonl, world_from_jsonl, write_jsonl
from unlearnkit.worlds.records import QA, TextWorld
from unlearnkit.worlds.requests import split, training_items

__all__ = [
    "QA",
    "TextWorld",
    "authors",
    "read_jsonl",
    "split",
    "training_items",
    "world_from_jsonl",
    "write_jsonl",
]
