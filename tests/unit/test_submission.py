"""A results file: what `report` writes passes, what was changed is named, what is hostile is refused politely."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest
from typer.testing import CliRunner

from unlearnkit.benchmark.digests import rows_digest
from unlearnkit.benchmark.results import SCHEMA, schema
from unlearnkit.benchmark.rows import rows_of_runs
from unlearnkit.benchmark.submission import LARGEST, check_results
from unlearnkit.cli import app
from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods import METHODS
from unlearnkit.paths import notebooks_dir
from unlearnkit.runs.report import write_report

NOTEBOOKS = notebooks_dir()
KEYS = {
    "forget_ks_statistic": (0.2, 0.7, 0.1),
    "retain_model_utility": (0.55, 0.6, 0.59),
    "forget_answer_nll": (2.0, 0.1, 2.4),
}


def make_run(root: Path, digest: str, methods: tuple[str, ...] = ("npo", "rmu"), seed: int = 0) -> None:
    folder = root / "02_llm_unlearning" / digest
    folder.mkdir(parents=True)
    values = {"profile": "quick", "seed": seed, "world": "authors", "forget": "forget10", "limit": 40, "lr": None}
    config = {
        "notebook": "02_llm_unlearning",
        "profile": "quick",
        "seed": seed,
        "values": values,
        "versions": {"torch": "2.13.0"},
    }
    (folder / "config.json").write_text(json.dumps(config | {"digest": digest}))
    (folder / "status.json").write_text(
        json.dumps({"state": "complete", "started": f"2026-01-0{seed + 1}", "seconds": 9.5})
    )
    cells = [{"cell_type": "code", "source": ["1 + 1"], "outputs": [], "metadata": {}}]
    (folder / "executed.ipynb").write_text(json.dumps({"nbformat": 4, "cells": cells}))
    rows = []
    for method in methods:
        for key, (value, original, oracle) in KEYS.items():
            value += 0.01 * seed
            rows.append({
                "key": key, "split": "forget", "original": original, "unlearned": value, "oracle": oracle,
                "floor": 0.05, "gap": abs(value - oracle) / abs(original - oracle), "relative": value / original,
                "n": 40, "seeds": 1, "why": "", "method": method, "seed": seed,
            })  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "scores.csv", index=False)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs with their report."""
    folder = tmp_path_factory.mktemp("made")
    for seed in (0, 1):
        make_run(folder, f"{seed}aaaabbbbccccddd", seed=seed)
    write_report(folder, folder / "report.html")
    return folder


@pytest.fixture
def made(once: Path, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of that folder, and its results file as values."""
    shutil.copytree(once, tmp_path / "runs")
    return tmp_path / "runs", json.loads((once / "results.json").read_text())


def faults(folder: Path, results: Any, runs: bool = False) -> list[str]:
    path = folder / "handed_in.json"
    path.write_text(results if isinstance(results, str) else json.dumps(results))
    return check_results(path, folder if runs else None)[1]


def sealed(results: dict[str, Any]) -> dict[str, Any]:
    """With the digest that these rows have: what a cheat would do."""
    return {**results, "rows_digest": rows_digest(pd.DataFrame(results["rows"]))}


def test_what_the_report_writes_is_in_order(made: tuple[Path, dict[str, Any]]) -> None:
    folder, results = made
    assert faults(folder, results) == [] and faults(folder, results, runs=True) == []
    jsonschema.validate(results, schema())
    assert len(results["runs"]) == 2 and len(results["rows"]) == 12 and results["claims"]
    row = results["rows"][0]
    assert (row["method"], row["seed"], row["key"], row["value"], row["branch"]) == (
        "npo",
        0,
        "forget_ks_statistic",
        0.2,
        "text",
    )
    board = pd.read_csv(folder / "leaderboard.csv").set_index("method")
    mine = board[board["source"].str.startswith("runs of 02_llm_unlearning")]
    assert mine.loc["npo", "gap"] == pytest.approx((0.1 + 0.11) / 2 / 0.6) and mine.loc["npo", "seeds"] == 2
    ledger = pd.read_csv(folder / "ledger.csv")
    assert len(ledger) == len(results["claims"]) and {"claim", "verdict", "effect", "low", "high"} <= set(ledger)


def test_methods_named_as_our_notebooks_record_them_are_in_order(tmp_path: Path) -> None:
    """Notebook 01 records one with ten times its learning rate."""
    words = set()
    for path in NOTEBOOKS.glob("0*.ipynb"):
        cells = [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
        words |= {word for c in cells for word in re.findall(r'"(\w+ [^\w\s]+\d+)"', "".join(c["source"]))}
    names = sorted(word for word in words if word.split()[0] in METHODS["text"])
    assert names == ["grad_ascent ×10"]
    make_run(tmp_path, "0aaaabbbbccccddd", methods=(*METHODS["text"], *names))
    write_report(tmp_path, tmp_path / "report.html")
    assert check_results(tmp_path / "results.json", tmp_path)[1] == []


def test_the_schema_is_that_of_the_models_and_valid() -> None:
    assert json.loads(SCHEMA.read_text()) == schema(), "run python -m unlearnkit.benchmark.results"
    jsonschema.Draft202012Validator.check_schema(schema())


def change(results: dict[str, Any], row: int, **values: Any) -> dict[str, Any]:
    out = copy.deepcopy(results)
    out["rows"][row] |= values
    return out


def without_gap(results: dict[str, Any], row: int, value: float) -> dict[str, Any]:
    return sealed(change(results, row, value=value, gap=None, relative=None))


def copied(results: dict[str, Any]) -> dict[str, Any]:
    first, second = results["runs"]
    return {**results, "runs": [first, {**second, "scores_sha256": first["scores_sha256"]}]}


def claimed(results: dict[str, Any], **values: Any) -> dict[str, Any]:
    first, *rest = results["claims"]
    return {**results, "claims": [first | values, *rest]}


@pytest.mark.parametrize(
    ("cheat", "sentence"),
    [
        (lambda r: change(r, 0, value=0.11), "digest of the rows is .* rows were changed"),
        (lambda r: sealed(change(r, 0, gap=0.01)), "npo, seed 0, forget_ks_.*: the gap is 0.01, but .* give 0.16"),
        (lambda r: sealed(change(r, 1, relative=1.0)), "_utility: the share of the original is 1, but .* give 0.91"),
        (lambda r: without_gap(r, 0, 1.7), "value of forget_ks_statistic is 1.7, and lies between 0 and 1"),
        (lambda r: without_gap(r, 2, -2.0), "value of forget_answer_nll is -2, and can't be below 0"),
        (lambda r: sealed(change(r, 0, method="magic")), "the text method magic is not known here"),
        (
            lambda r: sealed(change(r, 0, run="elsewhere")),
            "of the run 02_llm_unlearning/elsewhere, which is not listed",
        ),
        (lambda r: sealed({**r, "rows": r["rows"] + r["rows"][:1]}), "npo, seed 0: forget_ks_statistic stands twice"),
        (lambda r: {**r, "runs": r["runs"] + r["runs"][:1]}, "is listed 2 times"),
        (copied, "one is a copy"),
        (lambda r: claimed(r, verdict="supported", effect=1.0), "the claim text-.* is supported by no run; name the"),
        (lambda r: claimed(r, verdict="undecided", runs=["beef"]), "comes from the run beef, which is not listed"),
        (lambda r: claimed(r, claim="mine-is-best"), "the claim mine-is-best is not in the ledger here"),
        (lambda r: {**r, "claims": r["claims"][:1] * 2}, "the claim text-.* is listed 2 times"),
        (lambda r: {**r, "format": "other/1"}, "format is 'other/1': input should be 'unlearnkit-results/1'"),
        (lambda r: {k: v for k, v in r.items() if k != "rows_digest"}, "rows_digest: field required"),
        (lambda r: {**r, "extra": 1}, "extra is 1: extra inputs are not permitted"),
        (lambda r: change(r, 0, n="40"), r"rows\[0\].n is '40': input should be a valid integer"),
        (lambda r: change(r, 0, method="<img src=x onerror=alert(1)>"), r"rows\[0\].method is '<img"),
        (lambda r: {**r, "runs": [{**r["runs"][0], "run": "../../etc"}]}, r"runs\[0\].run is '../../etc': string sh"),
        (lambda r: {**r, "rows": "all"}, "rows is 'all': input should be a valid list"),
        (lambda r: [r], "the file is a list of 1"),
    ],
)
def test_each_fault_is_one_sentence(
    made: tuple[Path, dict[str, Any]], cheat: Callable[[Any], Any], sentence: str
) -> None:
    found = faults(made[0], cheat(made[1]))
    assert any(re.search(sentence, fault) for fault in found), found
    assert all("\n" not in fault and len(fault) < 400 and fault.endswith(".") for fault in found)


def test_files_that_were_touched_after_the_run_are_named(made: tuple[Path, dict[str, Any]]) -> None:
    folder, results = made
    run = folder / "02_llm_unlearning" / results["runs"][0]["run"]
    scores = pd.read_csv(run / "scores.csv")
    scores.loc[0, "unlearned"] = 0.1
    scores.to_csv(run / "scores.csv", index=False)
    found = faults(folder, results, runs=True)
    assert [f.split(" of the run")[0] for f in found] == ["the scores", "the rows"], found
    (run / "config.json").write_text((run / "config.json").read_text().replace("0aaa", "9aaa"))
    (run / "executed.ipynb").write_text((run / "executed.ipynb").read_text().replace("1 + 1", "1 + 2"))
    found = " ".join(faults(folder, results, runs=True))
    for part in ("the config of the run", "the notebook code of the run", "holds the config of another run, '9aaa"):
        assert part in found
    (run / "status.json").write_text("{")
    assert "can't be read" in " ".join(faults(folder, results, runs=True))


def test_a_file_that_says_of_a_run_what_its_folder_does_not_say(made: tuple[Path, dict[str, Any]]) -> None:
    folder, results = made
    run = results["runs"][0]
    values = run["values"] | {"limit": 400}
    for change, said in (
        ({"profile": "full"}, "profile of the run 02_llm_unlearning/.* is 'full', its folder says 'quick'"),
        ({"seed": 7}, "seed of the run .* is 7, its folder says 0"),
        ({"seconds": 0.1}, "seconds of the run .* is 0.1, its folder says 9.5"),
        ({"values": values}, "values.limit of the run .* is 400, its folder says 40"),
    ):
        (found,) = faults(folder, {**results, "runs": [run | change, *results["runs"][1:]]}, runs=True)
        assert re.match(said, found), found


def test_verdicts_are_judged_again(tmp_path: Path) -> None:
    folder = tmp_path / "03_llm_limitations" / "0aaaabbbbccccddd"
    make_run(tmp_path, folder.name)
    (tmp_path / "02_llm_unlearning").rename(folder.parent)
    row = {"experiment": "ranking", "measure": "tau_probability_ks", "who": "unlearned", "method": "", "budget": None}
    ranking = pd.DataFrame([row | {"value": 0.1, "low": 0.0, "high": 0.2, "n": 9, "seeds": 3}])
    ranking.to_csv(folder / "scores.csv", index=False)
    write_report(tmp_path, tmp_path / "report.html")
    results = json.loads((tmp_path / "results.json").read_text())
    assert faults(tmp_path, results, runs=True) == []
    (at,) = [k for k, claim in enumerate(results["claims"]) if claim["verdict"] == "supported"]
    name, other = (results["claims"][k]["claim"] for k in (at, at - 1))
    results["claims"][at] |= {"effect": 0.9}
    results["claims"][at - 1] |= {"verdict": "supported", "runs": [folder.name]}
    assert faults(tmp_path, results, runs=True) == [
        f"verdict of the claim {other} is 'supported', but the runs give 'not measurable'.",
        f"effect of the claim {name} is 0.9, but the runs give 0.4.",
    ]
    kept, results["claims"] = results["claims"], []
    assert faults(tmp_path, results, runs=True) == [f"the claim {name} is left out; the runs say that it is supported."]
    results["claims"] = kept
    shutil.rmtree(folder)  # not at hand: nothing to compare with
    assert faults(tmp_path, results, runs=True) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"format": NaN}', "NaN is no JSON number"),
        ('{"made": "a", "made": "b"}', "'made' stands twice"),
        ("\x00\xff", "is not JSON"),
        ("", "is not JSON"),
        ('{"rows": 1e999}', "field required"),
        ("{" + ", ".join(f'"k{i}": 1' for i in range(1000)) + "}", "more faults of this kind"),
        ('{"format": "' + "x" * 100_000 + '"}', "format is 'xxxx"),
    ],
)
def test_hostile_files_are_refused_politely(tmp_path: Path, text: str, sentence: str) -> None:
    found = faults(tmp_path, text)
    assert any(sentence in fault for fault in found), found
    assert all(len(fault) < 400 and "\n" not in fault for fault in found) and len(found) <= 21


def test_infinite_numbers_and_huge_files(made: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, results = made
    text = json.dumps(change(results, 0, value=12345.5)).replace("12345.5", "1e999")
    assert any("finite number" in fault for fault in faults(folder, text))
    with (folder / "large.json").open("wb") as file:
        file.truncate(LARGEST + 1)
    assert "at most 64 MB are read" in check_results(folder / "large.json")[1][0]
    with pytest.raises(UnlearnkitError, match="there is no file"):
        check_results(folder / "none.json")


def test_rows_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert rows_of_runs(tmp_path).empty
    with pytest.raises(UnlearnkitError, match="there is no folder .*none; give the folder that"):
        rows_of_runs(tmp_path / "none")


def test_the_command_says_it_and_exits_with_1(made: tuple[Path, dict[str, Any]]) -> None:
    folder, results = made
    (folder / "bad.json").write_text(json.dumps(change(results, 0, value=0.5)))

    def call(name: str, runs: Path = folder) -> Any:
        return CliRunner().invoke(app, ["report", "--check", str(folder / name), "--runs", str(runs)])

    good, bad, gone = call("results.json"), call("bad.json"), call("none.json")
    assert good.exit_code == 0 and good.output.startswith("in order: 2 runs, 12 rows of 2 methods"), good.output
    assert f"compared with its runs in {folder}: 2 of 2" in good.output
    (folder / "elsewhere").mkdir()
    apart = call("results.json", folder / "elsewhere")  # no fault, and it says that nothing was compared
    assert apart.exit_code == 0 and f"in {folder / 'elsewhere'}: 0 of 2; --runs names another" in apart.output
    assert bad.exit_code == 1 and "rows were changed" in bad.output
    assert isinstance(gone.exception, UnlearnkitError)
    assert "there is no folder" in str(call("results.json", folder / "nowhere").exception)  # a slip compares nothing


def test_numbers_that_are_missing_are_null(tmp_path: Path) -> None:
    make_run(tmp_path, "0aaaabbbbccccddd")
    path = tmp_path / "02_llm_unlearning" / "0aaaabbbbccccddd" / "scores.csv"
    scores = pd.read_csv(path)
    scores.loc[0, ["unlearned", "gap", "relative"]] = math.nan
    scores["why"] = scores["why"].astype(object)
    scores.loc[0, "why"] = "not measurable: <b>why</b>"
    scores.to_csv(path, index=False)
    write_report(tmp_path, tmp_path / "report.html")
    row = json.loads((tmp_path / "results.json").read_text())["rows"][0]
    assert row["value"] is None and row["gap"] is None and row["why"] == "not measurable: <b>why</b>"
    assert check_results(tmp_path / "results.json", tmp_path)[1] == []
    assert "<b>why</b>" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("name", ["hinge_ascent", "another oracle", "npo ×10"])
def test_methods_that_the_series_itself_makes_are_known(made: tuple[Path, dict[str, Any]], name: str) -> None:
    found = faults(made[0], sealed(change(made[1], 0, method=name)))
    assert not any("is not known here" in fault for fault in found), found
