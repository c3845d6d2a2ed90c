"""A two-dimensional slice of the loss: the plane through original, unlearned model and oracle."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from unlearnkit.attribution.base import View, ViewCard, register_view
from unlearnkit.attribution.losses import loss_of, same_weights
from unlearnkit.errors import UnlearnkitError


def weights_of(model: Any) -> Tensor:
    """All weights as one vector: (parameters,), float32."""
    return parameters_to_vector([p.detach().float() for p in model.parameters()])


def plane_basis(origin: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Orthonormal basis of the plane through three points, by Gram–Schmidt; `first` lies on its first axis: (2, n).

    Raises:
        UnlearnkitError: the points lie on a line.
    """
    a, b = first - origin, second - origin
    length = a.norm()
    if length > 0:
        a = a / length
        rest = b - (b @ a) * a
        rest = rest - (rest @ a) * a  # once more: float32 leaves a little
        if rest.norm() > 1e-4 * b.norm():
            return torch.stack([a, rest / rest.norm()])
    raise UnlearnkitError(
        "original, unlearned model and oracle lie on a line of weight space, so they span no plane; "
        "give an unlearned model with weights of its own."
    )


def coordinates(basis: Tensor, origin: Tensor, point: Tensor) -> tuple[float, float, float]:
    """(x, y, distance from the plane) of a point, in units of the weights."""
    step = point - origin
    x, y = (basis @ step).tolist()
    return x, y, float((step - x * basis[0] - y * basis[1]).norm())


@register_view("plane", "image")
@register_view("plane")
class Plane(View):
    """Forget and retain loss (of `loss_of`) on a grid in the plane through original, unlearned model and oracle.

    Original at (0, 0), unlearned model on the x axis, the oracle's y is positive; distances are Euclidean, in weight
    space. Rows of who "plane": for each grid point, numbered by `place`, its `x`, `y` and the `loss` of each split
    (`item`). Rows of every model (place −1): its coordinates, `off`, its distance from the plane, and its own `loss`;
    a model off the plane (another oracle, the random control) has not the loss of the point it is drawn at.
    """

    card = ViewCard(
        "Plane through three models",
        "Garipov et al. 2018, arXiv 1802.10026; Li et al. 2018, arXiv 1712.09913",
        "unlearned model and original in one valley of the forget loss: a short way back",
    )

    points: int = Field(7, ge=2)  # along each side of the grid
    around: Literal["models", "unlearned"] = "models"  # what the grid holds: all three, or original and unlearned
    margin: float = Field(0.25, ge=0)  # beyond the models, as a share of the grid's side
    limit: int | None = Field(None, ge=1)  # records or pictures a split; None: as `loss_of` has it

    def rows(self, problem: Any, models: Mapping[str, Any], seed: int) -> pd.DataFrame:
        if "oracle" not in models:
            raise UnlearnkitError("a plane needs a third model, and this problem has no oracle; see view 'landscape'.")
        original = models["original"]
        for who in ("unlearned", "oracle"):
            if not same_weights(original, models[who]):
                raise UnlearnkitError(f"the {who} model has other weights than the original, so there is no plane.")
        origin = weights_of(original)
        basis = plane_basis(origin, weights_of(models["unlearned"]), weights_of(models["oracle"]))
        losses = {split: loss_of(problem, split, self.limit) for split in ("forget", "retain")}
        rows: list[dict[str, Any]] = []

        def add(who: str, place: int, model: Any, **where: float) -> None:
            row = {"who": who, "item": "", "place": place, "label": ""}
            rows.extend({**row, "measure": name, "value": value} for name, value in where.items())
            with torch.no_grad():
                values = {split: float(loss(model)) for split, loss in losses.items()}
            rows.extend({**row, "item": split, "measure": "loss", "value": v} for split, v in values.items())

        spots = {}
        for who, model in models.items():
            if same_weights(original, model):
                x, y, off = spots[who] = coordinates(basis, origin, weights_of(model))
                add(who, -1, model, x=x, y=y, off=off)
        held = ("original", "unlearned", *(("oracle",) if self.around == "models" else ()))
        x_axis, y_axis = (self._axis([spots[who][k] for who in held], spots["unlearned"][0]) for k in (0, 1))
        probe = copy.deepcopy(original)
        for place, (y, x) in enumerate((y, x) for y in y_axis for x in x_axis):
            with torch.no_grad():
                moved = origin + x * basis[0] + y * basis[1]
                for weight, new in zip(probe.parameters(), self._split(moved, probe), strict=True):
                    weight.copy_(new)
            add("plane", place, probe, x=x, y=y)
        return pd.DataFrame(rows)

    def _axis(self, values: list[float], least: float) -> list[float]:
        """Grid points over the values and a margin; where they coincide, over the unlearned model's distance."""
        low, high = min(values), max(values)
        if high - low < 1e-6 * least:
            low, high = low - least / 2, high + least / 2
        edge = self.margin * (high - low)
        return np.linspace(low - edge, high + edge, self.points).tolist()

    @staticmethod
    def _split(vector: Tensor, model: Any) -> list[Tensor]:
        parts = vector.split([p.numel() for p in model.parameters()])
        return [part.view_as(p) for part, p in zip(parts, model.parameters(), strict=True)]


def plane_grid(table: pd.DataFrame, split: str = "forget") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x (n,), y (m,), loss (m, n)) of the view "plane", as `contourf` and `pcolormesh` want them."""
    part = table[table["who"] == "plane"]
    at = part[part["measure"].isin(["x", "y"])].pivot(index="place", columns="measure", values="value")
    loss = part[(part["measure"] == "loss") & (part["item"] == split)].set_index("place")["value"]
    grid = at.assign(loss=loss).pivot(index="y", columns="x", values="loss")
    return grid.columns.to_numpy(float), grid.index.to_numpy(float), grid.to_numpy(float)
