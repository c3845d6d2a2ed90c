"""Figures of the series: one palette, original / unlearned / oracle always in the same colours, oracle as target."""

from unlearnkit.plots.attacks import plot_attack, plot_card
from unlearnkit.plots.base import COLORS, GAP_CLIP, method_colors, style
from unlearnkit.plots.pictures import image_grid, plot_related
from unlearnkit.plots.plane import plot_conflict, plot_plane, plot_trace
from unlearnkit.plots.scores import answer_table, plot_against, plot_ecdf, plot_gaps, plot_levels

__all__ = [
    "COLORS",
    "GAP_CLIP",
    "answer_table",
    "image_grid",
    "method_colors",
    "plot_against",
    "plot_attack",
    "plot_card",
    "plot_conflict",
    "plot_ecdf",
    "plot_gaps",
    "plot_levels",
    "plot_plane",
    "plot_related",
    "plot_trace",
    "style",
]
