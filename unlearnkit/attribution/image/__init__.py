"""Views of text-to-image pipelines."""

from unlearnkit.attribution.image import attention, denoiser  # noqa: F401  fill the registry
