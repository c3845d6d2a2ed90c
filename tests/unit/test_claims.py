"""The ledger and its verdicts: evidence decides, what is missing is said, and the rules refer to things that exist."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import unlearnkit as uk
from unlearnkit import claims
from unlearnkit.claims import COLUMNS, Evidence, Ledger, Verdict, judge, read_ledger, verdicts
from unlearnkit.errors import UnlearnkitError
from unlearnkit.runs.parameters import declared
from unlearnkit.runs.plan import parameters_cell, read_notebook, source_of
from unlearnkit.runs.report import render

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
LEDGER = read_ledger()
RULE = """
fixed: 2026-01-01
profiles: [quick]
claims:
  - id: comes-back
    branch: text
    kind: efficacy
    statement: It <b>comes</b> back.
    source: somebody
    notebook: 03_llm_limitations
    needs: {world: authors}
    effect:
      plus: [{experiment: relearn, budget: last, measure: accuracy}]
      minus: [{experiment: relearn, who: oracle, budget: last, measure: accuracy}]
      margin: 0.2
      unit: share
      across: mean
"""
Row = tuple[str, str, str, float, str, float, float, float, int, int]


def ledger(tmp_path: Path, text: str = RULE) -> Ledger:
    path = tmp_path / "claims.yml"
    path.write_text(text)
    return read_ledger(path)


def rows(value: float, method: str = "npo", half: float = 0.1, oracle: tuple[float, ...] = (0.1,)) -> list[Row]:
    """The method's curve ends at `value`, the oracles' curves at theirs."""
    out: list[Row] = [("relearn", method, "unlearned", 0, "accuracy", 0.5, 0.4, 0.6, 20, 1)]
    out.append(("relearn", method, "unlearned", 20, "accuracy", value, value - half, value + half, 20, 1))
    for k, level in enumerate(oracle):
        who = "oracle" if k == 0 else f"oracle {k + 1}"
        out.append(("relearn", method, who, 20, "accuracy", level, level - 0.05, level + 0.05, 20, 1))
    return out


def make_run(root: Path, digest: str, table: list[Row], state: str = "complete", **values: Any) -> None:
    """A run folder as `unlearnkit run` leaves it."""
    folder = root / "03_llm_limitations" / digest
    folder.mkdir(parents=True)
    values = {"profile": "quick", "seed": 0, "world": "authors", **values}
    config = {"notebook": "03_llm_limitations", "profile": values["profile"], "seed": values["seed"], "values": values}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "status.json").write_text(json.dumps({"state": state, "started": f"2026-01-01 {digest}"}))
    pd.DataFrame(table, columns=list(COLUMNS)).to_csv(folder / "scores.csv", index=False)


def verdict(tmp_path: Path, text: str = RULE) -> Verdict:
    (only,) = verdicts(tmp_path / "runs", ledger(tmp_path, text))
    return only


@pytest.mark.parametrize(
    ("value", "half", "word"),
    [(0.8, 0.1, "supported"), (0.15, 0.1, "contradicted"), (0.35, 0.1, "undecided"), (0.8, 0.6, "undecided")],
)
def test_the_evidence_decides(tmp_path: Path, value: float, half: float, word: str) -> None:
    make_run(tmp_path / "runs", "aaaa", rows(value, half=half))
    found = verdict(tmp_path)
    assert found.verdict == word
    assert found.effect == pytest.approx(value - 0.1)
    assert found.low == pytest.approx(value - 0.1 - math.hypot(half, 0.05))  # terms in quadrature
    assert found.high == pytest.approx(value - 0.1 + math.hypot(half, 0.05))
    assert (found.n, found.seeds, found.runs) == (20, 1, ("aaaa",))


def test_altered_evidence_changes_the_verdict(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "aaaa", rows(0.8))
    assert verdict(tmp_path).verdict == "supported"
    path = tmp_path / "runs" / "03_llm_limitations" / "aaaa" / "scores.csv"
    table = pd.read_csv(path)
    last = (table["who"] == "unlearned") & (table["budget"] == 20)
    table.loc[last, ["value", "low", "high"]] = [0.1, 0.05, 0.15]
    table.to_csv(path, index=False)
    assert verdict(tmp_path).verdict == "contradicted"
    table[~last].to_csv(path, index=False)  # `last` is now step 0, at which the oracle has no row
    found = verdict(tmp_path)
    assert found.verdict != "supported"


def test_oracles_that_disagree_widen_the_interval(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "aaaa", rows(0.45, oracle=(0.1, 0.1)))
    assert verdict(tmp_path).low == pytest.approx(0.35 - math.hypot(0.1, 0.05))
    make_run(tmp_path / "runs", "bbbb", rows(0.45, oracle=(-0.1, 0.3)))
    found = verdict(tmp_path)
    assert found.runs == ("bbbb",)  # the same parameters: the newer one counts
    assert found.low == pytest.approx(0.35 - math.hypot(0.1, math.hypot(0.05, 0.2))) and found.verdict == "undecided"


def test_seeds_are_repeats_and_their_spread_counts(tmp_path: Path) -> None:
    for seed, value in enumerate((0.5, 0.7, 0.9)):
        make_run(tmp_path / "runs", f"run{seed}", rows(value), seed=seed)
    found = verdict(tmp_path)
    assert found.effect == pytest.approx(0.6) and found.seeds == 3
    assert found.runs == ("run0", "run1", "run2")
    assert found.low == pytest.approx(0.6 - math.hypot(math.hypot(0.1, 0.05), 0.2))


def test_the_experiment_with_more_models_decides(tmp_path: Path) -> None:
    many = [(*row[:9], 3) for row in rows(0.15)]
    make_run(tmp_path / "runs", "aaaa", many, methods="npo", seeds=3)
    make_run(tmp_path / "runs", "bbbb", rows(0.8), methods="npo,undial", seeds=1)
    assert verdict(tmp_path).runs == ("aaaa",) and verdict(tmp_path).verdict == "contradicted"


@pytest.mark.parametrize(
    ("across", "values", "word", "named"),
    [
        ("some", (0.9, 0.1), "supported", "npo"),
        ("some", (0.15, 0.1), "contradicted", "npo"),
        ("some", (0.35, 0.1), "undecided", "npo"),
        ("every", (0.9, 0.1), "contradicted", "undial"),
        ("every", (0.9, 0.8), "supported", "undial"),
        ("mean", (0.9, 0.1), "supported", "mean over npo, undial"),
    ],
)
def test_methods_are_combined_as_the_claim_says(
    tmp_path: Path, across: str, values: tuple[float, float], word: str, named: str
) -> None:
    table = rows(values[0], half=0.05) + rows(values[1], "undial", half=0.05)
    make_run(tmp_path / "runs", "aaaa", table)
    found = verdict(tmp_path, RULE.replace("across: mean", f"across: {across}"))
    assert found.verdict == word and named in found.why
    assert found.by["npo"][0] == pytest.approx(values[0] - 0.1)
    if across == "some":  # picking the best of two widens its interval by 2.24/1.96
        assert found.low == pytest.approx(values[0] - 0.1 - math.hypot(0.05, 0.05) * 2.2414 / 1.95996, abs=1e-4)


def test_all_hits_or_misses_are_no_certainty(tmp_path: Path) -> None:
    table = rows(1.0)
    table[1] = ("relearn", "npo", "unlearned", 20, "accuracy", 1.0, 1.0, 1.0, 20, 1)
    make_run(tmp_path / "runs", "aaaa", table)
    assert verdict(tmp_path).low == pytest.approx(0.9 - math.hypot(3 / 20, 0.05))


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert "no complete run of 03_llm_limitations" in verdict(tmp_path).why
    make_run(runs, "aaaa", rows(0.8), state="failed")
    assert "no complete run" in verdict(tmp_path).why
    make_run(runs, "bbbb", rows(0.8), profile="smoke")
    make_run(runs, "cccc", rows(0.8), world="tofu")
    found = verdict(tmp_path)
    assert found.verdict == "not measurable" and "none of 2 runs" in found.why and "world authors" in found.why
    make_run(runs, "dddd", rows(0.8)[:2])
    found = verdict(tmp_path)
    assert found.verdict == "not measurable"
    assert "no row with experiment relearn, measure accuracy, who oracle" in found.why and "dddd" in found.why
    table = rows(0.8)
    table[1] = (*table[1][:6], np.nan, np.nan, *table[1][8:])
    make_run(runs, "eeee", table, seed=1)
    assert "not measurable" in claims.in_words([verdict(tmp_path)])


def test_rows_without_interval_are_not_judged(tmp_path: Path) -> None:
    table = rows(0.8)
    table[1] = (*table[1][:6], np.nan, np.nan, *table[1][8:])
    make_run(tmp_path / "runs", "aaaa", table)
    assert "no interval" in verdict(tmp_path).why


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("margin: 0.2", "margn: 0.2", r"line 15, claim 'comes-back': key 'margn' is unknown.*'margin'"),
        ("margin: 0.2", "margin: much", r"line 15, claim 'comes-back': 'margin' is 'much'"),
        ("      unit: share\n", "", r"line 13, claim 'comes-back': 'unit' is missing"),
        ("budget: last, measure", "budgt: last, measure", r"line 13.*key 'budgt' is unknown.*budget"),
        ("kind: efficacy", "kind: hearsay", r"line 7, claim 'comes-back': 'kind' is 'hearsay'"),
        ("profiles: [quick]", "profiles: []", r"line 3: 'profiles'"),
        ("claims:", "claims: [", "can't be read as YAML"),
        ("branch: text", "branch: text\n    mood: sad", r"line 7.*key 'mood' is unknown"),
    ],
)
def test_a_broken_ledger_is_one_clear_sentence(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert before in RULE
    with pytest.raises(UnlearnkitError, match=said) as caught:
        ledger(tmp_path, RULE.replace(before, after, 1))
    assert "\n" not in str(caught.value)


def test_ids_are_unique_and_the_file_is_data(tmp_path: Path) -> None:
    with pytest.raises(UnlearnkitError, match="two claims with the id 'comes-back'"):
        ledger(tmp_path, RULE + RULE.partition("claims:\n")[2])
    with pytest.raises(UnlearnkitError, match="can't be read as YAML"):
        ledger(tmp_path, "!!python/object/apply:os.system ['true']")


def test_the_report_opens_with_the_verdicts_and_escapes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = ledger(tmp_path)
    monkeypatch.setattr("unlearnkit.claims.verdict.read_ledger", lambda: evil)
    make_run(tmp_path / "runs", "aaaa", rows(0.8, method="<script>alert(1)</script>"))
    page = render(tmp_path / "runs")
    assert "<b>comes" not in page and "&lt;b&gt;comes" in page and "<script>alert" not in page
    at = page.index('id="claims"')
    assert at < page.index("<h2 id=") + 60 or at < page.index('id="run-1-aaaa"')
    assert re.search(r"comes-back.*?supported.*?0\.7.*?0\.5882 to 0\.8118.*?run-1-aaaa", page, re.DOTALL)


# the ledger itself


def cells(name: str) -> tuple[dict[str, Any], str]:
    """The parameters of a notebook (of a draft too), and all its code."""
    (path,) = [p for p in (NOTEBOOKS / f"{name}.ipynb", NOTEBOOKS / "drafts" / f"{name}.ipynb") if p.is_file()]
    notebook = read_notebook(path)
    code = "\n".join(source_of(cell) for cell in notebook["cells"] if cell["cell_type"] == "code")
    return declared(source_of(parameters_cell(notebook, name))), code


def test_the_ledger_covers_both_branches_and_all_kinds() -> None:
    assert len(LEDGER.claims) >= 20
    for branch in ("text", "image"):
        kinds = [claim.kind for claim in LEDGER.claims if claim.branch == branch]
        assert {"efficacy", "side effect", "measurement"} == set(kinds) and len(kinds) >= 8
    assert LEDGER.fixed and all("arXiv" in claim.source for claim in LEDGER.claims)


@pytest.mark.parametrize("claim", LEDGER.claims, ids=lambda claim: claim.id)
def test_a_claim_refers_to_what_exists(claim: claims.Claim) -> None:
    assert claim.id.startswith(claim.branch)
    parameters, code = cells(claim.notebook)
    assert {"profile", *claim.needs} <= set(parameters)
    for rows in claim.effect.rows:
        known = rows.experiment in uk.ATTACKS[claim.branch] or f'"{rows.experiment}"' in code
        assert known, f"nothing writes rows of experiment {rows.experiment}"
        measured = rows.measure in uk.METRICS or f'"{rows.measure}"' in code
        if rows.experiment in uk.ATTACKS[claim.branch] or rows.experiment.startswith("relearn"):
            measured = rows.measure in uk.ATTACKS[claim.branch][rows.experiment.split("_retain")[0]].higher_is_found
        assert measured, f"nothing measures {rows.measure}"
        if rows.method:
            assert rows.method in uk.METHODS[claim.branch]


def test_an_effect_that_is_nothing_supports_no_claim() -> None:
    """If every model did exactly as the oracle, no rule with a positive margin may call its claim supported."""
    for claim in LEDGER.claims:
        table = []
        for rows in claim.effect.rows:
            method = rows.method or "npo"
            budget = {"first": 0.0, "last": 9.0, None: np.nan}.get(rows.budget, rows.budget)  # type: ignore[arg-type]
            own = method if rows.who == "unlearned" else ""
            table.append((rows.experiment, own, rows.who, budget, rows.measure, 0.5, 0.45, 0.55, 40, 1))
        scores = pd.DataFrame(table, columns=list(COLUMNS)).drop_duplicates()
        values = {"profile": "quick", "seed": 0, **claim.needs}
        alone = Ledger(fixed="now", profiles=["quick"], claims=[claim])
        (found,) = judge(alone, [Evidence(claim.notebook, values, scores)])
        assert found.verdict != "not measurable", found.why
        assert found.verdict != "supported" or claim.effect.margin < 0, claim.id
