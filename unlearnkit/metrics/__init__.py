"""Metrics: arrays in, numbers out (`text`, `image`); what they are computed from (`measure`, `measure_image`); the rows
of the table (`table`, `image_rows`)."""

import unlearnkit.metrics.image_rows
import unlearnkit.metrics.table  # noqa: F401  (the two fill METRICS)
