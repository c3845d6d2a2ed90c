"""The README: its code runs, its commands exist, its links and figures lead somewhere."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import unlearnkit as uk
from unlearnkit.attacks import ATTACKS
from unlearnkit.methods import METHODS
from unlearnkit.metrics.table import METRICS
from unlearnkit.runs.plan import find_notebook, plan

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = {kind: re.findall(rf"^```{kind}\n(.*?)^```", README, re.DOTALL | re.MULTILINE) for kind in ("python", "bash")}
COMMANDS = [shlex.split(line, comments=True) for line in "".join(BLOCKS["bash"]).splitlines()]


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    """What the README's Python leaves behind, with fewer steps."""
    before, known, attacks = dict(METHODS["text"]), dict(METRICS), dict(ATTACKS["text"])
    space: dict[str, Any] = {}
    for block in BLOCKS["python"]:
        exec(compile(block.replace("steps=60", "steps=2").replace("[0, 5, 20]", "[0, 2]"), "README.md", "exec"), space)
    space["table"] = uk.evaluate(
        space["problem"],
        uk.unlearn(space["problem"], "hinge_ascent", margin=4.0, steps=1, progress=False),
        ["forget_worst_answer_nll", "forget_answer_nll"],
        limit=20,
    )
    METHODS["text"].clear()
    METHODS["text"].update(before)
    METRICS.clear()
    METRICS.update(known)
    ATTACKS["text"].clear()
    ATTACKS["text"].update(attacks)
    return space


def test_the_verbs_run(shown: dict[str, Any]) -> None:
    row = shown["scores"].loc["forget_answer_nll"]
    assert row["original"] < 0.1 < row["oracle"] and 0 < row["floor"] < 0.5 < row["gap"] < 1.5
    assert set(shown["curve"]["budget"]) == {0, 2} and "oracle" in set(shown["curve"]["who"])


def test_own_method_and_metric_run_and_are_short(shown: dict[str, Any]) -> None:
    for block in BLOCKS["python"][-2:]:
        assert len([line for line in block.splitlines() if line.strip()]) < 20
    worst, mean = shown["table"].loc[["forget_worst_answer_nll", "forget_answer_nll"], "oracle"]
    assert 0 < worst < mean
    polite = shown["polite"].set_index(["measure", "who", "budget"])["value"]
    assert polite["nll", "original", 0] < polite["nll", "original", 1]  # nobody asked the model like this before
    assert polite["accuracy", "original", 0] == 1 > polite["accuracy", "oracle", 0]


def test_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    checked = 0
    for program, *words in COMMANDS:
        if program == "make":
            assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE)
        elif program in ("unlearnkit", "papermill") and words[0] in ("run", "notebooks/02_llm_unlearning.ipynb"):
            path = find_notebook(words[1] if words[0] == "run" else Path(words[0]).stem)
            given = {words[i + 1]: words[i + 2] for i, word in enumerate(words) if word == "-p"}
            plan(path, given)  # an undeclared parameter raises
            checked += 1
        else:
            raise AssertionError(f"nobody checks `{program} {' '.join(words)}`")
    assert checked >= 3


def test_links_and_figures_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)
    assert len(links) > 5 and not [link for link in links if not (ROOT / link).exists()]
    figures = [ROOT / link for link in links if link.endswith(".png")]
    assert figures and all(figure.stat().st_size <= 150_000 for figure in figures)
    rows = re.findall(r"^\| \[\d\d · [^]]+\]\(notebooks/([^)]+)\)", README, re.MULTILINE)
    missing = {path.name for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")} - set(rows)
    assert not missing, f"the README's table of notebooks has no row for {', '.join(sorted(missing))}"


def test_paths_and_names_in_the_text_exist() -> None:
    for name in re.findall(r"`((?:unlearnkit|data|notebooks)/[\w/.]*)`", README):
        assert (ROOT / name).exists(), name
    for word in re.findall(r"`unlearnkit (\w+)", README):
        assert (
            f'"{word}"' in (source := (ROOT / "unlearnkit" / "cli.py").read_text("utf-8")) or f"def {word}(" in source
        )


def test_versions_and_licences_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert str(citation["version"]) == project["version"] == uk.__version__
    assert citation["license"] == project["license"] == "MIT"
    assert "arXiv:2408.00376" in str(citation) and "2408.00376" in README


def test_the_readme_is_finished_and_names_nothing_of_a_machine() -> None:
    assert not re.findall(r"\{\{|TODO|/work|/tmp|/home/\w|/root", README)
