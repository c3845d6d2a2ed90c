"""Panels: the workbench's questions as controls. Each is a pure computation, a pure picture of it, and thin wiring.

>>> import unlearnkit as uk
>>> uk.attribution_panel(problem, {"npo": unlearned})  # in a notebook
>>> uk.attribution_twin(problem, {"npo": unlearned})  # the same as a still figure, for paper and for GitHub
"""

from unlearnkit.panels.answers import answers_panel, answers_twin
from unlearnkit.panels.attribution import attribution_panel, attribution_twin
from unlearnkit.panels.console import attack_console, attack_twin
from unlearnkit.panels.front import front_panel, front_twin
from unlearnkit.panels.pictures import pictures_panel, pictures_twin
from unlearnkit.panels.review import review_panel, review_twin
from unlearnkit.panels.review_file import read_review

__all__ = [
    "attack_console",
    "attack_twin",
    "answers_panel",
    "answers_twin",
    "attribution_panel",
    "attribution_twin",
    "front_panel",
    "front_twin",
    "pictures_panel",
    "pictures_twin",
    "read_review",
    "review_panel",
    "review_twin",
]
