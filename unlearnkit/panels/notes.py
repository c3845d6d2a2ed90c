"""A reader's tags and notes on outputs, in a CSV file that is whole after every change and can be taken up again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from unlearnkit.errors import UnlearnkitError
from unlearnkit.panels.outputs import KINDS, Outputs, fingerprint, same_picture
from unlearnkit.panels.review_file import COLUMNS, as_csv, parsed
from unlearnkit.runs.files import now, write

MOST = 20_000_000  # bytes of a file that is read
LONGEST = 2000  # characters of a note
WORD = re.compile(r"[^\W_][\w -]{0,29}")


class Notes:
    """Tags and notes by output; with a path, on the disk after every change.

    Attributes:
        tags: id → its tags; notes: id → what a reader wrote.

    Raises:
        UnlearnkitError: a file that can't be read, isn't one of these, or belongs to other outputs.
    """

    def __init__(self, outputs: Outputs, path: str | Path | None = None) -> None:
        self.outputs, self.path = outputs, None if path is None else Path(path)
        self.tags: dict[str, tuple[str, ...]] = {}
        self.notes: dict[str, str] = {}
        self._when: dict[str, str] = {}
        self._pixels = {key: fingerprint(picture) for key, picture in outputs.pictures.items()}
        self._seen = self._on_disk()
        if self._seen is not None and self.path is not None:
            self._take(parsed(self._seen, self.path))

    @property
    def vocabulary(self) -> list[str]:
        """The fixed kinds, and those of the reader's own that are in use."""
        own = {tag for tags in self.tags.values() for tag in tags} - set(KINDS)
        return [*KINDS, *sorted(own)]

    def tag(self, ids: Iterable[str], tag: str, on: bool = True) -> None:
        """Put a tag on outputs, or take it off.

        Raises:
            UnlearnkitError: a tag of one's own that is no short word; an unknown output; a file that can't be written.
        """
        check_tag(tag)
        changed = {key: tuple(t for t in self.tags.get(key, ()) if t != tag) + (tag,) * on for key in ids}
        self._change({key: (tags, self.notes.get(key, "")) for key, tags in changed.items()})

    def note(self, key: str, text: str) -> None:
        """Write down something about an output.

        Raises:
            UnlearnkitError: too long; an unknown output; a file that can't be written.
        """
        if len(text) > LONGEST:
            raise UnlearnkitError(f"the note has {len(text)} characters; {LONGEST} are kept, so shorten it.")
        self._change({key: (self.tags.get(key, ()), text)})

    def table(self) -> pd.DataFrame:
        """Every output with its tags and notes, the columns of the file (`COLUMNS`, index `id`)."""
        table = self.outputs.table.copy()
        for column, known in (("pixels", self._pixels), ("note", self.notes), ("when", self._when)):
            table[column] = [known.get(key, "") for key in table.index]
        table["tags"] = ["; ".join(self.tags.get(key, ())) for key in table.index]
        return table[COLUMNS[1:]]

    def csv(self) -> bytes:
        """The file's content."""
        return as_csv(self.table().itertuples())

    def found(
        self, search: str = "", who: str | None = None, split: str | None = None, tag: str | None = None,
        leaks: bool = False, cluster: int | None = None, clusters: pd.Series | None = None,
    ) -> pd.Index:  # fmt: skip
        """The ids of the outputs that pass all filters, in their order.

        Args:
            search: words in prompt, true answer, output or note, whatever the case.
            who, split: of which model, of which split.
            tag: that a reader gave it; "" for those without a tag.
            leaks: only those that leak, by the rule.
            cluster: its number in `clusters` (id → number).
        """
        table, wanted = self.table(), search.lower().strip()
        said = table[["prompt", "truth", "output", "note"]].agg("\n".join, axis=1).str.lower()
        keep = said.str.contains(wanted, regex=False) & (table["leaks"] | (not leaks))
        for chosen, column in ((who, table["who"]), (split, table["split"]), (cluster, clusters)):
            keep &= True if chosen is None else column == chosen
        if tag is not None:
            tags = [self.tags.get(key, ()) for key in table.index]
            keep &= pd.Series([tag in t if tag else not t for t in tags], table.index)
        return table.index[keep]

    def _change(self, changed: Mapping[str, tuple[tuple[str, ...], str]]) -> None:
        unknown = [key for key in changed if key not in self.outputs.table.index]
        if unknown:
            raise UnlearnkitError(f"there is no output '{unknown[0]}' in this review.")
        if self._on_disk() != self._seen:
            raise UnlearnkitError(
                f"{self.path} was changed by someone else meanwhile, so nothing was written; open the review again."
            )
        before = dict(self.tags), dict(self.notes), dict(self._when)
        for key, (tags, note) in changed.items():
            self.tags[key], self.notes[key], self._when[key] = tags, note, now()
        if self.path is None:
            return
        content = self.csv()
        try:
            write(self.path, content)
        except BaseException:
            self.tags, self.notes, self._when = before
            raise
        self._seen = content

    def _on_disk(self) -> bytes | None:
        if self.path is None:
            return None
        try:
            if self.path.exists() and self.path.stat().st_size > MOST:
                raise UnlearnkitError(
                    f"{self.path} has more than {MOST // 10**6} MB, so it is no review; give another."
                )
            return self.path.read_bytes() if self.path.exists() else None
        except OSError as error:
            raise UnlearnkitError(f"{self.path} can't be read ({error.strerror}); give another file.") from error

    def _take(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Tags and notes of a file's rows, which must be on these very outputs."""
        others = [row["id"] for row in rows if not self._same(row)]
        if others:
            raise UnlearnkitError(
                f"{self.path} is a review of other outputs ({len(others)} of its {len(rows)} rows differ, the first is "
                f"{others[0][:80]!r}); give another file, or none to begin anew."
            )
        for row in rows:
            tags = tuple(tag for tag in row["tags"].split("; ") if tag)
            for tag in tags:
                check_tag(tag)
            if tags or row["note"]:
                self.tags[row["id"]], self.notes[row["id"]] = tags, row["note"][:LONGEST]
                self._when[row["id"]] = row["when"]

    def _same(self, row: Mapping[str, str]) -> bool:
        if row["id"] not in self.outputs.table.index:
            return False
        mine = self.outputs.table.loc[row["id"]]
        if row["prompt"] != mine["prompt"]:
            return False
        if self._pixels:
            return same_picture(row["pixels"], self._pixels[row["id"]])
        return row["output"] == mine["output"]


def check_tag(tag: str) -> None:
    """Raise UnlearnkitError unless a tag is a short word or two."""
    if not WORD.fullmatch(tag) or tag != tag.strip():
        raise UnlearnkitError(
            f"tag {tag[:40]!r} is not possible; take up to 30 letters, digits, spaces and hyphens, a letter first."
        )
