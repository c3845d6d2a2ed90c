"""The file of a review: CSV that a spreadsheet can open and that a hostile answer can't turn against its reader."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from unlearnkit.errors import UnlearnkitError

COLUMNS = ["id", "who", "split", "item", "prompt", "truth", "output", "pixels", "leaks", "rule", "tags", "note", "when"]
FORMULA = "=+-@\t\r\n＝＋－＠"  # what a spreadsheet takes for the beginning of a formula


def read_review(path: str | Path) -> pd.DataFrame:
    """A file that a review panel wrote: its columns as text (`leaks` as bool), index `id`.

    Raises:
        UnlearnkitError: no such file, or none of these.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnlearnkitError(f"{path} can't be read ({error.strerror}); give a file of a review panel.") from error
    table = pd.DataFrame(parsed(content, path), columns=COLUMNS).set_index("id")
    return table.assign(leaks=table["leaks"] == "True")


def as_csv(rows: Iterable[Sequence[object]]) -> bytes:
    """Rows (`COLUMNS`) as UTF-8, every cell quoted, and none that a spreadsheet would take for a formula."""
    out = io.StringIO()
    lines = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    lines.writerow(COLUMNS)
    lines.writerows([escaped(str(cell)) for cell in row] for row in rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def escaped(cell: str) -> str:
    """A cell that no spreadsheet runs: an apostrophe in front of what begins like a formula (or with one already)."""
    first = cell.lstrip(" ")[:1]
    return "'" + cell if first and first in FORMULA + "'" else cell


def unescaped(cell: str) -> str:
    """A cell as it was before `escaped`."""
    return cell[1:] if cell.startswith("'") else cell


def parsed(content: bytes, path: Path) -> list[dict[str, str]]:
    """The rows of a file, column → cell; raises UnlearnkitError when it isn't one of these."""
    refused = f"{path} is not a file of a review panel (%s); give another file."
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig", "surrogatepass"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UnlearnkitError(refused % str(error).splitlines()[0]) from error
    if not rows or rows[0] != COLUMNS:
        raise UnlearnkitError(refused % "its first line is another")
    broken = [k for k, row in enumerate(rows, 1) if len(row) != len(COLUMNS)]
    if broken:
        raise UnlearnkitError(refused % f"record {broken[0]} has {len(rows[broken[0] - 1])} cells, not {len(COLUMNS)}")
    read = [dict(zip(COLUMNS, map(unescaped, row), strict=True)) for row in rows[1:]]
    if len({row["id"] for row in read}) < len(read):
        raise UnlearnkitError(refused % "it has an output twice")
    return read
