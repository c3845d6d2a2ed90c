"""Metrics: arrays in, numbers out (`text`, `image`); what they are computed from (`measure`, `measure_image`); their
table (`table`) and its rows (`text_rows`, `image_rows`)."""

import unlearnkit.metrics.text_rows  # isort: skip  (fills METRICS, those of text first)
import unlearnkit.metrics.image_rows  # noqa: F401
