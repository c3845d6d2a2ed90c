"""The verb `attribute`: one view of original, unlearned, oracles and a random change of the same size."""

from __future__ import annotations

from typing import Any

import pandas as pd
from pydantic import ValidationError

from unlearnkit.attribution.base import COLUMNS, VIEWS, View, random_change
from unlearnkit.errors import UnlearnkitError, whole_number
from unlearnkit.modes import at_rest
from unlearnkit.unlearning import model_of


def attribute(
    problem: Any, unlearned: Any, view: str | View = "tokens", *, seed: int = 0, **settings: Any
) -> pd.DataFrame:
    """One view, as a tidy table: `view`, `who`, `item`, `place`, `label`, `measure`, `value`.

    `who` is "original", "unlearned", "oracle" (and "oracle 2", …), and "random": the original moved at random by as
    much as the unlearned model, the control of the same size.

    Args:
        unlearned: what `unlearn` returned, or a model.
        view: a name of `VIEWS[problem.modality]`, or a view with its settings.
        seed: of the control and of whatever a view draws.
        settings: fields of the view.

    Raises:
        UnlearnkitError: unknown view or setting; a problem or model the view can't be taken of.
    """
    model = model_of(problem, unlearned)
    whole_number("seed", seed)
    chosen = _configured(problem.modality, view, settings)
    name = view if isinstance(view, str) else type(view).__name__.lower()
    models = {"original": problem.model, "unlearned": model}
    for k, source in enumerate(problem.oracles):
        models["oracle" if k == 0 else f"oracle {k + 1}"] = source.get()
    models["random"] = random_change(problem.model, model, seed)
    with at_rest(*models.values()):
        table = chosen.rows(problem, models, seed)
    return table.assign(view=name).reindex(columns=COLUMNS)


def _configured(modality: str, view: str | View, settings: dict[str, Any]) -> View:
    if isinstance(view, View):
        return view.model_copy(update=settings)
    try:
        return VIEWS[modality][view](**settings)
    except ValidationError as error:
        first = error.errors()[0]
        allowed = ", ".join(VIEWS[modality][view].model_fields) or "none"
        raise UnlearnkitError(
            f"setting '{'.'.join(map(str, first['loc']))}' of view {view} can't be {first['input']!r}: "
            f"{first['msg']}; its settings are {allowed}."
        ) from error
