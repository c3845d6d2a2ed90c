"""Verdicts: the rule by hand, the shipped models, and the thresholds with the models they were set and judged on."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import unlearnkit as uk
from unlearnkit.attribution import calibration, verdict
from unlearnkit.attribution.text.inside import weights_alone
from unlearnkit.attribution.verdict import decide, evidence_table, kinds, thresholds
from unlearnkit.methods.text.in_context import instructed
from unlearnkit.paths import data_dir

RULE = {"said": 0.7, "gone": 0.3, "unchanged": 0.6, "forgotten": 0.4, "beyond": -0.5}


def table(output: list[float], inside: list[float]) -> pd.DataFrame:
    rows = [("output", v) for v in output] + [("white box", v) for v in inside]
    return pd.DataFrame([{"measure": f"m{k}", "kind": kind, "level": v} for k, (kind, v) in enumerate(rows)])


@pytest.mark.parametrize(
    ("output", "inside", "label", "says"),
    [
        ([1.0, 0.4], [0.0, 0.0], "present", "still said"),
        ([0.9, 0.1], [0.0], "undecided", "neither said as before nor gone"),
        ([0.2, -0.3], [1.0, 0.3], "suppressed", "not from the inside"),
        ([0.2, 0.1], [0.39, 0.3], "removed", "where a retrained model is"),
        ([0.2, 0.1], [0.41, 0.0], "undecided", "something is left, m2 at 0.41"),
        ([0.2, -0.6], [0.1, 0.1], "undecided", "m1 is at -0.60: further than retraining"),
        ([0.2, 0.1], [np.nan], "undecided", "no white-box measure"),
        ([np.nan], [0.1], "undecided", "no output measure"),
        ([0.2], [2.0, -9.0], "suppressed", "not from the inside"),  # what is below the oracle does not outweigh
    ],
)
def test_the_rule_by_hand(output: list[float], inside: list[float], label: str, says: str) -> None:
    found = decide(table(output, inside), RULE)
    assert found.label == label and says in found.reason and found.reason.count("\n") == 0
    if not np.isnan(output).any():
        assert found.output == pytest.approx(np.mean(np.maximum(output, 0)))


def test_levels_floor_and_what_does_not_vote_by_hand() -> None:
    readings = {
        "m": {"accuracy": np.array([0.5, 0.5]), "probe": "too few", "lens": np.ones(2), "nll": np.array([1.0, np.nan])},
        "o": {"accuracy": np.array([1.0, 1.0]), "probe": np.ones(2), "lens": np.ones(2), "nll": np.array([0.0, 0.0])},
        "a": {"accuracy": np.zeros(2), "probe": np.ones(2), "lens": np.ones(2), "nll": np.array([2.0, 9.0])},
        "b": {"accuracy": np.array([0.0, 0.2]), "probe": np.ones(2), "lens": np.ones(2), "nll": np.array([2.0, 9.0])},
    }
    order = {"accuracy": "output", "nll": "output", "probe": "white box", "lens": "white box"}
    found = evidence_table(readings["m"], readings["o"], [readings["a"], readings["b"]], kinds=order)
    row = found.set_index("measure")
    assert row.loc["accuracy", ["original", "unlearned", "oracle", "level", "floor", "n"]].tolist() == [
        1, 0.5, 0, 0.5, pytest.approx(0.1), 2,
    ]  # fmt: skip
    assert (row.loc["nll", "level"], row.loc["nll", "n"]) == (0.5, 1)  # fewer nats, more known
    assert row.loc["probe", "why"] == "not measurable: too few"
    assert row.loc["lens", "why"] == "not measurable: original and oracle do not differ beyond noise"
    assert row["level"].notna().tolist() == [True, True, False, False]
    none = evidence_table(readings["m"], readings["o"], [], kinds={"accuracy": "output"})
    assert none["why"].tolist() == ["not measurable: there is no oracle"]
    assert decide(none, RULE).label == "undecided"
    # an oracle as far from the first one as the original is: noise
    wide = evidence_table(readings["m"], readings["o"], [readings["a"], readings["o"]], kinds={"accuracy": "output"})
    assert wide["level"].isna().all() and "beyond noise" in wide["why"][0]


@pytest.fixture(scope="module")
def shipped() -> Any:
    """The shipped authors with oracles 1 and 3 to compare with, and oracle 2 to be judged."""
    problem = uk.load_problem("authors", oracles=3, device="cpu")
    first, second, third = problem.oracles
    return dataclasses.replace(problem, oracles=[first, third]), second.get()


def test_shipped_language_models_get_the_label_that_is_true_and_the_yml_decides(
    shipped: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, oracle = shipped
    hidden = uk.unlearn(problem, "guardrail")
    found = {who: uk.verdict(problem, m, limit=20) for who, m in (("original", problem.model), ("oracle", oracle))}
    found["guardrail"] = uk.verdict(problem, hidden, limit=20)
    assert {who: v.label for who, v in found.items()} == {
        "original": "present", "oracle": "removed", "guardrail": "suppressed",
    }  # fmt: skip
    evidence = found["original"].evidence.set_index("measure")
    assert list(evidence.index) == list(kinds("text")) and evidence["level"].to_numpy() == pytest.approx(1)
    assert evidence.loc["depth", ["original", "oracle"]].tolist() == [1, 0]  # 1 − UDS
    guarded = found["guardrail"].evidence.set_index("measure")
    assert guarded.loc[guarded["kind"] == "white box", "level"].to_numpy() == pytest.approx(1)  # the same weights
    assert guarded.loc["accuracy", "level"] < 0.2
    text = repr(found["oracle"])
    assert text.startswith("removed: the output is at") and "relearn" in text

    (tmp_path / "verdict.yml").write_text(
        yaml.safe_dump({"text": {**RULE, "said": 0.0, "gone": -1.0}}), encoding="utf-8"
    )
    monkeypatch.setattr(verdict, "data_dir", lambda: tmp_path)
    assert uk.verdict(problem, oracle, limit=20).label == "present"


def test_a_white_box_reads_what_stands_behind_a_guard(small_problem: Any) -> None:
    guarded = uk.unlearn(small_problem, "guardrail", strength=50.0).model
    questions = [small_problem.template.prompt(q) for q, _ in small_problem.pairs("forget")[:3]]
    ids = small_problem.tokenizer(questions, padding=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = [m(ids).logits for m in (small_problem.model, guarded, weights_alone(guarded))]
    assert torch.equal(logits[0], logits[2]) and not torch.allclose(logits[0], logits[1], atol=1e-2)
    bare = weights_alone(guarded)
    assert bare.get_input_embeddings().weight is bare.get_output_embeddings().weight  # still tied
    assert guarded.get_input_embeddings() is not bare.get_input_embeddings()
    told = instructed(small_problem.model, small_problem.tokenizer, small_problem.template, "Say nothing.")
    with torch.no_grad():
        logits += [m(ids).logits for m in (told, weights_alone(told))]
    assert torch.equal(logits[0], logits[4]) and not torch.allclose(logits[0], logits[3], atol=1e-2)


def test_edits_of_the_output_layer_leave_the_inside(small_problem: Any) -> None:
    tokens = calibration.value_tokens(small_problem)
    for by_bias in (True, False):
        model = calibration.lowered(small_problem, small_problem.original.fresh(), by_bias)
        ids = torch.arange(2, 12)[None]
        with torch.no_grad():
            before, after = small_problem.model(ids, output_hidden_states=True), model(ids, output_hidden_states=True)
        assert all(torch.equal(a, b) for a, b in zip(before.hidden_states, after.hidden_states, strict=True))
        others = [t for t in range(len(small_problem.tokenizer)) if t not in tokens]
        assert torch.allclose(before.logits[..., others], after.logits[..., others], atol=1e-4)
        assert not torch.allclose(before.logits[..., tokens], after.logits[..., tokens], atol=0.1)


def test_pictures(small_image_problem: Any) -> None:
    """Every measure is asked, the original is at 1 wherever it votes, and a filter of prompts is not inside."""
    judge = copy.deepcopy(small_image_problem.judge)
    judge.accuracy = dict.fromkeys(judge.domains, 1.0)
    problem = dataclasses.replace(small_image_problem, judge=judge, measured={})
    found = uk.verdict(problem, problem.model, limit=4)
    assert list(found.evidence["measure"]) == list(kinds("image"))
    assert found.evidence["level"].dropna().to_numpy() == pytest.approx(1)
    apart = found.evidence.set_index("measure").loc["agreement"]
    assert apart["original"] == 0 and apart["oracle"] > 0 and apart["level"] == 1
    (_, filtered), (name, replaced), *_ = calibration.suppressed_pictures(problem, 0)
    prompt, other = problem.asked["forget"][0], name.split("'")[1]
    swapped = [problem.replaced(prompt), prompt.replace(problem.word, other)]
    with torch.no_grad():
        assert torch.equal(filtered.embed([prompt]).hidden, problem.model.embed(swapped[:1]).hidden)
        assert torch.equal(replaced.embed([prompt]).hidden, problem.model.embed(swapped[1:]).hidden)
    behind = uk.verdict(problem, filtered, limit=4).evidence.set_index("measure")
    assert behind.loc["agreement", "unlearned"] == 0 and behind.loc["loss", "unlearned"] == pytest.approx(
        found.evidence.set_index("measure").loc["loss", "original"]
    )


@pytest.mark.parametrize("branch", ["text", "image"])
def test_stated_thresholds_and_figures_follow_from_the_models_they_were_set_and_judged_on(
    branch: str, tmp_path: Path
) -> None:
    rule, rows = thresholds(branch), pd.read_csv(data_dir() / "measured" / f"verdict_{branch}.csv")
    uses = dict(list(rows.groupby("use")))
    assert set(uses) == {"calibrate", "judged"}
    about = [set(part[["world", "request", "seed"]].itertuples(index=False, name=None)) for part in uses.values()]
    assert not about[0] & about[1]  # judged on other requests or seeds
    found = calibration.calibrated(uses["calibrate"], branch)
    assert {name: rule[name] for name in found} == pytest.approx(found, abs=2e-3)  # levels have four digits in the file
    again = calibration.labelled(rows, branch, rule)
    assert again["label"].tolist() == rows["label"].tolist()
    for use, part in uses.items():
        counts = calibration.confusion(part)
        assert set(part["truth"]) == {"present", "suppressed", "removed"}
        assert (rule[use]["models"], rule[use]["right"]) == (len(part), round(counts.loc["all", "right"] * len(part)))
        assert counts.loc["all", "low"] < counts.loc["all", "right"] <= counts.loc["all", "high"] <= 1
    shutil.copy(data_dir() / "verdict.yml", tmp_path)
    calibration.finish(rows.drop(columns=["label", "output", "inside"]), branch, tmp_path)
    assert pd.read_csv(tmp_path / "measured" / f"verdict_{branch}.csv")["label"].tolist() == rows["label"].tolist()


def test_thresholds_lie_in_the_gap_and_the_confusion_table_by_hand() -> None:
    measures = kinds("text")

    def row(truth: str, output: float, inside: float) -> dict[str, Any]:
        return {"truth": truth} | {m: output if k == "output" else inside for m, k in measures.items()}

    rows = [row("present", 0.9, 1.0), row("present", 1.0, 0.0), row("suppressed", 0.3, 0.8), row("removed", 0.0, 0.2)]
    found = calibration.calibrated(pd.DataFrame(rows), "text")
    assert found == {"gone": 0.5, "said": 0.7, "forgotten": 0.4, "unchanged": 0.6, "beyond": -0.5}
    labels = pd.DataFrame({"truth": ["present", "present", "removed"], "label": ["present", "undecided", "removed"]})
    counts = calibration.confusion(labels)
    assert counts.loc["present", ["present", "undecided", "n", "right"]].tolist() == [1, 1, 2, 0.5]
    assert counts.loc["all", "right"] == pytest.approx(2 / 3) and counts.loc["suppressed", "n"] == 0
    # Wilson: (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)
    n, p, z = 3, 2 / 3, 1.959964
    middle, half = (p + z**2 / (2 * n)), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    ends = [(middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)]
    assert counts.loc["all", ["low", "high"]].tolist() == pytest.approx(ends, abs=1e-4)


def test_what_a_model_is_called_is_escaped_and_numbers_are_checked(small_problem: Any) -> None:
    one = table([1.0], [1.0]).assign(measure="<b>")
    shown = dataclasses.replace(decide(one, RULE), label="<i>")._repr_html_()
    assert "<i>" not in shown and "&lt;b&gt;" in shown and "&lt;i&gt;" in shown
    with pytest.raises(uk.UnlearnkitError, match="limit = 2 is not possible; give a whole number of at least 4"):
        uk.verdict(small_problem, small_problem.model, limit=2)
    with pytest.raises(uk.UnlearnkitError, match="branch 'audio' is unknown; known: image, text"):
        calibration.main(["audio"])
