"""Balances: how the forget and the retain gradient combine into one step.

Each takes the two gradients to descend (already weighted by γ and α), flattened, and gives the combined one. Sources:
TorchJD for the published aggregators; Yu et al. 2020 (PCGrad, here in its asymmetric forms); BLUR, arXiv 2506.08164;
NGDiff, arXiv 2410.22086; MUNBA, arXiv 2411.15537.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from unlearnkit.errors import UnlearnkitError
from unlearnkit.registry import Registry


class Balance(Protocol):
    """(forget gradient, retain gradient, retain loss) → (combined gradient, what to log)."""

    def __call__(self, forget: Tensor, retain: Tensor, retain_loss: float) -> tuple[Tensor, dict[str, float]]: ...


BALANCES: Registry[Callable[[], Balance]] = Registry("balance")
TORCHJD: dict[str, tuple[str, dict[str, Any]]] = {
    "mgda": ("MGDA", {}),
    "pcgrad": ("PCGrad", {}),
    "gradvac": ("GradVac", {}),
    "cagrad": ("CAGrad", {"c": 0.5}),
    "nashmtl": ("NashMTL", {"n_tasks": 2}),
    "alignedmtl": ("AlignedMTL", {}),
    "imtlg": ("IMTLG", {}),
    "upgrad": ("UPGrad", {}),
    "dualproj": ("DualProj", {}),
    "configrad": ("ConFIG", {}),
}


def balance(name: str, match_norm: bool = False) -> Balance | None:
    """A balance by name; "sum" is None, the loop's single backward pass.

    Args:
        match_norm: scale each combined gradient to the norm of the sum, so that balances differ in direction only.

    Raises:
        UnlearnkitError: unknown name, or a solver that isn't installed.
    """
    made = BALANCES[name]()
    if name == "sum":
        return None
    return _Matched(made) if match_norm else made


@dataclass
class _Matched:
    inner: Balance

    def __call__(self, forget: Tensor, retain: Tensor, retain_loss: float) -> tuple[Tensor, dict[str, float]]:
        combined, log = self.inner(forget, retain, retain_loss)
        size = combined.norm()
        return combined * ((forget + retain).norm() / size if size > 0 else 1.0), log


def _pure(name: str) -> Callable[[Callable[[Tensor, Tensor], Tensor]], Callable[[Tensor, Tensor], Tensor]]:
    """File a balance that keeps no state: (g_f, g_r) → combined."""

    def put(combine: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        BALANCES[name] = lambda: lambda forget, retain, retain_loss: (combine(forget, retain), {})
        return combine

    return put


@_pure("sum")
def weighted_sum(forget: Tensor, retain: Tensor) -> Tensor:
    """g_f + g_r."""
    return forget + retain


@_pure("retain_first")
def retain_first(forget: Tensor, retain: Tensor) -> Tensor:
    """g_r + g_f − min(0, g_f·g_r)/‖g_r‖²·g_r: the forget gradient loses what would harm retain (asymmetric PCGrad)."""
    against = (forget @ retain).clamp_max(0) / (retain @ retain).clamp_min(1e-30)
    return retain + forget - against * retain


@_pure("forget_first")
def forget_first(forget: Tensor, retain: Tensor) -> Tensor:
    """g_f + (g_r − (g_f·g_r/‖g_f‖²)·g_f): the retain gradient acts only where forgetting is not concerned (BLUR)."""
    along = (forget @ retain) / (forget @ forget).clamp_min(1e-30)
    return forget + retain - along * forget


def _rounding(gradient: Tensor) -> float:
    """The share of the other gradient's norm up to which one is rounding: a retain loss at its minimum, say."""
    return 100 * torch.finfo(gradient.dtype).eps


@_pure("ngdiff")
def ngdiff(forget: Tensor, retain: Tensor) -> Tensor:
    """g_r/‖g_r‖ + g_f/‖g_f‖: both directions count the same (g_f descends the forget loss, so it is a plus here).

    A gradient that is rounding beside the other one has no direction and adds nothing.
    """
    lengths = torch.stack([retain.norm(), forget.norm()])
    shares = torch.where(lengths > _rounding(retain) * lengths.max(), 1 / lengths, 0.0)
    return shares[0] * retain + shares[1] * forget


@_pure("munba")
def munba(forget: Tensor, retain: Tensor) -> Tensor:
    """Nash bargaining in closed form: α_r g_r + α_f g_f with α ∘ (Gα) = 1 for the Gram matrix G of (g_r, g_f)."""
    g1, g2, g3 = (float(x) for x in (retain @ retain, retain @ forget, forget @ forget))
    if min(g1, g3) <= _rounding(retain) ** 2 * max(g1, g3):  # one of them is rounding: nothing to bargain with
        return forget + retain
    if abs(g2) < 1e-6 * math.sqrt(g1 * g3):  # no conflict and no agreement: each its own length
        return retain / math.sqrt(g1) + forget / math.sqrt(g3)
    root = math.sqrt(g1 * g3)
    squared = (g1 * g3 - g2 * root) / max(g1 * g1 * g3 - g1 * g2 * g2, 1e-30)
    a_retain = math.sqrt(max(squared, 0.0))
    a_forget = (1 - g1 * a_retain**2) / (g2 * a_retain) if a_retain else 0.0
    return a_retain * retain + a_forget * forget


@BALANCES.register("primal_dual")
@dataclass
class PrimalDual:
    """g_f + λ g_r with λ ← max(0, λ + η(R − ε)); ε = (1 + slack)·R at the first step."""

    multiplier: float = 1.0  # λ
    rate: float = 1.0  # η
    slack: float = 1.0
    level: float | None = None  # ε

    def __call__(self, forget: Tensor, retain: Tensor, retain_loss: float) -> tuple[Tensor, dict[str, float]]:
        if self.level is None:
            self.level = (1 + self.slack) * retain_loss
        combined = forget + self.multiplier * retain
        used = self.multiplier
        self.multiplier = max(0.0, self.multiplier + self.rate * (retain_loss - self.level))
        return combined, {"multiplier": used}


@dataclass
class TorchJD:
    """An aggregator of TorchJD."""

    aggregator: Any

    def __call__(self, forget: Tensor, retain: Tensor, retain_loss: float) -> tuple[Tensor, dict[str, float]]:
        with warnings.catch_warnings():  # of NashMTL's solver: how fast it could be, and a division it survives
            warnings.filterwarnings("ignore", module="(torchjd|cvxpy)")
            combined = self.aggregator(torch.stack([forget, retain]).float())  # of (2, parameters)
        return combined.to(forget.dtype), {}


def _torchjd(name: str) -> Callable[[], Balance]:
    def make() -> Balance:
        import torchjd.aggregation as aggregation

        cls, settings = TORCHJD[name]
        try:
            return TorchJD(getattr(aggregation, cls)(**settings))
        except ImportError as error:
            raise UnlearnkitError(
                f"balance '{name}' needs a solver that isn't installed; run `pip install 'torchjd[full]'`."
            ) from error

    return make


for _name in TORCHJD:
    BALANCES[_name] = _torchjd(_name)
