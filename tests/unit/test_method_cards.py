"""Method cards: complete for every registered method, true about code and tests, and for one from a cell as well."""

from __future__ import annotations

import ast
import inspect
import math
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

import unlearnkit as uk
from unlearnkit.benchmark.cards import location
from unlearnkit.benchmark.equations import picture
from unlearnkit.benchmark.pins import pins
from unlearnkit.claims import Claim, Effect, Rows, Verdict
from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
ALL = [(kind, name) for kind in METHODS for name in METHODS[kind]]


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_every_method_has_a_whole_card(kind: str, name: str) -> None:
    card = uk.method_card(kind, name)
    for text in (card.title, card.about, card.equation, card.paper, card.defaults, card.failure):
        assert text and text != "not given", name
    assert re.search(r"arXiv \d{4}\.\d{4,5}|\b(19|20)\d\d\b", card.paper)
    file, line = card.code.split(":")
    text = (ROOT / file).read_text().splitlines()
    assert f"class {METHODS[kind][name].__name__}(" in "\n".join(
        text[int(line) - 1 : int(line) + 2]
    )  # below decorators
    assert card.tests and card.properties
    assert picture(card.equation) is not None, card.equation
    assert f"$${card.equation}$$" in card.markdown() and card.failure.split(":")[0].split("<")[0] in card.markdown()


@pytest.mark.parametrize(("kind", "name"), [("text", "npo"), ("text", "rmu"), ("image", "uce"), ("image", "ssd")])
def test_the_tests_named_exist_and_speak_of_the_method(kind: str, name: str) -> None:
    found = pins(kind, name)
    assert not set(found.named) & set(found.shared)
    for test in (*found.named, *found.shared):
        file, function = test.split("::")
        tree = ast.parse((ROOT / file).read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    source = Path(inspect.getsourcefile(METHODS[kind][name]) or "").read_text()
    words = {name, *re.findall(r"^(?:def|class) (\w+)", source, re.M)}
    for file in {test.split("::")[0] for test in found.named}:
        assert words & set(re.findall(r"\w+", (ROOT / file).read_text())), file


def test_pins_by_hand() -> None:
    assert "tests/conformance/test_text_by_hand.py::test_npo" in pins("text", "npo").named
    assert "tests/conformance/test_text_by_hand.py::test_npo" not in pins("text", "rmu").named
    assert any("uce_is_the_least_squares_solution" in test for test in pins("image", "uce").named)
    text, image = pins("text", "grad_ascent"), pins("image", "grad_ascent")  # one name in both branches
    assert not {t for t in text.named if "image" in t} and not {t for t in image.named if "text_losses" in t}


def board(**columns: Any) -> pd.DataFrame:
    row = {"gap": 0.2, "gap_low": 0.1, "gap_high": 0.3, "floor": 0.05, "utility": 0.8, "utility_low": math.nan,
           "utility_high": math.nan, "usable": False, "recovered_relearn": 0.85, "recovered_quantize": 0.0,
           "seconds": 6.0, "cost_ratio": 0.04, "seeds": 3, "why": ""} | columns  # fmt: skip
    out = pd.DataFrame([row], index=["npo"])
    out.attrs |= {"forgetting": "forget_ks_statistic", "utility": "retain_model_utility"}
    return out


def test_what_it_reached_is_that_of_the_board() -> None:
    said = uk.method_card("text", "npo", board=board()).number()
    for part in (
        "0.20 [0.10, 0.30] (forget_ks_statistic",
        "floor 0.05",
        "utility 0.80",
        "not usable",
        "0.85",
        "0.04 of",
        "3 seeds",
    ):
        assert part in said
    assert "not usable" not in uk.method_card("text", "npo", board=board(usable=True)).number()
    refused = uk.method_card("text", "npo", board=board(gap=math.nan, why="not measurable: it diverged"))
    assert refused.number() == "not measurable: it diverged."
    assert uk.method_card("text", "rmu", board=board()).number().startswith("not measured")


def test_claims_that_speak_of_a_method_stand_on_its_card() -> None:
    effect = Effect(plus=[Rows(experiment="relearn", measure="accuracy")], margin=0.1, unit="share")
    claim = Claim(id="comes-back", branch="text", kind="efficacy", statement="It comes <b>back</b>.", source="s",
                  notebook="03", effect=effect)  # fmt: skip
    verdict = Verdict(claim, "supported", by={"npo": (0.4, 0.3, 0.5)})
    card = uk.method_card("text", "npo", verdicts=[verdict])
    assert card.claims == (("comes-back", "supported", "It comes <b>back</b>."),)
    assert "It comes &lt;b>back" in card.markdown()
    assert not uk.method_card("text", "rmu", verdicts=[verdict]).claims


def test_one_registered_in_a_cell_has_a_card_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))  # a kernel's has no file, pytest's has
    cell = {"uk": uk, "__name__": "__main__"}
    exec(compile("class Cell(uk.TextMethod):\n    margin: float = 3.0\n", "<ipython-input-1>", "exec"), cell)
    uk.register_method("from_a_cell")(cell["Cell"])
    try:
        card = uk.method_card("text", "from_a_cell")
        assert card.code == "a notebook cell" and card.settings["margin"] == 3.0
        assert not card.tests and not card.properties and "no test names it" in card.markdown()  # none ran on it
        assert card.failure == "not given" and "not measured" in card.markdown()
        assert location(METHODS["text"]["npo"]).startswith("unlearnkit/methods/text/npo.py:")
    finally:
        del METHODS["text"]["from_a_cell"]
    with pytest.raises(UnlearnkitError, match="method 'nppo' is unknown.*Did you mean 'npo'"):
        uk.method_card("text", "nppo")
    with pytest.raises(UnlearnkitError, match="kind of method 'audio' is unknown"):
        uk.method_card("audio", "npo")
