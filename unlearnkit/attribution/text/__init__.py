"""Views of language models."""

from unlearnkit.attribution.text import data, landscape, layers, tokens, weights  # noqa: F401  fill the registry
