"""The glossary: it has all that is registered, says what cards and docstrings say, and its links lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import unlearnkit as uk
from unlearnkit.attacks.base import Attack
from unlearnkit.attribution.base import View
from unlearnkit.methods.base import Method
from unlearnkit.metrics.table import Metric

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
TEXT = (NOTEBOOKS / "glossary.md").read_text("utf-8")
LINE = "Words of the field: [glossary](glossary.md). Papers: [references.bib](references.bib)."
HEADINGS = re.findall(r"^##+ (.+)$", TEXT, re.MULTILINE)
ANCHORS = {heading.replace(" ", "-") for heading in HEADINGS}
PLACES = {"text": "language models", "image": "diffusion models"}
OURS = "unlearnkit."  # other tests register things of their own


def row(section: str, name: str) -> str:
    """The row of a table of the glossary, by the name in its first cell."""
    part = TEXT.partition(f"\n### {section}\n")[2].partition("\n#")[0]
    found = re.findall(rf"^\| `{re.escape(name)}` \|.*$", part, re.MULTILINE)
    assert len(found) == 1, f"the glossary's section '{section}' has {len(found)} rows `{name}`"
    return found[0]


def metrics() -> dict[str, Metric]:
    return {key: m for key, m in uk.METRICS.items() if m.compute.__module__.startswith(OURS)}


@pytest.mark.parametrize("key", metrics())
def test_every_metric_is_there_and_says_what_its_docstring_says(key: str) -> None:
    metric = metrics()[key]
    section = f"metrics of {PLACES[metric.modality]}"
    starred = f"*_{key.removeprefix(metric.split + '_')}"
    entry = row(section, starred if f"| `{starred}` |" in TEXT else key)
    said = (metric.compute.__doc__ or "").strip().split("\n")[0]
    for sentence in re.split(r"[.;] | \(", said.rstrip(".")):
        if "arXiv" not in sentence and "`" not in sentence and not sentence.startswith(("Mean over", "Squared")):
            assert sentence in entry, f"{key}: its docstring says '{sentence}'"


THINGS: list[tuple[str, str, str, type[Attack] | type[View] | type[Method]]] = [
    (f"{kind} {PLACES[modality]}", name, modality, thing)
    for kind, registries in (("attacks on", uk.ATTACKS), ("views of", uk.VIEWS), ("methods for", uk.METHODS))
    for modality, registry in registries.items()
    for name, thing in registry.items()
    if thing.__module__.startswith(OURS)
]


@pytest.mark.parametrize(
    ("section", "name", "modality", "thing"), THINGS, ids=lambda x: x if isinstance(x, str) else ""
)
def test_every_attack_view_and_method_is_there_with_its_card(
    section: str, name: str, modality: str, thing: type
) -> None:
    card, entry = thing.card, row(section, name)  # type: ignore[attr-defined]
    said = [card.title, getattr(card, "paper", None) or card.source]
    said += [getattr(card, field) for field in ("finds", "access", "reads") if hasattr(card, field)]
    assert not [text for text in said if text not in entry], entry


def test_the_terms_of_the_series_are_there() -> None:
    wanted = """forget set, retain set, neighbours, holdout, oracle, exact unlearning, gap, noise floor, not measurable,
    suppressed and removed, verdict, claim, relearning, recovered, unlearning depth score, linear datamodeling score,
    front, hypervolume, igd plus, knee, attainment, equal utility, conflict, balance, mask, anchor, guidance"""
    assert not {" ".join(term.split()) for term in wanted.split(",")} - set(HEADINGS)
    for short in ("UA", "IRA", "CRA", "UDS", "LDS", "IGD+"):
        assert f"**{short}**" in TEXT


def test_headings_give_one_anchor_in_jupyterlab_and_on_github() -> None:
    assert len(ANCHORS) == len(HEADINGS) > 60
    for heading in HEADINGS:  # JupyterLab keeps case and punctuation, GitHub does not
        assert re.fullmatch(r"[a-z0-9]+( [a-z0-9]+)*", heading), heading


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_links_here_once_near_its_top(path: Path) -> None:
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"]]
    assert [index < 4 for index, text in enumerate(cells) if LINE in text] == [True], f"add to its top: {LINE}"
    used = re.findall(r"glossary\.md#([^)\s]+)", "\n".join(cells))
    assert not set(used) - ANCHORS


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        name, _, anchor = target.partition("#")
        assert (NOTEBOOKS / name).is_file() if name else anchor in ANCHORS, target


def test_the_notebook_of_first_use_uses_the_name() -> None:
    profiles = "\n".join(path.read_text("utf-8") for path in (NOTEBOOKS / "profiles").glob("*.yml"))
    for name, book in re.findall(r"^\| `\*?_?([a-z_0-9]+)` \|.*\]\(([^)]+\.ipynb)\) \|$", TEXT, re.MULTILINE):
        text = "\n".join("".join(c["source"]) for c in json.loads((NOTEBOOKS / book).read_text("utf-8"))["cells"])
        listed = "".join(re.findall(rf"^{book[:-6]}:\n(?:  .*\n)+", profiles, re.MULTILINE))
        assert re.search(rf"(?<![a-z]){name}(?![a-z])", text + listed), f"{book} does not use {name}"
