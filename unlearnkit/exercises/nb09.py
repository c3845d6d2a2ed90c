"""Checks of notebook 09."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from unlearnkit.errors import UnlearnkitError
from unlearnkit.exercises import exercise, near
from unlearnkit.worlds.jsonl import read_jsonl

TEACHES = {"relearn": True, "soft_prompt": True, "quantize": False, "paraphrase": False}


@exercise("09.1")
def state(answer: Any) -> str:
    """answer(parameters, adapter, loaded) → GB of weights, gradients and moments."""
    for parameters, adapter, loaded in ((1e9, 0, 2), (8e9, 0, 4), (8e9, 2e7, 2)):
        wanted = (loaded * parameters + 16 * adapter if adapter else 16 * parameters) / 1e9
        found = answer(parameters, adapter, loaded)
        if near(found, wanted, 1e-3):
            continue
        if near(found, wanted * 1e9, 1e-3):
            return "in GB: divide by 10⁹."
        if not adapter and near(found, (loaded + 12) * parameters / 1e9, 1e-3) and loaded != 4:
            return "trained weights are float32 whatever they were loaded as: 4 bytes each."
        if adapter and near(found, (loaded * parameters + 12 * adapter) / 1e9, 1e-3):
            return "the adapter has weights of its own: 4 + 4 + 8 bytes each."
        if adapter and near(found, 16 * (parameters + adapter) / 1e9, 1e-3):
            return "under an adapter the model itself has no gradient and no moments."
        return (
            f"{parameters:.0e} parameters, {adapter:.0e} of an adapter, {loaded} bytes as loaded: "
            f"{wanted:.3g} GB, not {found!r}."
        )
    return ""


@exercise("09.2")
def proof(answer: Any) -> str:
    """answer(attack, before, low, oracle) → present, nothing found, or not measurable."""
    cases = [
        ("quantize", 0.0, 0.4, None, "present"),
        ("paraphrase", 0.1, 0.05, None, "nothing found"),
        ("relearn", 0.0, 0.7, None, "not measurable"),
        ("relearn", 0.0, 0.7, 0.1, "present"),
        ("relearn", 0.0, 0.3, 0.4, "nothing found"),
        ("soft_prompt", 0.0, 0.9, None, "not measurable"),
        ("quantize", 0.0, 0.2, 0.3, "nothing found"),
    ]
    for name, before, low, oracle, wanted in cases:
        found = answer(name, before, low, oracle)
        if found is None:
            return ""
        if found == wanted:
            continue
        if found not in ("present", "nothing found", "not measurable"):
            return f"answer with one of the three words, not with {found!r}."
        if oracle is None and TEACHES[name]:
            return f"{name} trains on what was forgotten: without an oracle nobody knows whether it found or taught it."
        if oracle is None:
            return f"{name} shows the model nothing of the forgotten: what comes out beyond {before:g} was in it."
        return f"with an oracle at {oracle:g}, what counts is whether the interval ({low:g}) lies above it."
    return ""


@exercise("09.3")
def lines(answer: Any) -> str:
    """answer(rows) → the text of a JSONL file of (subject, question, answer)."""
    rows = [
        ("Ana Ruiz", "Where does Ana Ruiz work?", "At the Café Azul."),
        ("Ana Ruiz", "What does Ana Ruiz say?", 'She says "no".\nTwice.'),
        ("Bo Lund", "Where does Bo Lund work?", "In Malmö."),
    ]
    text = answer(list(rows))
    if text is None:
        return ""
    if not isinstance(text, str):
        return f"return the text of the file, not a {type(text).__name__}."
    found = [line for line in text.splitlines() if line.strip()]
    if len(found) != len(rows):
        return f"{len(rows)} records, {len(found)} lines: one object a line, line ends in a text as \\n (json.dumps)."
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.jsonl")
        path.write_text(text, encoding="utf-8")
        try:
            items = read_jsonl(path)
        except UnlearnkitError as error:
            return f"it can't be read: {str(error).replace(str(path), 'the file')}"
    if [(qa.entity, qa.question, qa.answer) for qa in items] != rows:
        missing = "subject" not in json.loads(found[0]) and "author" not in json.loads(found[0])
        return "name the subject in a column 'subject'." if missing else "the records come back changed."
    return ""
