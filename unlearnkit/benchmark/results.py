"""A results file: what runs measured, in a form that can be handed in, read by other programs, and checked.

The models below are the format; ``python -m unlearnkit.benchmark.results`` writes ``results.schema.json`` from them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from unlearnkit.benchmark.digests import rows_digest
from unlearnkit.benchmark.rows import COLUMNS, rows_of_runs

if TYPE_CHECKING:
    from unlearnkit.claims import Verdict
    from unlearnkit.runs.record import Record

FORMAT = "unlearnkit-results/1"
SCHEMA = Path(__file__).with_name("results.schema.json")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]  # of a folder: no separator, no ".."
Label = Annotated[str, Field(pattern=r"^[\w][\w .,:;+=()·×/-]{0,99}$")]  # of a method, a metric: no HTML
Text = Annotated[str, Field(max_length=2000)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Scalar = bool | int | FiniteFloat | Text | None


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RunEntry(_Entry):
    """One complete run, with the digests of its files."""

    notebook: Name
    run: Name
    profile: Name
    seed: int | None
    started: Text
    seconds: Annotated[FiniteFloat, Field(ge=0)]
    values: dict[Name, Scalar]
    versions: dict[Name, Text]
    config_sha256: Sha256
    scores_sha256: Sha256 | None
    code_sha256: Sha256 | None


class RowEntry(_Entry):
    """One measured number; the columns are those of `unlearnkit.benchmark.COLUMNS`."""

    notebook: Name
    run: Name
    branch: Literal["text", "image"]
    world: Text
    forget: Text
    method: Label
    settings: Text
    seed: int
    key: Label
    value: FiniteFloat | None
    original: FiniteFloat | None
    oracle: FiniteFloat | None
    gap: Annotated[FiniteFloat, Field(ge=0)] | None
    floor: Annotated[FiniteFloat, Field(ge=0)] | None
    relative: FiniteFloat | None
    before: FiniteFloat | None
    budget: FiniteFloat | None
    n: Annotated[int, Field(ge=0)] | None
    seeds: Annotated[int, Field(ge=0)] | None
    why: Text


class ClaimEntry(_Entry):
    """A claim of the ledger and what the runs say about it."""

    claim: Name
    branch: Literal["text", "image"]
    verdict: Literal["supported", "contradicted", "undecided", "not measurable"]
    effect: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None
    margin: FiniteFloat
    n: Annotated[int, Field(ge=0)]
    seeds: Annotated[int, Field(ge=0)]
    runs: list[Name]
    why: Text


class Results(_Entry):
    """The whole file. `rows_digest` is `rows_digest` of all rows."""

    format: Literal["unlearnkit-results/1"]
    made: Text
    unlearnkit: Text
    runs: Annotated[list[RunEntry], Field(max_length=100_000)]
    rows: Annotated[list[RowEntry], Field(max_length=1_000_000)]
    rows_digest: Digest
    claims: list[ClaimEntry]

    def about(self) -> str:
        """What is in it, in a phrase."""
        methods = len({(row.branch, row.method) for row in self.rows})
        return f"{len(self.runs)} runs, {len(self.rows)} rows of {methods} methods, {len(self.claims)} claims"


def results_of(records: Sequence[Record], verdicts: Sequence[Verdict] = (), made: str = "") -> dict[str, Any]:
    """The results of complete runs as plain JSON values.

    Raises:
        UnlearnkitError: a run can't be read.
    """
    from unlearnkit import __version__

    rows = rows_of_runs(records)
    entries = [{name: _plain(row[name], name) for name in RowEntry.model_fields} for row in rows.to_dict("records")]
    return {
        "format": FORMAT, "made": made, "unlearnkit": __version__,
        "runs": [run_entry(record) for record in records], "rows": entries,
        "rows_digest": rows_digest(rows) if len(rows) else rows_digest(rows.reindex(columns=COLUMNS)),
        "claims": [claim_entry(verdict) for verdict in verdicts],
    }  # fmt: skip


def claim_entry(v: Verdict) -> dict[str, Any]:
    """A verdict as it stands in a results file."""
    return {
        "claim": v.claim.id, "branch": v.claim.branch, "verdict": v.verdict, "effect": _plain(v.effect),
        "low": _plain(v.low), "high": _plain(v.high), "margin": float(v.claim.effect.margin), "n": v.n,
        "seeds": v.seeds, "runs": list(v.runs), "why": v.why[:2000],
    }  # fmt: skip


def run_entry(record: Record) -> dict[str, Any]:
    """A run as it stands in a results file."""
    config, status = record.config, record.status
    return {
        "notebook": record.notebook, "run": record.folder.name, "profile": str(config.get("profile")),
        "seed": config.get("seed"), "started": str(status.get("started")), "seconds": float(status.get("seconds") or 0),
        "values": dict(config.get("values", {})), "versions": dict(config.get("versions", {})),
        **digests(record.folder),
    }  # fmt: skip


def digests(folder: Path) -> dict[str, str | None]:
    """SHA-256 of a run's config, of its scores, and of the code its notebook executed."""
    code = None
    if (folder / "executed.ipynb").is_file():
        cells = json.loads((folder / "executed.ipynb").read_text("utf-8"))["cells"]
        words = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        code = hashlib.sha256(json.dumps(words).encode()).hexdigest()
    scores = folder / "scores.csv"
    return {
        "config_sha256": hashlib.sha256((folder / "config.json").read_bytes()).hexdigest(),
        "scores_sha256": hashlib.sha256(scores.read_bytes()).hexdigest() if scores.is_file() else None,
        "code_sha256": code,
    }


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a results file."""
    made = Results.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:unlearnkit:results:1", **made}


def _plain(value: Any, name: str = "") -> Any:
    """A cell as JSON has it; counts are whole."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return int(value) if name in ("seed", "n", "seeds") else value if isinstance(value, str) else float(value)


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(schema(), indent=1) + "\n", "utf-8")
