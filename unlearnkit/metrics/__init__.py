"""Metrics: arrays in, numbers out (`text`); what they are computed from (`measure`); the rows of the table."""
