"""Sharpness: how fast the loss rises around a model, and whether that says how fast the forgotten is relearned."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from unlearnkit.attribution.base import View, ViewCard, register_view
from unlearnkit.attribution.losses import Loss, loss_of, same_weights
from unlearnkit.errors import UnlearnkitError, whole_number
from unlearnkit.modes import at_rest
from unlearnkit.unlearning import check_problem, model_of

LEAST_GAP = 0.1  # nats a token between model and original below which there is nothing to relearn


@torch.no_grad()
def loss_rises(model: nn.Module, losses: Sequence[Loss], radius: float, samples: int, seed: int) -> np.ndarray:
    """L(θ + δ) − L(θ) with random δ, ‖δ‖ = `radius`·‖θ‖ in every tensor: (samples, losses).

    Tensor-wise scaling as by Li et al. 2018, section 4, so that rescaled weights are as sharp as before. The
    directions depend on the seed alone.
    """
    moved = copy.deepcopy(model)
    start = [p.detach().clone() for p in model.parameters()]
    # a stream of its own: the CPU generator reads 32 bits of a seed
    generator = torch.Generator().manual_seed(2**31 + 2**30 + seed)
    before, out = [float(loss(model)) for loss in losses], []
    for _ in range(samples):
        for weight, centre in zip(moved.parameters(), start, strict=True):
            noise = torch.randn(centre.shape, generator=generator).to(centre.device, torch.float32)
            size = radius * centre.float().norm() / noise.norm().clamp_min(1e-12)
            weight.copy_(centre + (noise * size).to(centre.dtype))
        out.append([float(loss(moved)) - level for loss, level in zip(losses, before, strict=True)])
    return np.array(out)


def top_eigenvalue(
    loss: Callable[[], Tensor], weights: Sequence[Tensor], tolerance: float = 0.05, seed: int = 0
) -> float:
    """Largest eigenvalue of the Hessian of `loss()` with respect to `weights`, by Lanczos on Hessian–vector products.

    Args:
        tolerance: relative, of the eigenvalue.

    Returns:
        NaN when it has not converged.
    """
    weights = list(weights)
    sizes = [w.numel() for w in weights]
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no second derivative
        first = torch.autograd.grad(loss(), weights, create_graph=True, allow_unused=True)

        def product(v: np.ndarray) -> np.ndarray:
            parts = torch.from_numpy(np.asarray(v, np.float32).reshape(-1)).split(sizes)
            along = sum(
                (g * part.view_as(g).to(g)).sum() for g, part in zip(first, parts, strict=True) if g is not None
            )
            assert isinstance(along, Tensor)
            if along.grad_fn is None:
                return np.zeros(sum(sizes), np.float32)
            second = torch.autograd.grad(along, weights, retain_graph=True, allow_unused=True)
            pairs = zip(second, weights, strict=True)
            out = torch.cat([(torch.zeros_like(w) if h is None else h).reshape(-1) for h, w in pairs])
            return out.float().cpu().numpy()

        count = sum(sizes)
        start = np.random.default_rng(seed).normal(size=count).astype(np.float32)
        if count < 3:  # ARPACK needs room
            return float(np.linalg.eigvalsh(np.stack([product(row) for row in np.eye(count)])).max())
        operator = LinearOperator((count, count), matvec=product, dtype=np.float32)
        try:
            found = eigsh(
                operator, k=1, which="LA", v0=start, ncv=min(count, 10), tol=tolerance, maxiter=20,
                return_eigenvectors=False,
            )  # fmt: skip
        except ArpackNoConvergence:
            return float("nan")
    return float(found[0])


@register_view("sharpness", "image")
@register_view("sharpness")
class Sharpness(View):
    """How sharp forget and retain loss (of `loss_of`; `item`: the split) are at each model.

    `loss` (place −1); `rise` by random steps of relative length `radius`, one row a direction (`place`), the same
    directions for all models; with `eigenvalue`, the largest eigenvalue of the Hessian (place −1), left out where it
    has not converged.
    """

    card = ViewCard(
        "Sharpness",
        "Keskar et al. 2017, arXiv 1609.04836; Li et al. 2018, arXiv 1712.09913; for unlearning Fan et al. 2025, "
        "arXiv 2502.05374",
        "a sharp forget loss at the unlearned model: a short step brings the knowledge back",
    )

    radius: float = Field(0.15, gt=0)  # ‖δ‖ / ‖θ‖ in every tensor
    samples: int = Field(5, ge=2)  # directions
    eigenvalue: bool = False  # some seconds a model
    limit: int | None = Field(None, ge=1)  # records or pictures a split; None: as `loss_of` has it

    def rows(self, problem: Any, models: Mapping[str, Any], seed: int) -> pd.DataFrame:
        losses = {split: loss_of(problem, split, self.limit) for split in ("forget", "retain")}
        rows: list[dict[str, Any]] = []

        def add(who: str, split: str, place: int, measure: str, value: float) -> None:
            rows.append(
                {"who": who, "item": split, "place": place, "label": "", "measure": measure, "value": float(value)}
            )

        for who, model in models.items():
            rises = loss_rises(model, list(losses.values()), self.radius, self.samples, seed)
            for k, (split, loss) in enumerate(losses.items()):
                with torch.no_grad():
                    add(who, split, -1, "loss", float(loss(model)))
                for place, rise in enumerate(rises[:, k]):
                    add(who, split, place, "rise", rise)
                if self.eigenvalue:
                    trained = [p for n, p in model.named_parameters() if not n.startswith(("vae.", "text_encoder"))]
                    for p in trained:
                        p.requires_grad_(True)
                    value = top_eigenvalue(lambda m=model, f=loss: f(m), trained, seed=seed)  # type: ignore[misc]
                    if np.isfinite(value):
                        add(who, split, -1, "eigenvalue", value)
        return pd.DataFrame(rows)


def relearning_predictors(
    problem: Any, unlearned: Mapping[str, Any], *, steps: int = 5, seed: int = 0, **settings: Any
) -> pd.DataFrame:
    """What might say how fast a model relearns, beside how fast it does: one row a model, index its name.

    `rise_forget`, `rise_retain`, and with eigenvalue=True `eigenvalue_forget`, `eigenvalue_retain`: means of the view
    "sharpness"; `distance` = ‖θ − θ₀‖ / ‖θ₀‖ and `nll`, the forget loss itself: what a predictor should beat; `speed`:
    the share of the distance in NLL to the original that the attack "relearn" takes back in `steps` steps, on questions
    it does not show; NaN for a model with the original's NLL, which has nothing to relearn.

    Args:
        unlearned: name → what `unlearn` returned, or a model.
        settings: of the view.

    Raises:
        UnlearnkitError: an image problem, or no model.
    """
    from unlearnkit.robustness import attack

    check_problem(problem)
    whole_number("steps", steps, 1)
    if problem.modality != "text" or not unlearned:
        raise UnlearnkitError("relearning is predicted for language models, one at least; give name → model.")
    original = problem.model
    size = sum(float(p.detach().float().square().sum()) for p in original.parameters()) ** 0.5
    view, rows = Sharpness(**settings), {}
    for name, one in unlearned.items():
        model = model_of(problem, one)
        with at_rest(model):
            table = view.rows(problem, {"unlearned": model}, seed)
        row = {f"{m}_{s}": v for (m, s), v in table.groupby(["measure", "item"])["value"].mean().items()}
        row["nll"] = row.pop("loss_forget")
        row.pop("loss_retain")
        if same_weights(original, model):
            pairs = zip(original.parameters(), model.parameters(), strict=True)
            row["distance"] = sum(float((a - b).detach().float().square().sum()) for a, b in pairs) ** 0.5 / size
        curve = attack(problem, model, "relearn", budget=[0, steps], seed=seed)
        nll = curve[curve["measure"] == "nll"].set_index(["who", "budget"])["value"]
        gap = nll["unlearned", 0.0] - nll["original", 0.0]
        back = nll["unlearned", 0.0] - nll["unlearned", float(steps)]
        row["speed"] = back / gap if gap > LEAST_GAP else np.nan
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def rank_correlations(table: pd.DataFrame, target: str = "speed", resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Spearman's correlation of every other column with `target`, with a 95% bootstrap interval over the rows.

    Index: the column; `spearman`, `low`, `high`, `n` (rows that have both). With few rows the interval is wide, and one
    that holds 0 says that nothing was shown. Below four rows there is none.
    """
    draw, rows = np.random.default_rng(seed), {}
    for name in table.columns.drop(target):
        both = table[[name, target]].dropna().to_numpy(float)
        value, low, high = np.nan, np.nan, np.nan
        if len(both) >= 4 and np.ptp(both, axis=0).min() > 0:
            value = spearmanr(both).statistic
            picks = both[draw.integers(0, len(both), (resamples, len(both)))]  # (resamples, rows, 2)
            found = [spearmanr(pick).statistic for pick in picks if np.ptp(pick, axis=0).min() > 0]
            low, high = np.percentile(found, [2.5, 97.5])
        rows[name] = {"spearman": value, "low": low, "high": high, "n": len(both)}
    return pd.DataFrame.from_dict(rows, orient="index")
