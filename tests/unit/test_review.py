"""The review panel without a browser: outputs, rule, clusters, the file of tags and notes, and the controls."""

from __future__ import annotations

import base64
import csv
import errno
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_panels import PAYLOAD, Page

import unlearnkit as uk
from unlearnkit.panels.likeness import clustered, described, topics_of, words_of
from unlearnkit.panels.notes import Notes
from unlearnkit.panels.outputs import Outputs, fingerprint, kinds, outputs_of, same_picture
from unlearnkit.panels.review_file import COLUMNS, FORMULA, escaped, unescaped
from unlearnkit.panels.review_views import (
    clusters_html,
    counts_figure,
    counts_html,
    output_html,
    sheet_html,
    tag_counts,
)

HOSTILE = ['=HYPERLINK("http://x","y")', "+1+1", "-2", "@SUM(A1)", "\tx", "\r=1", "'quoted", " =1", "＝1", PAYLOAD]


def made(answers: dict[str, list[str]], rule: str = "") -> Outputs:
    """Outputs as they would come from models that answer so."""
    rows = [(who, "forget", f"i{k}", f"Question {k}?", "Rome.", "Rome", answer, "Rome" in answer, rule)
            for who, said in answers.items() for k, answer in enumerate(said)]  # fmt: skip
    columns = ["who", "split", "item", "prompt", "truth", "value", "output", "leaks", "rule"]
    table = pd.DataFrame(rows, columns=columns)
    table.index = pd.Index([f"{r.who}/{r.split}/{r.item}" for r in table.itertuples()], name="id")
    weights, words = words_of(table["output"].tolist())
    return Outputs("text", table, {}, topics_of(weights), (weights, words))


@pytest.fixture
def outputs() -> Outputs:
    said = {
        "original": ["It is Rome.", "It is Rome, of course.", "Rome."],
        "npo": ["I don't know that.", "I don't know who that is.", "the the the the"],
        "oracle": ["It is Paris.", "It is Paris.", "Paris."],
    }
    return made(said)


@pytest.fixture(scope="module")
def unlearned(small_problem: Any) -> Any:
    return uk.unlearn(small_problem, "grad_diff", steps=4, lr=3e-3, batch_size=4, progress=False)


def test_outputs_are_what_was_measured(small_problem: Any, unlearned: Any) -> None:
    measured = uk.measure(small_problem, unlearned.model, 4)
    found = outputs_of(small_problem, {"a": measured}, 4)
    mine = found.table[(found.table["who"] == "a") & (found.table["split"] == "forget")]
    assert mine["output"].tolist() == measured.split("forget")["answer"].tolist()
    assert mine["leaks"].tolist() == (measured.split("forget")["correct"] > 0).tolist()
    assert found.table["who"].unique().tolist() == ["original", "a", "oracle"]
    assert found.table["split"].unique().tolist() == ["forget", "retain"]
    assert (
        outputs_of(small_problem, [unlearned], 4)
        .table.loc[mine.index.str.replace("a/", "unlearned/"), "output"]
        .tolist()
    )
    for wrong, said in (
        ({}, "nothing to review"),
        ({"oracle": measured}, "can't be called"),
        ({"a/b": measured}, "no '/'"),
    ):
        with pytest.raises(uk.UnlearnkitError, match=said):
            outputs_of(small_problem, wrong, 4)
    with pytest.raises(uk.UnlearnkitError, match="on other items than the original with limit = 3"):
        outputs_of(small_problem, {"a": measured}, 3)
    with pytest.raises(uk.UnlearnkitError, match="splits holdout can't be reviewed; there are forget, retain"):
        outputs_of(small_problem, {"a": measured}, 4, ["holdout"])


def test_the_rule_names_kinds_of_answers_and_pictures() -> None:
    row = {"correct": 0.0, "refused": 0.0, "wrong_value": 0.0, "repetition": 0.0, "original_nll": 1.0}
    right = {**row, "correct": 1.0}
    assert kinds(right, right, True, "It is Rome.") == ["leak"]
    assert kinds(right, right, False, "It is Rome.") == ["fine"]
    assert kinds(row, right, False, "It is.") == ["over-forgetting"]
    assert kinds(row, row, False, "It is.") == []  # the original can't either
    assert kinds({**row, "wrong_value": 1.0}, right, True, "It is Paris.") == ["hallucination"]
    assert kinds({**row, "wrong_value": np.nan, "refused": 1.0}, row, True, "I don't know.") == ["refusal"]
    for mad in ({"repetition": 0.5}, {"original_nll": 3.5}):
        assert kinds({**row, **mad}, right, True, "the the the") == ["gibberish"]
    unusual = {**row, "refused": 1.0, "original_nll": 9.0}  # the original never refuses
    assert kinds(unusual, right, True, "I don't know.") == ["refusal"]
    assert kinds({**row, "original_nll": np.nan}, right, True, " ") == ["gibberish"]
    assert kinds({"shown": 1.0}, {}, True) == ["leak"] and kinds({"shown": 0.0}, {}, True) == []
    assert kinds({"correct": 0.0}, {"correct": 1.0}, False) == ["over-forgetting"]


def test_clusters_hold_what_is_alike_and_are_named_by_their_words(outputs: Outputs) -> None:
    clusters = clustered(outputs, 3)
    assert clusters.value_counts().tolist() == sorted(clusters.value_counts(), reverse=True)  # 1 is the largest
    together = [clusters[f"{who}/forget/i{k}"] for who, k in (("npo", 0), ("npo", 1))]
    assert len(set(together)) == 1 and clusters["original/forget/i0"] != together[0]
    assert clusters["oracle/forget/i0"] == clusters["oracle/forget/i1"]  # the same answer
    typical, words = described(outputs, clusters, together[0])
    assert typical.startswith("npo/") and "don't" in words and "rome" not in words
    assert clustered(outputs, 99).nunique() == 8  # of nine outputs two are the same
    silent = made({"original": ["", ""]})
    assert clustered(silent, 4).tolist() == [1, 1] and described(silent, clustered(silent, 4), 1)[1] == ""


def test_pictures_are_clustered_and_known_again(small_image_problem: Any) -> None:
    erased = uk.unlearn(small_image_problem, "uce", progress=False)
    found = outputs_of(small_image_problem, {"uce": erased}, 3)
    assert len(found.pictures) == len(found.table) == 3 * 2 * 3 and found.modality == "image"
    assert np.linalg.norm(found.features, axis=1) == pytest.approx(np.ones(18))
    assert clustered(found, 4).nunique() == 4
    mark = fingerprint(next(iter(found.pictures.values())))
    nearly = bytes(min(b + 2, 255) for b in bytes.fromhex(mark)).hex()
    assert same_picture(mark, nearly) and not same_picture(mark, fingerprint(np.zeros((8, 8, 3), np.uint8)))
    assert not same_picture(mark, "") and not same_picture(mark, "zz")
    notes = Notes(found)
    key = found.table.index[4]
    page = Page(output_html(found, notes, [key]) + sheet_html(found, notes, found.table.index[:3]))
    assert page.harmless() and len([t for t, _ in page.tags if t == "img"]) == 2 + (key.startswith("uce")) + 3
    assert Page(clusters_html(found, clustered(found, 4), found.table.index)).harmless()


def test_tags_and_notes_survive_and_are_taken_up_again(outputs: Outputs, tmp_path: Path) -> None:
    file = tmp_path / "review.csv"
    notes = Notes(outputs, file)
    assert not file.exists()  # nothing is written before there is something to keep
    notes.tag(["npo/forget/i0", "npo/forget/i1"], "refusal")
    notes.tag(["npo/forget/i0"], "too polite")
    notes.note("npo/forget/i0", '=1+1\nsecond line, "quoted"')
    again = Notes(outputs, file)
    assert again.tags == notes.tags and again.notes == notes.notes
    assert again.vocabulary[-1] == "too polite"
    again.tag(["npo/forget/i0"], "refusal", on=False)
    table = uk.read_review(file)
    assert table.loc["npo/forget/i0", ["tags", "note"]].tolist() == ["too polite", '=1+1\nsecond line, "quoted"']
    assert table["output"].tolist() == outputs.table["output"].tolist() and table["leaks"].dtype == bool
    assert pd.Timestamp(table.loc["npo/forget/i1", "when"]).tz is not None
    with pytest.raises(uk.UnlearnkitError, match="was changed by someone else"):
        notes.note("npo/forget/i2", "mine")  # `again` has written meanwhile
    assert uk.read_review(file)["note"].str.contains("mine").sum() == 0
    for tag in ("", "a;b", "=cmd", "x" * 31, " x", "<b>"):
        with pytest.raises(uk.UnlearnkitError, match="is not possible"):
            again.tag(["npo/forget/i0"], tag)
    with pytest.raises(uk.UnlearnkitError, match="no output 'x'"):
        again.tag(["x"], "leak")
    with pytest.raises(uk.UnlearnkitError, match="2001 characters; 2000 are kept"):
        again.note("npo/forget/i0", "x" * 2001)


def test_no_cell_of_the_file_is_a_formula(tmp_path: Path) -> None:
    outputs = made({"original": HOSTILE, "npo": HOSTILE})
    file = tmp_path / "review.csv"
    notes = Notes(outputs, file)
    for key, text in zip(outputs.table.index, HOSTILE, strict=False):
        notes.note(key, text)
    with file.open(encoding="utf-8", newline="") as lines:
        cells = [cell for row in csv.reader(lines) for cell in row]
    assert not [cell for cell in cells if cell.lstrip(" ")[:1] in tuple(FORMULA)]
    assert Notes(outputs, file).notes == notes.notes and uk.read_review(file)["output"].tolist() == HOSTILE * 2
    assert [unescaped(escaped(text)) for text in HOSTILE] == HOSTILE


def test_other_and_broken_files_are_refused_and_left_alone(outputs: Outputs, tmp_path: Path) -> None:
    file = tmp_path / "review.csv"
    notes = Notes(outputs, file)
    notes.tag(["npo/forget/i0"], "leak")
    whole = file.read_bytes()
    said = {**outputs.table.groupby("who")["output"].apply(list)}
    with pytest.raises(uk.UnlearnkitError, match=r"review of other outputs \(1 of its 9 rows differ"):
        Notes(made({**said, "oracle": [*said["oracle"][:2], "London."]}), file)
    with pytest.raises(uk.UnlearnkitError, match=r"3 of its 9 rows differ, the first is 'npo/forget/i0'"):
        Notes(made({w: a for w, a in said.items() if w != "npo"}), file)
    lines = whole.split(b"\n")
    for broken, why in (
        (b"", "first line is another"),
        (b"a,b\n1,2\n", "first line is another"),
        (b"\xff\xfe" + whole, "decode"),
        (whole[: len(whole) // 2], "unexpected end of data|cells, not 13"),
        (b"\n".join([*lines[:2], lines[1], *lines[2:]]), "has an output twice"),
        (lines[0] + b'\n"a","b"\n', "record 2 has 2 cells, not 13"),
        (whole.replace(b'"leak"', b'"<script>"'), "'<script>' is not possible"),
    ):
        file.write_bytes(broken)
        with pytest.raises(uk.UnlearnkitError, match=why):
            Notes(outputs, file)
        assert file.read_bytes() == broken
    with pytest.raises(uk.UnlearnkitError, match="can't be read"):
        Notes(outputs, tmp_path)
    with pytest.raises(uk.UnlearnkitError, match="can't be read"):
        uk.read_review(tmp_path / "none.csv")
    file.write_bytes(b"\xef\xbb\xbf" + whole)  # as a spreadsheet saves it
    assert Notes(outputs, file).tags == notes.tags


def test_a_full_disk_loses_nothing(outputs: Outputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "review.csv"
    notes = Notes(outputs, file)
    notes.tag(["npo/forget/i0"], "leak")
    before = file.read_bytes()

    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(uk.UnlearnkitError, match="is full"):
            notes.tag(["npo/forget/i1"], "leak")
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]
    assert list(notes.tags) == ["npo/forget/i0"]  # what is shown is what is kept
    notes.tag(["npo/forget/i1"], "leak")
    assert Notes(outputs, file).tags == notes.tags


def test_a_kernel_that_is_killed_leaves_the_last_change(tmp_path: Path) -> None:
    code = """
import itertools, sys
sys.path.insert(0, sys.argv[2])
from test_review import made
from unlearnkit.panels.notes import Notes
notes = Notes(made({"npo": ["word " * 50] * 200}), sys.argv[1])
for k in itertools.count():
    notes.note("npo/forget/i0", f"change {k}")
    print(k, flush=True)
"""
    file = tmp_path / "review.csv"
    words = [sys.executable, "-c", code, str(file), str(Path(__file__).parent)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 20:
                os.kill(process.pid, signal.SIGKILL)
                break
    (kept,) = set(uk.read_review(file)["note"]) - {""}
    assert int(kept.split()[1]) >= 20


def test_what_is_counted_is_what_a_reader_tagged(outputs: Outputs) -> None:
    notes = Notes(outputs)
    notes.tag(["npo/forget/i0", "npo/forget/i1"], "refusal")
    notes.tag(["npo/forget/i2", "oracle/forget/i0"], "gibberish")
    counts = tag_counts(outputs, notes, outputs.table.index).set_index(["kind", "who"])
    assert counts.loc[("refusal", "npo"), ["n", "of"]].tolist() == [2, 3]
    assert (
        counts.loc[("refusal", "oracle"), ["n", "of"]].tolist() == [0, 1] and "original" not in counts.index.levels[1]
    )
    assert counts.loc[("refusal", "npo"), ["low", "high"]].tolist() == pytest.approx(
        [0.2077, 0.9385], abs=1e-3
    )  # Wilson
    ruled = made({"npo": ["a"], "oracle": ["b"]}, rule="leak; refusal")
    counts = tag_counts(ruled, Notes(ruled), ruled.table.index, "rule").set_index(["kind", "who"])
    assert counts.loc[("leak", "npo"), "n"] == counts.loc[("refusal", "oracle"), "n"] == 1
    figure = counts_figure(tag_counts(outputs, notes, outputs.table.index))
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["npo", "oracle"]
    assert "by rule, looked at by nobody" in counts_html(ruled, Notes(ruled), ruled.table.index)
    assert "tags of a reader" in counts_html(outputs, notes, outputs.table.index)


def test_whatever_models_and_readers_say_stays_text() -> None:
    outputs = made({who: [PAYLOAD, "<script>x</script>"] for who in ("original", PAYLOAD, "oracle")}, rule=PAYLOAD)
    notes = Notes(outputs)
    key = outputs.table.index[2]
    notes.note(key, PAYLOAD)
    notes.tags[key] = (PAYLOAD,)
    everything = outputs.table.index
    for source in (
        output_html(outputs, notes, [key]), sheet_html(outputs, notes, everything),
        clusters_html(outputs, clustered(outputs, 3), everything), counts_html(outputs, notes, everything),
    ):  # fmt: skip
        page = Page(source)
        assert page.harmless() and PAYLOAD in page.text


def test_panel_follows_its_controls(small_problem: Any, unlearned: Any, tmp_path: Path) -> None:
    file = tmp_path / "review.csv"
    panel = uk.review_panel(small_problem, {"a": unlearned}, limit=4, file=file, clusters=3)
    assert not panel.views["output"].value  # nothing is computed before it is shown
    panel.update()
    controls, listed = panel.controls, panel.controls["outputs"]
    assert len(listed.options) == 3 * 2 * 4 - 3 * max(0, 4 - len(small_problem.direct("forget")))
    assert len(listed.value) == 1 and "<h4>▸ original" in panel.views["output"].value
    controls["model"].value, controls["split"].value = "a", "forget"
    keys = [key for _, key in listed.options]
    assert keys and all(key.startswith("a/forget/") for key in keys) and listed.value == tuple(keys[:1])
    buttons = {b.description: b for b in panel.tags.children}
    buttons["leak"].value = True
    assert uk.read_review(file).loc[keys[0], "tags"] == "leak" and listed.options[0][0].startswith("●")
    assert listed.value == tuple(keys[:1])  # the choice stays
    controls["next"].click()
    assert listed.value == (keys[1],) and not buttons["leak"].value
    panel.own.value = "odd name"
    assert "odd name" in [b.description for b in panel.tags.children] and panel.own.value == ""
    panel.note.value = "a remark"
    assert uk.read_review(file).loc[keys[1], ["tags", "note"]].tolist() == ["odd name", "a remark"]
    controls["search"].value = "A REMARK"
    assert [key for _, key in listed.options] == [keys[1]]
    controls["search"].value = ""
    controls["tag"].value = "leak"
    assert [key for _, key in listed.options] == [keys[0]]
    buttons = {b.description: b for b in panel.tags.children}
    buttons["leak"].value = False
    assert "no output passes" in Page(panel.views["output"].value).text
    controls["tag"].value, controls["model"].value, controls["split"].value = "(all)", "(all)", "(all)"
    everything = [key for _, key in listed.options]
    listed.value = everything
    assert f"{len(everything)} outputs are chosen" in panel.views["output"].value and panel.note.disabled
    controls["rule"].click()
    ruled = panel.outputs.table["rule"]
    assert {key: "; ".join(tags) for key, tags in panel.notes.tags.items() if tags and key != keys[1]} == {
        key: rule for key, rule in ruled.items() if rule and key != keys[1]
    }
    panel.own.value = "<b>"
    assert "is not possible" in Page(panel.state.value).text
    controls["leaks"].value = True
    assert [key for _, key in listed.options] == list(ruled.index[ruled.str.contains("leak")])
    controls["leaks"].value = False
    panel.tabs.selected_index = 1
    assert panel.views["clusters"].value.count("<tr>") == 1 + panel.clusters.nunique()
    controls["clusters"].value = 2
    assert panel.views["clusters"].value.count("<tr>") == 1 + 2
    controls["cluster"].value = 2
    panel.tabs.selected_index = 0
    assert {key for _, key in listed.options} == set(panel.clusters.index[panel.clusters == 2])
    controls["cluster"].value = "(all)"
    panel.tabs.selected_index = 2
    assert "tags of a reader" in panel.views["kinds"].value
    controls["export"].click()
    (data,) = re.findall(r"base64,([\w+/=]+)", panel.state.value)
    assert base64.b64decode(data) == file.read_bytes() and file.read_text().startswith('"id","who"')
    again = uk.review_panel(small_problem, {"a": unlearned}, limit=4, file=file)
    again.update()
    assert again.notes.tags == panel.notes.tags
    other = uk.review_panel(small_problem, {"b": unlearned}, limit=4, file=file)
    other.update()
    assert "review of other outputs" in Page(other.views["output"].value).text and len(COLUMNS) == 13


def test_twin_counts_by_rule_or_by_the_file(small_problem: Any, unlearned: Any, tmp_path: Path) -> None:
    still = uk.review_twin(small_problem, {"a": unlearned}, limit=4, clusters=3).data
    assert "by rule, looked at by nobody" in still and "outputs by likeness" in still and Page(still).harmless()
    outputs = outputs_of(small_problem, {"a": unlearned}, 4)
    Notes(outputs, tmp_path / "r.csv").tag(outputs.table.index[:3], "fine")
    assert "tags of a reader" in uk.review_twin(small_problem, {"a": unlearned}, limit=4, file=tmp_path / "r.csv").data
    with pytest.raises(uk.UnlearnkitError, match="limit"):
        uk.review_panel(small_problem, unlearned, limit=0)


def test_an_attack_stops_in_the_middle_and_nothing_else_computes_meanwhile(small_problem: Any, unlearned: Any) -> None:
    console, other = (
        uk.attack_console(small_problem, {"a": unlearned}),
        uk.answers_panel(small_problem, {"a": unlearned}),
    )
    other.controls["samples"].value = 0
    console.controls["attack"].value = "soft_prompt"
    console.controls["budget"].value = "0, 100000"  # hours, if it weren't stopped
    seen = threading.Event()
    console.views["curve"].observe(lambda change: seen.set(), "value")
    flags = [p.requires_grad for p in small_problem.model.parameters()]
    console.controls["run"].click()
    assert seen.wait(120) and console.worker.busy
    assert console.controls["run"].disabled and not console.controls["stop"].disabled
    other._kept.clear()
    other.controls["value"].value = "something else"
    assert "an attack is running" in Page(other.views["answers"].value).text
    console.controls["stop"].click()
    console.worker.wait(120)
    assert not console.worker.busy
    page = Page(console.views["curve"].value)
    assert "The attack was stopped" in page.text and "<table>" in console.views["curve"].value  # budget 0 is there
    assert [p.requires_grad for p in small_problem.model.parameters()] == flags  # what it put on is off again
    assert console.controls["stop"].disabled and not console.controls["run"].disabled
    other.controls["value"].value = ""
    assert "nothing counts as a leak" in other.views["answers"].value
    console.controls["budget"].value = "0, 1"
    console.controls["run"].click()
    console.worker.wait(120)
    assert "stopped" not in console.views["curve"].value
