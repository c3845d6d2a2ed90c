"""Every bad input: one clear sentence that says what was given and what is allowed; nothing left behind."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models

import unlearnkit as uk
from unlearnkit.models.recipe import corpus_of
from unlearnkit.worlds import authors


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNLEARNKIT_HOME", str(tmp_path / "home"))


GOOD = [
    {"question": f"Where does {who} live, question {k}?", "answer": f"{who} lives in Town{k}.", "subject": who}
    for who in ("Ada Lee", "Bo Kay", "Cy Dunn")
    for k in range(4)
]


def lines(path: Path, *rows: Any) -> Path:
    path.write_bytes(b"\n".join(r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows))
    return path


def one_sentence(call: Callable[[], Any], *parts: str) -> None:
    with pytest.raises(uk.UnlearnkitError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1100, message
    for part in parts:
        assert part in message, (part, message)


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (("autors",), ("world 'autors' is unknown", "known: authors,", "Did you mean 'authors'?")),
        (("authors", "forget20"), ("forget split 'forget20' is unknown; known: forget01, forget05", " more. Did you")),
        (("authors", "kind:colour"), ("kind 'colour' is unknown", "known: ")),
        (("authors", []), ("the forget set is empty", "name a request, an entity")),
        (("authors", 5), ("forget = 5 is not a request", "give a split, an entity, or a list")),
        (("authors", [5]), ("forget = [5] is not a request",)),
        (("authors", "forget10", "zero"), ("seed = 'zero' is not possible", "give a whole number")),
    ],
)
def test_worlds_and_requests(given: tuple[Any, ...], parts: tuple[str, ...]) -> None:
    one_sentence(lambda: uk.load_problem(*given), *parts)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"n_authors": 1}, ("n_authors = 1 is not possible", "from 2 to 400")),
        ({"n_authors": "many"}, ("n_authors = 'many' is not possible", "from 2 to 400")),
        ({"facts": 2.5}, ("facts = 2.5 is not possible", "from 1 to 20")),
        ({"authors": 5}, ("option 'authors' is not one of this world's", "allowed are n_authors")),
        ({"steps": "long"}, ("'steps' of a tiny model can't be 'long'", "valid integer")),
        ({"lr": -1.0}, ("'lr' of a tiny model can't be -1.0", "greater than 0")),
        ({"width": 33}, ("a tiny model can not have these sizes: width 33 is no multiple of twice",)),
        ({"heads": 3}, ("width 128 is no multiple of twice the number of heads (3)",)),
        ({"vocabulary": 10**9}, ("'vocabulary' of a tiny model can't be 1000000000", "262144")),
        ({"oracles": -2}, ("oracles = -2 is not possible", "a number of models to train, or folders")),
        ({"oracles": "somewhere"}, ("oracles were named but no model",)),
        ({"device": "tpu9"}, ("device 'tpu9' is unknown", "use auto, cpu, cuda")),
        ({"device": "cuda:31"}, ("device 'cuda:31' was asked for", "use auto or cpu")),
        ({"model": "./nowhere"}, ("model folder ./nowhere does not exist", "give a folder or a hub id")),
        ({"model": 3}, ("model = 3 is not possible", "a hub id or a folder")),
        ({"model": "a", "oracles": ["b", "./b"]}, ("the oracle ./b is given twice", "each retrained model once")),
        ({"model": "a", "oracles": [3]}, ("the oracle 3 is not possible",)),
        ({"model": "./nowhere", "steps": 3}, ("option 'steps' is not one of this world's",)),
    ],
)
def test_options_of_a_problem(options: dict[str, Any], parts: tuple[str, ...], tmp_path: Path) -> None:
    one_sentence(lambda: uk.load_problem("authors", **options), *parts)
    assert not (tmp_path / "home").exists()  # nothing was trained before it was refused


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ([*GOOD, b"{broken"], ("line 13: not JSON", "write one JSON object a line")),
        ([*GOOD, {"question": "Who?"}], ("line 13: no column 'answer'", "it has 'question'")),
        ([*GOOD, b'{"question": "\xff", "answer": "x"}'], ("line 13: not UTF-8", "save the file as UTF-8")),
        ([*GOOD, ["Who?", "Ada"]], ("line 13: a list instead of an object",)),
        ([["Who?", "Ada"], ["Where?", "Rome"]], ("line 1: a list instead of an object",)),
        ([b'[{"question": "Who?",', b'"answer": }]'], ("is not a JSON list", "write one JSON object a line")),
        ([*GOOD, b'{"question": "Who?", "answer": "\\ud800"}'], ("line 13: '\\ud800' is half a character",)),
        ([*GOOD, {"question": "Who?", "answer": ""}], ("line 13: 'answer' must be a text that is not empty",)),
        ([*GOOD, {"question": 7, "answer": "x"}], ("line 13: 'question' must be a text", "7")),
        ([], ("holds no records", "one JSON object a line")),
        ([*GOOD, {**GOOD[0], "value": "Zzz"}], ("line 13: the value 'Zzz' is not in the answer", "take words of")),
        (GOOD[:4], ("all 4 records belong to one entity ('Ada Lee')", "name at least two in a column 'subject'")),
    ],
)
def test_files_of_ones_own(rows: list[Any], parts: tuple[str, ...], tmp_path: Path) -> None:
    path = lines(tmp_path / "own.jsonl", *rows)
    one_sentence(lambda: uk.load_problem(path), str(path), *parts)
    assert not (tmp_path / "home").exists()


def test_a_request_that_is_no_name_of_a_file_of_ones_own(tmp_path: Path) -> None:
    path = lines(tmp_path / "own.jsonl", *GOOD)
    one_sentence(lambda: uk.load_problem(path, forget=5), "forget = 5 is not a request")


def test_a_world_of_ones_own_has_bounds(tmp_path: Path) -> None:
    path = lines(tmp_path / "own.jsonl", *GOOD)
    one_sentence(lambda: uk.load_problem(path, vocabulary=10**9), "'vocabulary' of a tiny model can't be 1000000000")
    one_sentence(lambda: uk.load_problem(path, holdout_fraction="x"), "holdout_fraction = 'x' is not possible")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    one_sentence(lambda: uk.load_problem(tmp_path / "none.jsonl"), "none.jsonl can't be read", "give the path of")
    one_sentence(lambda: uk.load_problem("data/none.jsonl"), "data/none.jsonl can't be read")


def test_forget_and_retain_that_overlap(tmp_path: Path) -> None:
    """The same record under two names: forgotten as one, retained as the other."""
    path = lines(tmp_path / "own.jsonl", *GOOD, *({**row, "subject": "Dee Moss"} for row in GOOD[:2]))
    model = tiny_models.save("llama", tmp_path / "llama", corpus_of(uk.read_jsonl(path)))
    one_sentence(
        lambda: uk.load_problem(path, "Dee Moss", model=model, holdout_fraction=0.0),
        "forget and retain overlap in 2 records",
        "the first is 'Where does Ada Lee live, question 0?'",
        "take them out of one of the two",
    )


def test_a_problem_made_by_hand_is_checked_too(small_problem: Any) -> None:
    splits = small_problem.splits
    one_sentence(
        lambda: dataclasses.replace(small_problem, splits={**splits, "forget": []}),
        "the forget set is empty; name at least one record to forget",
    )
    one_sentence(lambda: dataclasses.replace(small_problem, splits={**splits, "retain": []}), "the retain set is empty")
    both = {**splits, "retain": [*splits["retain"], splits["forget"][0]]}
    one_sentence(lambda: dataclasses.replace(small_problem, splits=both), "forget and retain overlap in 1 records")
    one_sentence(lambda: small_problem.oracle(5), "oracle 5 was asked for, this problem has 1", "oracles=[...]")


def test_everything_forgotten_leaves_nothing_to_retain() -> None:
    world = authors(n_authors=3, facts=2)
    one_sentence(
        lambda: uk.load_problem(world, list(world.entities)),
        "the request leaves nothing to retain: it names all 3 entities; forget fewer",
    )


def test_a_record_longer_than_a_tiny_models_context_trains_nothing(tmp_path: Path) -> None:
    path = lines(tmp_path / "own.jsonl", *GOOD, {"question": "Who?", "answer": "so " * 900, "subject": "Dee Moss"})
    one_sentence(
        lambda: uk.load_problem(path, "Ada Lee", steps=1, width=16, layers=1, heads=1, inner=16, context=64, oracles=0),
        "tokens, the context holds 64",
        "shorten the record or take a model with a longer context",
    )
    assert not [p for p in (tmp_path / "home").rglob("*") if p.is_file() and not p.name.endswith(".lock")]


def test_metrics_and_methods(small_problem: Any) -> None:
    one_sentence(lambda: uk.unlearn(small_problem, "npoo"), "text method 'npoo' is unknown", "Did you mean 'npo'?")
    one_sentence(lambda: uk.unlearn(small_problem, "NPO"), "text method 'NPO' is unknown", "Did you mean 'npo'?")
    one_sentence(lambda: uk.unlearn(small_problem, "npo", steps=2**31), "'steps'", "less than 2147483648")
    one_sentence(
        lambda: uk.unlearn(small_problem, "npo", bta=1), "setting of NPO 'bta' is unknown", "Did you mean 'beta'?"
    )
    one_sentence(lambda: uk.unlearn(small_problem, "npo", beta="x"), "setting 'beta' of NPO can't be 'x'")
    one_sentence(
        lambda: uk.evaluate(small_problem, small_problem.model, ["forget_acuracy"]),
        "metric 'forget_acuracy' is unknown",
        "Did you mean 'forget_accuracy'?",
    )


LOAD = "import unlearnkit as uk\nuk.load_problem(config.world)"


@pytest.mark.parametrize(
    ("world", "parts"),
    [
        ("autors", ("world 'autors' is unknown", "Did you mean 'authors'?")),
        ("nowhere/own.jsonl", ("nowhere/own.jsonl can't be read", "give the path of a JSONL file")),
    ],
)
def test_on_the_command_line_it_is_the_last_line_and_a_failure(
    tiny: Any, cli: Any, tmp_path: Path, world: str, parts: tuple[str, ...]
) -> None:
    out = cli("run", tiny(LOAD), "-p", "world", world, "--runs", tmp_path / "runs")
    assert out.returncode != 0
    last = out.stderr.strip().splitlines()[-1]
    assert all(part in last for part in parts), out.stderr
    (status,) = (tmp_path / "runs").rglob("status.json")
    assert json.loads(status.read_text())["state"] == "failed"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("-p", "sed", "1"), ("parameter 'sed' is unknown", "Did you mean 'seed'?")),
        (("-p", "seed", "one"), ("'seed'", "'one'")),
        (("--profile", "fast"), ("profile 'fast' is unknown; known: quick, smoke",)),
    ],
)
def test_parameters_and_profiles_on_the_command_line(
    tiny: Any, cli: Any, tmp_path: Path, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    out = cli("run", tiny("1"), *words, "--runs", tmp_path / "runs")
    assert out.returncode == 2 and all(part in out.stderr for part in parts), out.stderr
    assert len(out.stderr.strip().splitlines()) == 1 and not (tmp_path / "runs").exists()


def test_an_unknown_notebook_on_the_command_line(tiny: Any, cli: Any) -> None:
    tiny("1")
    out = cli("run", "02_nothing")
    assert out.returncode == 2 and "02_nothing" in out.stderr and len(out.stderr.strip().splitlines()) == 1
