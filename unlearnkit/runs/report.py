"""One self-contained page of all finished runs: verdicts of the claims, index, figures, tables, tracebacks.

Strangers' text stays text."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearnkit.claims import Verdict, verdicts
from unlearnkit.errors import UnlearnkitError
from unlearnkit.runs.files import now, write
from unlearnkit.runs.record import Record, read_runs

if TYPE_CHECKING:
    import pandas as pd

ROWS = 500  # of a table; the rest is in its file
TEMPLATE = Path(__file__).with_name("report.html")


def write_report(runs: Path | str, out: Path) -> Path:
    """Write the page of all finished runs of a folder.

    Raises:
        UnlearnkitError: there are none, one can't be read, or `out` can't be written to.
    """
    page = render(runs)
    if out.is_dir():
        raise UnlearnkitError(f"{out} is a folder; give --out a file such as {out / 'report.html'}.")
    write(out.absolute(), page.encode())
    return out


def render(runs: Path | str) -> str:
    """The page as HTML: no script, nothing from outside, every text escaped.

    Raises:
        UnlearnkitError: there is no finished run, or one can't be read.
    """
    from jinja2 import Environment

    found = [record for state in ("complete", "failed") for record in read_runs(runs, state=state)]
    if not found:
        raise UnlearnkitError(f"there is no finished run in {runs}; make some with `unlearnkit run --all`.")
    found.sort(key=lambda record: (record.notebook, str(record.status.get("started"))))
    states = [record.status["state"] for record in found]
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATE.read_text("utf-8"))
    shown = [_shown(record, number) for number, record in enumerate(found, 1)]
    return page.render(
        verdicts=_judged(verdicts(runs), {run["digest"]: run["id"] for run in shown}),
        runs=shown,
        complete=states.count("complete"),
        failed=states.count("failed"),
        made=now()[:16].replace("T", " "),
    )


def _judged(found: Sequence[Verdict], ids: Mapping[str, str]) -> list[dict[str, Any]]:
    """Verdicts as text; the runs they come from as (digest, anchor in this page)."""
    return [
        {
            "claim": v.claim,
            "verdict": v.verdict,
            "effect": _cell(v.effect) if v.runs else "–",
            "interval": f"{_cell(v.low)} to {_cell(v.high)}" if v.runs else "–",
            "margin": _cell(v.claim.effect.margin),
            "n": _cell(v.n or None),
            "seeds": _cell(v.seeds or None),
            "runs": [(run, ids.get(run)) for run in v.runs],
            "why": v.why,
        }
        for v in found
    ]


def _shown(record: Record, number: int) -> dict[str, Any]:
    config, status, digest = record.config, record.status, record.folder.name
    device = config.get("device") or {}
    facts = {
        "profile": config.get("profile"),
        "seed": config.get("seed"),
        "started": str(status.get("started"))[:16].replace("T", " "),
        "seconds": status.get("seconds"),
        "peak memory, MB": status.get("peak_memory_mb"),
        "device": " ".join(str(device[key]) for key in ("kind", "name") if device.get(key)) or None,
    }
    return {
        "id": f"run-{number}-{re.sub(r'[^A-Za-z0-9_-]', '', digest)}",
        "notebook": record.notebook,
        "digest": digest,
        "state": status["state"],
        "facts": {name: _cell(value) for name, value in facts.items()},
        "traceback": status.get("traceback"),
        "figures": list(_figures(record)),
        "table": _table(record.scores),
        "values": {name: "None" if value is None else str(value) for name, value in config.get("values", {}).items()},
        "versions": config.get("versions", {}),
    }


def _figures(record: Record) -> Iterator[dict[str, str]]:
    from PIL import Image

    for path in record.figures:
        try:
            with Image.open(path, formats=["PNG"]) as picture:
                picture.load()
                alt = str(picture.info.get("Description") or path.stem.replace("_", " "))
                width = picture.width
        except (OSError, ValueError, SyntaxError) as error:
            raise UnlearnkitError(f"figure {path} is not a PNG picture ({error}); run its notebook again.") from error
        data = base64.b64encode(path.read_bytes()).decode()
        yield {"source": f"data:image/png;base64,{data}", "alt": alt, "name": path.stem, "width": str(width)}


def _table(frame: pd.DataFrame) -> dict[str, Any] | None:
    """Cells as text, numbers apart so that they can be set right; columns without any value are left out."""
    if frame.empty:
        return None
    filled = frame.dropna(axis="columns", how="all")
    head = filled.head(ROWS)
    numeric = [kind.kind in "iuf" for kind in filled.dtypes]
    rows = [[_cell(value) for value in row] for row in head.itertuples(index=False, name=None)]
    return {"columns": list(map(str, filled.columns)), "numeric": numeric, "rows": rows, "of": len(frame)}


def _cell(value: Any) -> str:
    """Four significant digits for a number that isn't whole, a dash for what is missing."""
    if value is None or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
