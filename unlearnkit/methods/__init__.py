"""Methods of unlearning: one file each, filed in ``METHODS["text"]`` and ``METHODS["image"]`` by name."""

import unlearnkit.methods.image
import unlearnkit.methods.ssd
import unlearnkit.methods.text  # noqa: F401  (the three fill the registries)
from unlearnkit.methods.base import METHODS, Card, Method, Objectives, StepBatch, register_method

__all__ = ["METHODS", "Card", "Method", "Objectives", "StepBatch", "register_method"]
