"""Panels: the workbench's questions as controls. Each is a pure computation, a pure picture of it, and thin wiring.

>>> import unlearnkit as uk
>>> uk.attribution_panel(problem, {"npo": unlearned})  # in a notebook
>>> uk.attribution_twin(problem, {"npo": unlearned})  # the same as a still figure, for paper and for GitHub
"""

from unlearnkit.panels.attribution import attribution_panel, attribution_twin

__all__ = ["attribution_panel", "attribution_twin"]
