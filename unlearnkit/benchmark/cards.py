"""Method cards: what a method minimises, where it is written down, what pins it, what it reached, where it fails."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearnkit.benchmark.board import AXES, leaderboard
from unlearnkit.benchmark.pins import pins
from unlearnkit.benchmark.rows import BRANCHES, measured
from unlearnkit.errors import UnlearnkitError, unknown

if TYPE_CHECKING:
    import pandas as pd

    from unlearnkit.claims import Verdict

TESTS = 6  # that a card names; all are in `tests`
SHOWN = ("gap", "floor", "utility", "recovered_relearn", "recovered_quantize", "seconds", "cost_ratio")


@dataclass(frozen=True)
class MethodCard:
    """Everything there is to say about one method; in a notebook it shows itself.

    Attributes:
        equation: LaTeX of the forget objective, without dollars.
        code: file and line of its class, or "a notebook cell".
        settings: setting → default.
        tests: ids of the tests that name the method or its functions; `properties`: those run for every method.
        reached: columns of the leaderboard (`SHOWN`, with intervals, and `seeds`); empty when it was not measured.
        claims: verdicts of claims that name the method: (claim, verdict, statement).
    """

    kind: str
    name: str
    title: str
    about: str
    equation: str
    paper: str
    defaults: str
    settings: Mapping[str, Any]
    code: str
    tests: tuple[str, ...]
    properties: tuple[str, ...]
    failure: str
    reached: Mapping[str, float] = field(default_factory=dict)
    axes: tuple[str, str] = ("", "")
    claims: tuple[tuple[str, str, str], ...] = ()

    def number(self) -> str:
        """What it reached, in a sentence."""
        of, (forgetting, utility) = self.reached, self.axes
        if not of:
            return "not measured: the leaderboard has no row of it."
        if of["gap"] != of["gap"] or of["utility"] != of["utility"]:
            return f"{str(of['why'] or 'not measurable').rstrip('.')}."
        text = f"gap to the oracle {_with(of, 'gap')} ({forgetting}; noise floor {_figure(of['floor'])}), "
        text += f"utility {_with(of, 'utility')} of the original's ({utility}), "
        text += "" if of["usable"] else "below the bar: not usable, "
        for attack, word in (("relearn", "relearning"), ("quantize", "quantization")):
            text += f"{word} leads {_figure(of[f'recovered_{attack}'])} of the way back, "
        cost = "" if of["cost_ratio"] != of["cost_ratio"] else f" ({_figure(of['cost_ratio'])} of retraining)"
        return f"{text}{_figure(of['seconds'])} s{cost}; {of['seeds']:.0f} {'seed' if of['seeds'] == 1 else 'seeds'}."

    def markdown(self) -> str:
        """The card as Markdown, the equation for MathJax."""
        settings = ", ".join(f"`{k}` {v}" for k, v in self.settings.items()) or "none"
        lines = [
            f"### `{self.name}` · {_plain(self.title)}", "", _plain(self.about), "", f"$${self.equation}$$", "",
            f"- **Paper**: {_plain(self.paper)}", f"- **Code**: `{self.code}`",
            f"- **Settings**: {_plain(settings)}. Defaults: {_plain(self.defaults)}",
            f"- **Reached**: {_plain(self.number())}", f"- **Known failure**: {_plain(self.failure)}",
        ]  # fmt: skip
        lines += [f"- **Claim** `{claim}`: {verdict}. {_plain(said)}" for claim, verdict, said in self.claims]
        named = [f"`{test}`" for test in self.tests[:TESTS]] or ["no test names it"]
        named += [f"{len(self.tests) - TESTS} more tests"] * (len(self.tests) > TESTS)
        named += [f"{len(self.properties)} properties that every registered method must have"] * bool(self.properties)
        return "\n".join([*lines, f"- **Pinned by**: {', '.join(named)}."])

    def _repr_markdown_(self) -> str:
        return self.markdown()


def method_card(
    kind: str, name: str, *, board: pd.DataFrame | None = None, verdicts: Iterable[Verdict] = ()
) -> MethodCard:
    """The card of a registered method, also of one registered in a notebook cell.

    Args:
        kind: "text" or "image".
        board: a leaderboard to read what it reached from; default the shipped one of its branch.
        verdicts: of claims (`claims.verdicts`); those whose rule or evidence names the method go on the card.

    Raises:
        UnlearnkitError: an unknown kind or method.
    """
    from unlearnkit.methods import METHODS

    if kind not in BRANCHES:
        raise unknown("kind of method", kind, BRANCHES)
    cls = METHODS[kind][name]
    given = getattr(cls, "card", None)
    loop = dict(getattr(cls, "loop", {}))
    fields = {key: value.default for key, value in getattr(cls, "model_fields", {}).items()}
    board = _shipped(kind) if board is None else board
    mine = [v for v in verdicts if v.claim.branch == kind and name in _named(v)]
    return MethodCard(
        kind=kind, name=name,
        title=given.title if given else name.replace("_", " "),
        about=" ".join(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].split()),
        equation=given.equation if given else r"\text{not given}",
        paper=given.paper if given else "not given",
        defaults=given.defaults if given else "not given",
        settings={**fields, **loop},
        code=location(cls),
        tests=pins(kind, name).named, properties=pins(kind, name).shared,
        failure=given.failure if given else "not given",
        reached=dict(board.loc[name]) if board is not None and name in board.index else {},
        axes=(board.attrs.get("forgetting", ""), board.attrs.get("utility", "")) if board is not None else AXES[kind],
        claims=tuple((v.claim.id, v.verdict, v.claim.statement) for v in mine),
    )  # fmt: skip


def location(cls: type) -> str:
    """File, relative to the checkout or the installation, and line of a class; "a notebook cell" for one without."""
    try:
        file = Path(inspect.getsourcefile(cls) or "")
        line = inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        return "a notebook cell"
    root = Path(__file__).resolve().parents[2]
    return f"{file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name}:{line}"


@lru_cache(maxsize=2)
def _shipped(kind: str) -> pd.DataFrame | None:
    try:
        return leaderboard(measured(kind))
    except UnlearnkitError:
        return None


def _named(verdict: Verdict) -> set[str]:
    return {term.method for term in verdict.claim.effect.rows if term.method} | set(verdict.by)


def _figure(value: float) -> str:
    return "–" if value != value else f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


def _with(of: Mapping[str, float], name: str) -> str:
    low, high = of[f"{name}_low"], of[f"{name}_high"]
    return _figure(of[name]) + ("" if low != low else f" [{_figure(low)}, {_figure(high)}]")


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: no tag, no table, no link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("[", "\\[").replace("|", "\\|")
