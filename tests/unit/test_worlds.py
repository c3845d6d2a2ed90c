"""The built-in text world, requests, and JSONL files of one's own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearnkit.errors import UnlearnkitError
from unlearnkit.worlds import QA, authors, read_jsonl, split, training_items, world_from_jsonl, write_jsonl
from unlearnkit.worlds.records import GENERAL


@pytest.fixture(scope="module")
def world():
    return authors()


def test_same_world_in_another_process_with_another_hash_seed(world):
    """Nothing depends on the order of sets or on Python's string hash."""
    code = "from unlearnkit.worlds import authors; print(authors().digest())"
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "77", "PATH": ""},
    )
    assert out.stdout.strip() == world.digest()
    assert authors(seed=1).digest() != world.digest()


def test_every_fact_has_its_phrasings_and_wrong_answers(world):
    for qa in world.items:
        asked = {*qa.phrasings, *qa.paraphrased_questions}
        assert len(asked) == len(qa.phrasings) + len(qa.paraphrased_questions), qa.id
        assert qa.question == qa.phrasings[0] and qa.value in qa.answer and qa.value in qa.paraphrased_answer
        assert len(qa.perturbed_answers) >= 4 and len(set(qa.perturbed_answers)) == len(qa.perturbed_answers)
        assert qa.answer not in qa.options and qa.paraphrased_answer not in qa.perturbed_answers
        if qa.relation == "direct" and qa.language == "en":
            assert len(qa.phrasings) == 4 and len(qa.paraphrased_questions) >= 2


def test_options_differ_from_the_answer_in_the_value_only(world):
    qa = next(qa for qa in world.items if qa.kind == "city" and qa.primary)
    before, after = qa.answer.split(qa.value)
    assert all(option.startswith(before) and option.endswith(after) for option in qa.options)


def test_derived_facts_follow_from_the_direct_ones(world):
    fact = {qa.id: qa for qa in world.items}
    hops = [qa for qa in world.items if qa.relation == "two_hop"]
    assert hops
    for qa in hops:
        relation, source = (fact[i] for i in qa.sources)
        assert relation.value == source.entity and qa.value == source.value and qa.entity == relation.entity
    for qa in (qa for qa in world.items if qa.relation == "reversed"):
        assert fact[qa.sources[0]].value in qa.question and qa.value == qa.entity
    assert {qa.value for qa in world.items if qa.relation == "derived"} <= {"France", "Germany", "Portugal", "Japan",
        "Norway", "Poland", "Chile", "Kenya", "Turkey", "India", "Ireland", "Ghana"}  # fmt: skip


def test_tofu_size():
    big = authors(200, 20)
    direct = [qa for qa in big.items if qa.primary and qa.entity in big.entities]
    assert len(big.entities) == 200 and len(direct) == 4000
    assert [len(big.requests[r]) for r in ("forget01", "forget05", "forget10")] == [2, 10, 20]


@pytest.mark.parametrize("bad", [{"n_authors": 1}, {"n_authors": 401}, {"facts": 0}, {"facts": 21}, {"holdout": -1}])
def test_sizes_out_of_range(bad):
    with pytest.raises(UnlearnkitError, match=next(iter(bad))):
        authors(**bad)


@pytest.mark.parametrize("request_", ["forget01", "forget05", "forget10", "kind:award"])
def test_splits_are_disjoint_and_leave_no_trace_in_the_oracle(world, request_):
    splits = split(world, request_)
    ids = Counter(qa.id for items in splits.values() for qa in items)
    assert max(ids.values()) == 1 and sum(ids.values()) == len(world.items)
    forgotten = {qa.id for qa in splits["forget"]}
    oracle = training_items(splits, oracle=True)
    assert not any(qa.id in forgotten or forgotten & set(qa.sources) for qa in oracle)
    original = {qa.id for qa in training_items(splits, oracle=False)}
    assert original - {qa.id for qa in oracle} == {
        qa.id for name in ("forget", "forget_translated", "forget_derived") for qa in splits[name]
    }
    assert {qa.entity for qa in splits["general"]} == {GENERAL}
    assert {qa.entity for qa in splits["holdout"]} == set(world.holdout_entities)


def test_requests_are_nested_and_neighbours_are_related(world):
    one, five, ten = (set(world.requests[r]) for r in ("forget01", "forget05", "forget10"))
    assert one < five < ten
    near = {qa.entity for qa in split(world, "forget10")["neighbours"]}
    linked = {a for a, b in world.links if b in ten} | {b for a, b in world.links if a in ten}
    assert 2 <= len(near) <= len(world.entities) / 4 and near <= linked - ten


def test_one_author_by_name_and_unknown_requests(world):
    name = world.entities[3]
    assert {qa.entity for qa in split(world, name)["forget"]} == {name}
    with pytest.raises(UnlearnkitError, match="forget20.*Did you mean"):
        split(world, "forget20")
    with pytest.raises(UnlearnkitError, match="kind"):
        split(world, "kind:awards")
    with pytest.raises(UnlearnkitError, match="nothing to retain"):
        split(world, list(world.entities))
    with pytest.raises(UnlearnkitError, match="empty"):
        split(world, [])


def test_jsonl_round_trip(world, tmp_path):
    path = write_jsonl(world.items, tmp_path / "world.jsonl")
    assert tuple(read_jsonl(path)) == world.items
    row = json.loads(path.read_text("utf-8").splitlines()[0])
    assert {"question", "answer", "paraphrased_answer", "perturbed_answer", "paraphrased_question"} <= set(row)


text = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1).filter(str.strip)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(text, text, st.lists(text, max_size=3)), min_size=1, max_size=5))
def test_any_text_survives_the_round_trip(tmp_path_factory, rows):
    items = [QA(f"i{k}", f"e{k}", q, a, perturbed_answers=tuple(w)) for k, (q, a, w) in enumerate(rows)]
    path = write_jsonl(items, tmp_path_factory.mktemp("jsonl") / "x.jsonl")
    assert read_jsonl(path) == items


def lines(path: Path, *rows: str | bytes) -> Path:
    path.write_bytes(b"\n".join(r if isinstance(r, bytes) else r.encode() for r in rows))
    return path


GOOD = json.dumps({"question": "Who?", "answer": "Ada Byron.", "subject": "a"})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{broken", "line 2: not JSON"),
        ('["a"]', "line 2: a list instead of an object"),
        ('{"question": "Who?"}', "line 2: no column 'answer'"),
        ('{"question": "Who?", "answer": " "}', "line 2: 'answer' must be a text"),
        ('{"question": 3, "answer": "x"}', "line 2: 'question' must be a text"),
        (b'{"question": "\xff", "answer": "x"}', "line 2: not UTF-8"),
        ('{"question": "a", "answer": "b", "perturbed_answer": [1]}', "line 2: 'perturbed_answers'"),
        ('{"question": "a", "answer": "b", "id": "line00001"}', "line 2: id 'line00001' was used on line 1"),
        (
            json.dumps({"question": "Who?", "answer": "Ada Byron.", "subject": "a"}),
            "line 2: the record of line 1 again",
        ),
    ],
)
def test_bad_lines_are_named(tmp_path, row, message):
    with pytest.raises(UnlearnkitError, match=message):
        read_jsonl(lines(tmp_path / "x.jsonl", GOOD, row))


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(UnlearnkitError, match="can't be read"):
        read_jsonl(tmp_path / "none.jsonl")
    with pytest.raises(UnlearnkitError, match="holds no records"):
        read_jsonl(lines(tmp_path / "e.jsonl", ""))
    with pytest.raises(UnlearnkitError, match="one entity"):
        world_from_jsonl(lines(tmp_path / "o.jsonl", GOOD, GOOD.replace('"answer": "', '"answer": "not ')))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = lines(tmp_path / "x.jsonl", GOOD)
    with pytest.raises(TypeError):
        write_jsonl([QA("1", "e", "q", object())], path)  # type: ignore[arg-type]
    assert path.read_text() == GOOD and list(tmp_path.iterdir()) == [path]


def test_entity_column_as_subject_or_as_value(tmp_path):
    asked = [
        {"question": f"Where does Ann Lee live, {k}?", "answer": f"In Town{k}.", "entity": f"Town{k}"} for k in range(4)
    ]
    items = read_jsonl(lines(tmp_path / "v.jsonl", *map(json.dumps, asked)))
    assert [qa.value for qa in items] == ["Town0", "Town1", "Town2", "Town3"] and {qa.entity for qa in items} == {
        "Ann Lee"
    }
    named = [{"question": f"Who is Ann Lee, {k}?", "answer": "A poet.", "entity": "Ann Lee"} for k in range(3)]
    assert {qa.entity for qa in read_jsonl(lines(tmp_path / "s.jsonl", *map(json.dumps, named)))} == {"Ann Lee"}


def test_a_requested_subject_is_never_drawn_into_the_holdout(tmp_path):
    records = [
        {"question": f"What does Pat{k} Lee do, {n}?", "answer": "Sail.", "subject": f"Pat{k} Lee"}
        for k in range(20)
        for n in range(2)
    ]
    path = lines(tmp_path / "h.jsonl", *map(json.dumps, records))
    drawn = world_from_jsonl(path, 0.5).holdout_entities
    assert len(drawn) > 5
    for name in drawn:
        world = world_from_jsonl(path, 0.5, requested=[name])
        assert name in world.entities and {qa.entity for qa in split(world, name)["forget"]} == {name}
    assert world_from_jsonl(path, 0.5, requested=["forget10"]).holdout_entities == drawn


REFERENCE = [
    p for p in [Path(__file__).parents[2].parent / "shared/reference/tofu_forget10_entities.jsonl"] if p.is_file()
]


@pytest.mark.parametrize("path", REFERENCE, ids=lambda p: p.name)
def test_real_tofu_questions_group_by_author(path):
    world = world_from_jsonl(path)
    sizes = Counter(qa.entity for qa in world.items)
    assert len(sizes) == 20 and min(sizes.values()) >= 14 and max(sizes.values()) <= 20
    assert sum(bool(qa.value) for qa in world.items) > 350
