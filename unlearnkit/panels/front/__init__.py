"""The front to play with: forgetting against utility of many models, what is chosen among them, what each one says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from unlearnkit.panels.front import says
from unlearnkit.panels.front.panel import FrontPanel, drawn, labels_of
from unlearnkit.panels.front.source import ALL, choose, narrowed, source_of

__all__ = ["FrontPanel", "front_panel", "front_twin"]


def front_panel(
    source: Any = None,
    *,
    forgetting: str = "forget_ks_statistic",
    utility: str = "retain_model_utility",
    notebook: str | None = None,
    samples: pd.DataFrame | None = None,
    problem: Any = None,
    unlearned: Mapping[str, Any] | None = None,
    limit: int = 40,
    folder: str | Path = "front",
) -> FrontPanel:
    """Forgetting against utility of many models, and what can be asked of them.

    Args:
        source: a folder of runs (default: as `read_runs`), records, rows of `evaluate` of many models, or points as
            `tradeoff.points` makes them.
        forgetting, utility: metrics of the axes at first; those of `tradeoff.point`.
        notebook: only the runs of this one.
        samples: rows of `tradeoff.samples` with the columns that tell models apart; default those of the run folders.
        problem, unlearned: name → what `unlearn` returned: models that can be mixed with their original and attributed.
        limit: questions asked, or pictures sampled, a split, of a mixture; that of the source to be comparable.
        folder: where the export is written.

    Raises:
        UnlearnkitError: the source holds no models, or an unlearned model has no problem.
    """
    return FrontPanel(
        source_of(source, notebook, samples), (forgetting, utility), problem, unlearned or {}, limit, str(folder)
    )


def front_twin(
    source: Any = None,
    *,
    forgetting: str = "forget_ks_statistic",
    utility: str = "retain_model_utility",
    notebook: str | None = None,
    beyond: bool = False,
    less: bool = False,
    step: Any = ALL,
    share: float = 0.9,
    weight: float = 0.5,
    rule: str = "chebyshev",
    reference: Sequence[float] = (0.0, 0.0),
) -> Figure:
    """What the panel shows, as one still figure with its sentences beside it.

    Args:
        source, forgetting, utility, notebook: as `front_panel`.
        beyond, less: direction of the axes, as `tradeoff.point`.
        step: "all", "last" or a step.
        share: utility to be kept; weight: of forgetting, in `tradeoff.preference` by `rule`.
        reference: of the hypervolume, (forgetting, utility).

    Raises:
        UnlearnkitError: as `front_panel`, or nothing is measurable.
    """
    found = source_of(source, notebook)
    every = found.points(forgetting, utility, beyond, less)
    mine = every[every["method"] != "oracle"]
    shown = narrowed(mine, list(mine["name"]), list(mine["seed"]), step)
    goal = found.goal(every)
    choice = choose(shown, goal, share, weight, rule, reference)
    figure = drawn(shown, goal, choice, share, weight, rule, reference, labels_of(found, forgetting, utility))
    said = says.sentences(shown, choice, goal, share, weight, rule, reference)
    text = "\n\n".join("\n".join(wrap(s, 46)) for s in said.values())
    figure.text(0.705, 0.02, text, fontsize=7.6, va="bottom", color="0.2")
    return figure
