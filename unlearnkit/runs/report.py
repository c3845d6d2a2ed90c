"""The report: one self-contained page of all finished runs, and its numbers as CSV and JSON beside it.

On the page: leaderboards, verdicts of the claims, method cards, figures, tables, tracebacks. Strangers' text stays
text; the one script is ours, named by its hash in the page's policy, and only sorts tables."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearnkit.claims import Verdict, as_table, verdicts
from unlearnkit.errors import UnlearnkitError
from unlearnkit.runs.files import now, write
from unlearnkit.runs.record import Record, read_runs
from unlearnkit.runs.report_parts import cell, shown_board, shown_cards

if TYPE_CHECKING:
    import pandas as pd

    from unlearnkit.benchmark.boards import Board

ROWS = 500  # of a table; the rest is in its file
TEMPLATE, SCRIPT = (Path(__file__).with_name(f"report.{kind}") for kind in ("html", "js"))
BOARDS = 12  # on the page, those with most methods first; all are in leaderboard.csv


def write_report(runs: Path | str, out: Path) -> Path:
    """Write the page of all finished runs; beside it ``leaderboard.csv``, ``ledger.csv`` and ``results.json``.

    Raises:
        UnlearnkitError: there are none, one can't be read, or `out` can't be written to.
    """
    from unlearnkit.benchmark import boards, results

    found, judged, made = _found(runs), verdicts(runs), now()
    complete = [record for record in found if record.status["state"] == "complete"]
    whole = _boards(complete)
    page = _page(found, judged, whole, made)
    if out.is_dir():
        raise UnlearnkitError(f"{out} is a folder; give --out a file such as {out / 'report.html'}.")
    out = out.absolute()
    handed_in = json.dumps(results.results_of(complete, judged, made), indent=0, allow_nan=False)
    write(out.with_name("leaderboard.csv"), boards.as_table(whole).to_csv(index=False).encode())
    write(out.with_name("ledger.csv"), as_table(judged).to_csv(index=False).encode())
    write(out.with_name("results.json"), handed_in.encode() + b"\n")
    write(out, page.encode())
    return out


def render(runs: Path | str) -> str:
    """The page as HTML: nothing from outside, no script but ours, every text escaped.

    Raises:
        UnlearnkitError: there is no finished run, or one can't be read.
    """
    found = _found(runs)
    complete = [record for record in found if record.status["state"] == "complete"]
    return _page(found, verdicts(runs), _boards(complete), now())


def _found(runs: Path | str) -> list[Record]:
    found = [record for state in ("complete", "failed") for record in read_runs(runs, state=state)]
    if not found:
        raise UnlearnkitError(f"there is no finished run in {runs}; make some with `unlearnkit run --all`.")
    return sorted(found, key=lambda record: (record.notebook, str(record.status.get("started"))))


def _boards(complete: Sequence[Record]) -> list[Board]:
    from unlearnkit.benchmark import boards, rows_of_runs

    return [*boards.boards_of_runs(rows_of_runs(complete)), *boards.shipped_boards()]


def _page(found: Sequence[Record], judged: Sequence[Verdict], boards: Sequence[Board], made: str) -> str:
    from jinja2 import Environment
    from markupsafe import Markup

    states = [record.status["state"] for record in found]
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATE.read_text("utf-8"))
    shown = [_shown(record, number) for number, record in enumerate(found, 1)]
    ids = {run["digest"]: run["id"] for run in shown}
    cards = shown_cards(boards, judged)
    script = SCRIPT.read_text("utf-8")
    return page.render(
        script=Markup(script),  # the one text that is not escaped: a file of the package
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        boards=[shown_board(board, {card["name"]: card["id"] for card in cards if card["kind"] == board.branch}, ids)
                for board in boards[:BOARDS]],
        cards=cards,
        verdicts=_judged(judged, ids),
        runs=shown,
        complete=states.count("complete"),
        failed=states.count("failed"),
        made=made[:16].replace("T", " "),
    )  # fmt: skip


def _judged(found: Sequence[Verdict], ids: Mapping[str, str]) -> list[dict[str, Any]]:
    """Verdicts as text; the runs they come from as (digest, anchor in this page)."""
    return [
        {
            "claim": v.claim,
            "verdict": v.verdict,
            "effect": cell(v.effect) if v.runs else "–",
            "interval": f"{cell(v.low)} to {cell(v.high)}" if v.runs else "–",
            "margin": cell(v.claim.effect.margin),
            "n": cell(v.n or None),
            "seeds": cell(v.seeds or None),
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
        "facts": {name: cell(value) for name, value in facts.items()},
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
    rows = [[cell(value) for value in row] for row in head.itertuples(index=False, name=None)]
    return {"columns": list(map(str, filled.columns)), "numeric": numeric, "rows": rows, "of": len(frame)}
