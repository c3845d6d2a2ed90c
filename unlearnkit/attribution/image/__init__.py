"""Views of text-to-image pipelines."""

from unlearnkit.attribution.image import attention  # noqa: F401  fills the registry
