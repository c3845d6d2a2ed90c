"""Views of language models."""

from unlearnkit.attribution.text import data, landscape, layers, neurons, sensitivity, tokens, tracing, weights  # noqa: F401  fill the registry
