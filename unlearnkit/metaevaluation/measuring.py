"""Measuring a pool: every model once, those that pass for forgotten also after two attacks."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from unlearnkit.attacks import ATTACKS
from unlearnkit.attacks.text.asking import forgotten, halves
from unlearnkit.errors import UnlearnkitError
from unlearnkit.evaluation import measure
from unlearnkit.metaevaluation.known import Known
from unlearnkit.metaevaluation.pool import Entry, Pool, merged, read_pool, save_pool
from unlearnkit.metrics.table import Table, arrays
from unlearnkit.unlearning import check_problem

STEPS = 10  # of relearning, on half of the forgotten
BITS = 4  # a weight after quantization
LEFT_OUT = ("picture",)  # columns a pool doesn't keep: megabytes


def pool_of(
    problem: Any, known: Iterable[Known], *, case: str | None = None, limit: int = 40, attacks: bool = True,
    inside: bool = True, seed: int = 0, keep: Sequence[str] = (), work: Path | None = None, progress: bool = True,
) -> Pool:  # fmt: skip
    """A pool measured now, with original and oracles of the problem as references.

    Args:
        known: models of known truth.
        case: name of the request in the pool; default that of the problem.
        limit: questions asked, or pictures drawn, a split.
        attacks: also measure hidden and retrained models after relearning and quantization.
        inside: also read language models from within.
        keep: columns kept although they are large ("picture").
        work: folder of a file a model; what is there is not measured again.

    Raises:
        UnlearnkitError: the problem has no oracle.
    """
    check_problem(problem)
    if not problem.oracles:
        raise UnlearnkitError("a pool needs an oracle, by which a metric's direction is known; give oracles=2.")
    case = case or f"{problem.name} {problem.request}"
    sources = [("original", problem.original), *(("oracle", source) for source in problem.oracles)]
    references = [Known(t, f"reference {k}: {t}", f"reference {k}", s.get) for k, (t, s) in enumerate(sources)]
    reader = Reader(problem, limit, inside and problem.modality == "text", tuple(keep))
    parts = []
    for one in tqdm([*references, *known], desc="pool", leave=False, disable=not progress):
        path = work / f"{hashlib.sha256(f'{case}|{one.name}'.encode()).hexdigest()[:16]}.npz" if work else None
        if path and path.is_file():
            parts.append(read_pool(path))
            continue
        entries = tuple(measured_entries(reader, one, case, attacks, seed))
        parts.append(Pool(problem.modality, entries, {case: reader.unshown()}, dict(reader.missing)))
        if path:
            save_pool(parts[-1], path)
    return merged(parts)


def measured_entries(reader: Reader, one: Known, case: str, attacks: bool, seed: int) -> Iterator[Entry]:
    """The entries of one model: as it is, and attacked where a user would have to judge it."""
    model = one.make()
    narrow = dataclasses.replace(reader, problem=asked_after(reader.problem))
    yield Entry(case, one.truth, one.name, one.cluster, reader.items(model))
    retrained = one.truth == "ignorant" and one.name == one.cluster  # not taught anything since
    if attacks and (one.truth == "hides" or retrained):
        for attack, changed in attacked(reader.problem, model, seed):
            yield Entry(case, one.truth, one.name, one.cluster, _forgotten(narrow.items(changed)), attack)


def asked_after(problem: Any) -> Any:
    """The problem with no more of it than metrics of the forgotten read."""
    if problem.modality == "image":
        return dataclasses.replace(
            problem, asked={**problem.asked, "retain": []}, wanted={**problem.wanted, "retain": []}
        )
    kept = {name: items for name, items in problem.splits.items() if name in ("forget", "holdout")}
    return dataclasses.replace(problem, splits={**kept, "retain": problem.direct("retain")[:1]})


def _forgotten(items: Table) -> Table:
    return {split: table for split, table in items.items() if split in ("forget", "holdout")}


def attacked(problem: Any, model: Any, seed: int) -> Iterator[tuple[str, Any]]:
    """(attack, model) after `STEPS` steps of relearning on half of the forgotten, and at `BITS` bits a weight."""
    kinds: Any = ATTACKS[problem.modality]
    for _, changed in kinds["relearn"]().models(problem, model, [STEPS], seed):
        yield "relearn", changed
    yield "quantize", kinds["quantize"]().attacked(model, BITS, seed)


@dataclasses.dataclass
class Reader:
    """What is read of every model of one problem."""

    problem: Any
    limit: int
    inside: bool
    keep: tuple[str, ...] = ()
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    prompts: Any = None  # of the forget items, from the first model read

    def items(self, model: Any) -> dict[str, dict[str, np.ndarray]]:
        """Split → column → an entry an item."""
        text = self.problem.modality == "text"
        quiet: dict[str, Any] = {} if text else {"progress": False}
        measured = measure(self.problem, model, self.limit, **quiet)
        self.missing |= getattr(measured, "missing", {})
        forget = measured.split("forget")
        self.prompts = forget.index.to_numpy() if text else forget["prompt"].to_numpy()
        left_out = [c for c in LEFT_OUT if c not in self.keep]
        found = {
            split: {c: v for c, v in table.items() if c not in left_out and not _empty(v)}
            for split, table in arrays(measured.items).items()
        }
        if self.inside:
            found["forget"] |= self.from_within(model)
        return found

    def from_within(self, model: Any) -> dict[str, np.ndarray]:
        """`depth`, `lens`, `probe` of the forget items, of the weights alone; what can't be read is left out."""
        from unlearnkit.attribution.text import inside

        bare, out = inside.weights_alone(model), {}
        place = {qa.id: i for i, qa in enumerate(forgotten(self.problem))}
        for name, read in (("depth", inside.depth), ("lens", inside.lens), ("probe", inside.probe)):
            try:
                values = read(self.problem, bare, 0)
            except UnlearnkitError:
                continue
            if len(values) == len(place):
                out[name] = np.array([values[place[i]] if i in place else np.nan for i in self.prompts])
        return out

    def unshown(self) -> np.ndarray:
        """Which forget items an attacker by relearning was not shown."""
        if self.problem.modality == "text":
            asked = {qa.id for qa in halves(forgotten(self.problem))[1]}
        else:
            asked = set(ATTACKS["image"]["relearn"]().shown(self.problem)[3])  # type: ignore[attr-defined]
        return np.array([item in asked for item in self.prompts])


def _empty(values: np.ndarray) -> bool:
    return bool(np.isnan(np.asarray(values, float)).all())
