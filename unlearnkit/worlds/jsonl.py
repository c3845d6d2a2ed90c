"""Question–answer files of one's own: TOFU's JSONL columns, read with line numbers and written whole."""

from __future__ import annotations

import json
import os
import random
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from unlearnkit.errors import UnlearnkitError
from unlearnkit.worlds.authors import REQUESTS
from unlearnkit.worlds.records import GENERAL, QA, TextWorld

SUBJECT_COLUMNS = ("author", "subject")
OWN = {f.name for f in fields(QA)}
LISTS = ("phrasings", "paraphrased_questions", "perturbed_answers", "options", "sources")
_NAME = re.compile(r"\b[^\W\d_a-z][\w'’-]+(?: (?:[a-z]{1,3} )?[^\W\d_a-z][\w'’-]+)+")
RECURRING = 3  # records a name must occur in to count as their subject


def read_jsonl(path: str | Path) -> list[QA]:
    """Records of a JSON Lines file (or of a file that holds one JSON list).

    Columns: `question`, `answer`; optional TOFU's `paraphrased_question`, `paraphrased_answer`, `perturbed_answer`,
    `option1`…; the subject as `author` or `subject`; `entity` is the subject, or, in a file whose questions mostly
    lack it, the value asked for. Columns of `write_jsonl` come back as they were. Without a subject
    column, records are grouped by the name that recurs in them; a record without one goes with the record before it.

    Raises:
        UnlearnkitError: no such file, not UTF-8, a broken line, a missing or ill-typed column, a record that is
            there twice (with line number).
    """
    path = Path(path)
    rows = _rows(path)
    if not rows:
        raise UnlearnkitError(f"{path} holds no records; give one JSON object a line with 'question' and 'answer'.")
    # an `entity` that most questions don't name is what they ask for, not whom they are about
    named = [
        str(row["entity"]) in str(row.get("question")) for _, row in rows if isinstance(row, dict) and row.get("entity")
    ]
    asked = sum(named) < len(named) / 2
    items = [_record(path, number, row, asked) for number, row in rows]
    seen: dict[str, int] = {}
    for (number, _), qa in zip(rows, items, strict=True):
        if qa.id in seen:
            raise UnlearnkitError(f"{path}, line {number}: id '{qa.id}' was used on line {seen[qa.id]}; give another.")
        seen[qa.id] = number
    said: dict[tuple[str, str, str], int] = {}
    for (number, _), qa in zip(rows, items, strict=True):
        first = said.setdefault((qa.entity, qa.question, qa.answer), number)
        if first != number:
            raise UnlearnkitError(f"{path}, line {number}: the record of line {first} again; take one of them out.")
    if all(not qa.entity for qa in items):
        items = [replace(qa, entity=name) for qa, name in zip(items, _subjects(items), strict=True)]
    return [qa if qa.entity else replace(qa, entity=qa.id) for qa in items]


def write_jsonl(items: Iterable[QA], path: str | Path) -> Path:
    """Write records with all their fields and TOFU's column names beside them; whole or not at all."""
    path = Path(path)
    lines = []
    for qa in items:
        row: dict[str, Any] = {key: value for key, value in asdict(qa).items() if value}
        row |= {"subject": qa.entity, "perturbed_answer": list(qa.perturbed_answers)}
        if qa.paraphrased_questions:
            row["paraphrased_question"] = qa.paraphrased_questions[0]
        lines.append(json.dumps(row, ensure_ascii=False))
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in lines))
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def world_from_jsonl(
    path: str | Path, holdout_fraction: float = 0.05, seed: int = 0, requested: Sequence[str] = ()
) -> TextWorld:
    """A world from a file of one's own; entities in the order of the file.

    forget01/05/10 are the last 1, 5, 10% of the entities (at least one), as in TOFU; the holdout is drawn from the
    others, never from `requested`. Records of the entity "general" are facts of the real world: trained in every
    model, never forgotten.

    Raises:
        UnlearnkitError: what `read_jsonl` raises; fewer than two entities; a fraction outside [0, 0.5].
    """
    if not isinstance(holdout_fraction, int | float) or not 0 <= holdout_fraction <= 0.5:
        raise UnlearnkitError(f"holdout_fraction = {holdout_fraction!r} is not possible; give a share from 0 to 0.5.")
    items = read_jsonl(path)
    names = list(dict.fromkeys(qa.entity for qa in items if qa.entity != GENERAL))
    if len(names) < 2:
        raise UnlearnkitError(
            f"{path}: all {len(items)} records belong to one entity ('{items[0].entity}'), so nothing would be "
            "retained; name at least two in a column 'subject'."
        )
    count = {request: max(1, round(share * len(names))) for request, share in REQUESTS.items()}
    keep = max(count.values())
    requests = {request: tuple(names[-n:]) for request, n in count.items()}
    others = [name for name in names[:-keep] if name not in requested]
    held = min(max(1, round(holdout_fraction * len(names))) if holdout_fraction else 0, max(0, len(others) - 1))
    unseen = sorted(random.Random(f"{seed} holdout").sample(others, held), key=names.index)
    entities = tuple(n for n in names if n not in unseen)
    return TextWorld(Path(path).stem, tuple(items), entities, tuple(unseen), requests, _links(items, names))


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnlearnkitError(
            f"{path} can't be read: {error.strerror or error}; give the path of a JSONL file."
        ) from error
    if data.lstrip()[:1] == b"[":
        try:
            return list(enumerate(json.loads(data), 1))
        except ValueError as error:
            if not _is_json(data.splitlines()[0]):  # else a list a line, which is refused below
                raise UnlearnkitError(f"{path} is not a JSON list: {error}; write one JSON object a line.") from error
    rows = []
    for number, raw in enumerate(data.splitlines(), 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UnlearnkitError(
                f"{path}, line {number}: not UTF-8 (byte {error.start}); save the file as UTF-8."
            ) from error
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UnlearnkitError(
                f"{path}, line {number}: not JSON ({error}); write one JSON object a line."
            ) from error
        rows.append((number, row))
    return rows


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _record(path: Path, number: int, row: Any, entity_is_value: bool) -> QA:
    where = f"{path}, line {number}"
    if not isinstance(row, dict):
        raise UnlearnkitError(f"{where}: a {type(row).__name__} instead of an object with 'question' and 'answer'.")
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise UnlearnkitError(f"{where}: {half} is half a character; write the whole one, or leave it out.") from error
    for column in ("question", "answer"):
        if column not in row:
            raise UnlearnkitError(f"{where}: no column '{column}' (it has {', '.join(map(repr, row)) or 'none'}).")
        if not isinstance(row[column], str) or not row[column].strip():
            raise UnlearnkitError(f"{where}: '{column}' must be a text that is not empty, not {row[column]!r}.")
    question, answer = row["question"], row["answer"]
    values: dict[str, Any] = {k: v for k, v in row.items() if k in OWN and v is not None}
    values.setdefault("id", f"line{number:05d}")
    values["id"] = str(values["id"])
    if "paraphrased_questions" not in values and row.get("paraphrased_question"):
        values["paraphrased_questions"] = row["paraphrased_question"]
    wrong = row.get("perturbed_answer") or [
        v for k, v in sorted(row.items()) if re.fullmatch(r"option\d+", k) and v != answer
    ]
    if "perturbed_answers" not in values and wrong:
        values["perturbed_answers"] = wrong
        values.setdefault("paraphrased_answer", answer)
    for column in LISTS:
        if column in values:
            values[column] = _texts(where, column, values[column])
    subject = next((row[c] for c in SUBJECT_COLUMNS if row.get(c)), None)
    span = str(row.get("entity") or "")
    if entity_is_value and subject is None:
        values["entity"] = ""
        if span in answer and span not in question:
            values.setdefault("value", span)
    else:
        values["entity"] = str(subject or span)
    for column in ("kind", "value", "paraphrased_answer", "language", "relation"):
        if column in values and not isinstance(values[column], str):
            raise UnlearnkitError(f"{where}: '{column}' must be a text, not {values[column]!r}.")
    if values.get("value") and values["value"].lower() not in answer.lower():
        raise UnlearnkitError(
            f"{where}: the value {values['value']!r} is not in the answer {answer!r}, so that no answer could count as "
            "right; take words of the answer, or leave it out."
        )
    return QA(**values)


def _texts(where: str, column: str, value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
        raise UnlearnkitError(f"{where}: '{column}' must be a text or a list of texts, not {value!r}.")
    return tuple(texts)


def _subjects(items: Sequence[QA]) -> list[str]:
    """A subject a record: the most frequent recurring name in it, else the subject of the record before."""
    found = [{_bare(name) for name in _NAME.findall(f"{qa.question} {qa.answer}")} for qa in items]
    count = Counter(name for names in found for name in names)
    best = [max(sorted(names), key=lambda name: count[name], default="") for names in found]
    size = Counter(best)
    out: list[str] = []
    for name in best:
        out.append(name if size[name] >= RECURRING and name else (out[-1] if out else ""))
    return out


def _bare(name: str) -> str:
    """Without a possessive, and without a question word that starts the sentence."""
    name = re.sub(r"['’]s?$", "", name)
    return re.sub(r"^(?:What|Who|Which|Where|When|How|Did|Does|Is|Was|Has|Can|Could|In|The|Are|Yes|No) ", "", name)


def _links(items: Sequence[QA], names: Sequence[str]) -> frozenset[tuple[str, str]]:
    """Entities whose records name another entity."""
    return frozenset(
        (qa.entity, n) for qa in items for n in names if n != qa.entity and n in f"{qa.question} {qa.answer}"
    )
