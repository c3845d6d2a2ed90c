"""references.bib: it parses, has what the repository cites and nothing else, and agrees with the cards on authors."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import pytest

import unlearnkit as uk

ROOT = Path(__file__).resolve().parents[2]
BIB = (ROOT / "notebooks" / "references.bib").read_text("utf-8")
NEEDED = {"misc": {"author", "title", "year"}}
NEEDED["article"] = NEEDED["misc"] | {"journal", "volume"}
NEEDED["book"] = NEEDED["misc"] | {"publisher"}
NEEDED["inproceedings"] = NEEDED["misc"] | {"booktitle"}
ID = re.compile(r"(?<![\d.])\d{4}\.\d{4,5}(?!\d)")


def parsed(text: str) -> dict[str, dict[str, str]]:
    """Key → fields, strictly: an entry begins a line, a field has a line of its own, braces balance."""
    entries: dict[str, dict[str, str]] = {}
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    for entry in filter(None, body.strip().split("\n\n")):
        head, *lines, end = entry.splitlines()
        begun = re.fullmatch(r"@(\w+)\{([a-z]+\d{4}[a-z]+),", head)
        assert begun and end == "}", entry
        fields = {"kind": begun[1]}
        for line in lines:
            field = re.fullmatch(r"  (\w+) *= \{(.+)\},", line)
            assert field and field[2].count("{") == field[2].count("}") and field[1] not in fields, line
            fields[field[1]] = field[2]
        assert begun[2] not in entries, f"{begun[2]} is there twice"
        entries[begun[2]] = fields
    return entries


ENTRIES = parsed(BIB)
BY_ID = {fields["eprint"]: fields for fields in ENTRIES.values() if "eprint" in fields}


def texts() -> dict[str, str]:
    """What may cite: sources of notebooks (not what they printed), code, data, README and glossary."""
    found = {
        p.name: p.read_text("utf-8") for p in [ROOT / "README.md", ROOT / "notebooks" / "glossary.md"] if p.exists()
    }
    for pattern in ("unlearnkit/**/*.py", "data/*.yml", "data/published/*.csv"):
        found |= {p.relative_to(ROOT).as_posix(): p.read_text("utf-8") for p in ROOT.glob(pattern)}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        found[path.name] = "\n".join("".join(c["source"]) for c in json.loads(path.read_text("utf-8"))["cells"])
    return found


TEXTS = texts()
CITED = {number: name for name, text in TEXTS.items() for number in re.findall(rf"arXiv:? ?({ID.pattern})", text)}
CARDS = [
    card.paper if hasattr(card, "paper") else card.source
    for registries in (uk.METHODS, uk.ATTACKS, uk.VIEWS)
    for registry in registries.values()
    for card in (thing.card for thing in registry.values())
]


def surname(fields: dict[str, str]) -> str:
    """The first author's, in plain letters: {\\L}ucki → lucki."""
    plain = re.sub(r"\\[\"'`v]", "", fields["author"].partition(" and ")[0].partition(",")[0])
    return letters(plain.replace(r"\L", "L").replace(r"\l", "l"))


def letters(name: str) -> str:
    bare = unicodedata.normalize("NFKD", name.replace("Ł", "L").replace("ł", "l"))
    return "".join(character for character in bare.lower() if character.isascii() and character.isalpha())


def test_entries_are_complete() -> None:
    assert len(ENTRIES) > 100 and len(BY_ID) == sum("eprint" in fields for fields in ENTRIES.values())
    for key, fields in ENTRIES.items():
        assert NEEDED[fields["kind"]] <= set(fields), key
        assert not fields["title"].endswith("."), key
        assert re.match(r"[a-z]+", key)[0] == letters(surname(fields))[: len(re.match(r"[a-z]+", key)[0])], key  # type: ignore[index]
        assert key[len(re.match(r"[a-z]+", key)[0]) :][:4] == fields["year"], key  # type: ignore[index]
        if "eprint" in fields:
            assert ID.fullmatch(fields["eprint"]) and fields["archiveprefix"] == "arXiv"
            assert fields["year"] == f"20{fields['eprint'][:2]}", (
                f"{key}: a preprint's year is that of its first version"
            )


def test_what_is_cited_is_an_entry() -> None:
    assert len(CITED) > 100
    missing = {number: name for number, name in CITED.items() if number not in BY_ID}
    assert not missing, f"add to notebooks/references.bib: {missing}"


def test_what_is_an_entry_is_cited() -> None:
    everything = "\n".join(TEXTS.values())
    for key, fields in ENTRIES.items():
        if "eprint" in fields:
            assert fields["eprint"] in CITED, key
        else:
            near = re.finditer(rf"{fields['year']}", everything)
            around = (letters(everything[max(0, hit.start() - 160) : hit.end() + 10]) for hit in near)
            assert any(surname(fields) in words for words in around), f"nobody cites {key}"


@pytest.mark.parametrize("card", sorted(set(CARDS)))
def test_cards_and_entries_name_the_same_first_author(card: str) -> None:
    named = r"([A-ZŁŠ][\w'-]+)(?:, [A-Z][\w-]+)*(?: et al\.| and [A-Z][\w-]+)? \d{4}[^;,]*,? arXiv (\d{4}\.\d{4,5})"
    found = re.findall(named, card)
    assert len(found) + card.count("see Ho and") >= card.count("arXiv") - card.count("practice of"), card
    for author, number in found:
        assert letters(author) == surname(BY_ID[number]), (author, number)
