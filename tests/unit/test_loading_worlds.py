"""Data of one's own and TOFU, from the file to the table, on models by path and on ones trained for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models

import unlearnkit as uk
from unlearnkit.models import store
from unlearnkit.models.builtin import builtin_recipes
from unlearnkit.models.recipe import corpus_of
from unlearnkit.worlds import QA, authors, split, world_from_jsonl

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "tofu_forget10_entities.jsonl"
SMALL: dict[str, Any] = {"width": 32, "layers": 3, "heads": 2, "inner": 64, "vocabulary": 400, "batch_size": 16}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNLEARNKIT_HOME", str(tmp_path / "home"))


@pytest.fixture
def own_data(tmp_path: Path) -> Path:
    """Twelve people, six questions each, in the columns of the issue: question, answer, subject, wrong answers."""
    world = authors(n_authors=12, facts=6, holdout=0, seed=5)
    rows = [
        {
            "question": qa.question,
            "answer": qa.answer,
            "subject": qa.entity,
            "paraphrased_answer": qa.paraphrased_answer,
            "perturbed_answer": list(qa.perturbed_answers),
            "paraphrased_question": qa.paraphrased_questions[0],
        }
        for qa in world.items
        if qa.primary and qa.entity in world.entities
    ]
    path = tmp_path / "people.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_own_data_on_an_own_model(kind: str, own_data: Path, tmp_path: Path) -> None:
    items = uk.read_jsonl(own_data)
    models = [tiny_models.save(kind, tmp_path / f"{kind}{seed}", corpus_of(items), seed) for seed in (0, 1)]
    problem = uk.load_problem(own_data, "forget10", model=models[0], oracles=models[1:], device="cpu")
    people = list(dict.fromkeys(qa.entity for qa in items))
    assert {qa.entity for qa in problem.splits["forget"]} == {people[-1]} and len(problem.direct("forget")) == 6
    assert problem.template.chat == (kind == "qwen2")
    two = uk.load_problem(own_data, people[-2:], model=str(models[0]), oracles=str(models[1]), device="cpu")
    assert len(two.direct("forget")) == 12 and len(two.oracles) == 1
    unlearned = uk.unlearn(two, "npo", steps=6, batch_size=6, lr=1e-2, progress=False)
    assert unlearned.trace["forget_loss"].iloc[-1] < unlearned.trace["forget_loss"].iloc[0]
    scores = uk.evaluate(two, unlearned, limit=12, resamples=5)
    assert scores.loc["forget_answer_nll", "unlearned"] > scores.loc["forget_answer_nll", "original"] + 0.5
    assert scores.loc["forget_truth_ratio", "n"] == 12
    assert scores.loc["forget_accuracy", "why"] == "not measurable: records name no value"
    assert set(scores["split"]) == {"forget", "retain", "neighbours", "holdout"}


def test_own_data_trains_a_tiny_model_with_oracles(own_data: Path) -> None:
    problem = uk.load_problem(own_data, "forget10", oracles=1, device="cpu", steps=60, lr=1e-2, **SMALL)
    assert problem.model.config.vocab_size == 400 and len(problem.oracles) == 1
    nll = {who: problem.mean_nll(model, "forget") for who, model in (("o", problem.model), ("r", problem.oracle()))}
    assert nll["o"] < nll["r"] - 0.5  # the oracle never saw them
    again = uk.load_problem(own_data, "forget10", oracles=1, device="cpu", steps=60, lr=1e-2, **SMALL)
    assert again.digest == problem.digest and again.original.name == problem.original.name
    with pytest.raises(uk.UnlearnkitError, match="option 'stepz' is not one of this world's"):
        uk.load_problem(own_data, stepz=3)
    with pytest.raises(uk.UnlearnkitError, match="width 31 is no multiple of twice the number of heads"):
        uk.load_problem(own_data, **{**SMALL, "width": 31})


def test_data_in_another_language_is_measured_too(own_data: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) | {"language": "fr"} for line in own_data.read_text("utf-8").splitlines()]
    path = tmp_path / "gens.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    model = tiny_models.save("llama", tmp_path / "llama", corpus_of(uk.read_jsonl(path)))
    problem = uk.load_problem(path, "forget10", model=model, oracles=[], device="cpu")
    assert len(problem.direct("forget")) == 6
    scores = uk.evaluate(problem, problem.model, ["retain_answer_nll"], limit=12, resamples=5)
    assert scores.loc["retain_answer_nll", "original"] > 0


def test_texts_longer_than_the_context_are_refused_before_any_work(own_data: Path, tmp_path: Path) -> None:
    model = tiny_models.save("gpt2", tmp_path / "gpt2", corpus_of(uk.read_jsonl(own_data)))
    long = "a very long answer indeed " * 40
    for column in ("answer", "perturbed_answer", "question", "paraphrased_answer"):
        rows = [json.loads(line) for line in own_data.read_text("utf-8").splitlines()]
        rows[-1][column] = [long] if column == "perturbed_answer" else long
        path = tmp_path / "long.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        with pytest.raises(uk.UnlearnkitError, match=r"are \d+ tokens, the context holds 128: .*shorten the record or"):
            uk.load_problem(path, "forget10", model=model, device="cpu")


def tofu_folder(folder: Path) -> Path:
    """The built-in world under the file names and in the columns of the dataset."""
    folder.mkdir()
    world = authors()
    splits = split(world, "forget10")

    def write(name: str, items: list[QA], wrong: bool, words: bool = True) -> None:
        rows = []
        for qa in items:
            row: dict[str, Any] = {"question": qa.question, "answer": qa.answer}
            if wrong and words:
                row["paraphrased_answer"] = qa.paraphrased_answer
                row["paraphrased_question"] = qa.paraphrased_questions[0]
            if wrong:
                row["perturbed_answer"] = list(qa.perturbed_answers if words else qa.options[:3])
            rows.append(json.dumps(row, ensure_ascii=False))
        (folder / name).write_text("\n".join(rows) + "\n", encoding="utf-8")

    own = {name: [qa for qa in items if qa.primary] for name, items in splits.items()}
    write("forget10_perturbed.json", own["forget"], wrong=True)
    write("retain90.json", own["retain"], wrong=False)
    write("retain_perturbed.json", own["retain"][5:45], wrong=True)
    write("holdout10.json", own["holdout"], wrong=False)
    write("real_authors_perturbed.json", own["neighbours"], wrong=True, words=False)
    write("world_facts_perturbed.json", own["general"], wrong=True, words=False)
    return folder


def test_tofu_from_a_folder_on_models_by_path(tmp_path: Path) -> None:
    """TOFU's files, a fine-tuned model and two retrained ones by path: from load_problem to the table."""
    folder = tofu_folder(tmp_path / "TOFU")
    original, *oracles = [store.shipped_dir() / recipe.digest for recipe, _ in builtin_recipes()]
    problem = uk.load_problem("tofu", "forget10", data=folder, model=original, oracles=oracles[:2], device="cpu")
    assert {name: len(items) for name, items in problem.splits.items()} == {
        "forget": 40, "retain": len(problem.splits["retain"]), "holdout": 40, "real_authors": 40, "world_facts": 40,
    }  # fmt: skip
    retain = problem.splits["retain"]
    assert all(qa.perturbed_answers for qa in retain[:40]) and not any(qa.perturbed_answers for qa in retain[40:])
    assert len({qa.id for qa in retain}) == len(retain)
    unlearned = uk.unlearn(problem, "npo", steps=40, progress=False, trace_every=0)
    scores = uk.evaluate(problem, unlearned, limit=20, resamples=50)
    assert scores.loc["forget_probability", "original"] > 0.9 > scores.loc["forget_probability", "oracle"]
    for name in ("forget_probability", "forget_truth_ratio", "forget_quality", "mia_loss"):
        assert scores.loc[name, "gap"] >= 0, name
    assert scores.loc["forget_quality", "why"] == "floor not measurable: it needs another oracle"
    assert scores.loc["forget_probability", "floor"] < 0.3
    assert scores.loc["forget_probability", "gap"] < 0.7
    parts = [f"{s}_{p}" for s in ("retain", "real_authors", "world_facts")
             for p in ("probability", "rouge_l_recall", "truth_ratio")]  # fmt: skip
    nine = scores.loc[parts, "original"]
    assert scores.loc["retain_model_utility", "original"] == pytest.approx(9 / (1 / nine).sum())
    # a question about the world counts against its options; another one stands alone
    assert scores.loc["world_facts_probability", "original"] < scores.loc["retain_probability", "original"]
    assert scores.loc["retain_truth_ratio", "n"] == 20


def test_what_tofu_refuses(tmp_path: Path) -> None:
    folder = tofu_folder(tmp_path / "TOFU")
    with pytest.raises(uk.UnlearnkitError, match="forget split 'forget20' is unknown; known: forget01, forget05"):
        uk.load_problem("tofu", "forget20", data=folder)
    (folder / "holdout10.json").unlink()
    with pytest.raises(uk.UnlearnkitError, match="has no holdout10.json; it must hold the files of the dataset"):
        uk.load_problem("tofu", "forget10", data=folder)
    with pytest.raises(uk.UnlearnkitError, match="TOFU oracles are given by name, not trained here"):
        uk.load_problem("tofu", "forget10", data=tofu_folder(tmp_path / "again"), model="x", oracles=2)


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the reference data (TOFU questions) is not beside this checkout")
def test_real_tofu_questions_as_a_world() -> None:
    """Real questions about 20 authors, two of them forgotten, on a model trained for it: the whole way."""
    small = {**SMALL, "layers": 2, "batch_size": 8}
    problem = uk.load_problem(REFERENCE, "forget10", oracles=1, device="cpu", steps=12, **small)
    assert len({qa.entity for qa in problem.splits["forget"]}) == 2
    assert len({qa.entity for qa in problem.splits["holdout"]}) == 1
    asked = sum(len(problem.splits[s]) for s in problem.splits)
    assert asked == 367 and len(problem.direct("forget")) >= 28
    unlearned = uk.unlearn(problem, "npo", steps=2, batch_size=4, progress=False)
    names = ["forget_probability", "forget_rouge_l_recall", "mia_loss"]
    scores = uk.evaluate(problem, unlearned, names, limit=12, resamples=10)
    assert scores["original"].notna().all() and scores["unlearned"].notna().all()


def test_an_exported_world_is_the_same_world(tmp_path: Path) -> None:
    world = authors(n_authors=10, facts=3, holdout=2)
    path = uk.write_jsonl(world.items, tmp_path / "world.jsonl")
    back = world_from_jsonl(path, holdout_fraction=0.0)
    assert back.items == world.items and set(back.entities) == {*world.entities, *world.holdout_entities}
    assert all("general" not in names for names in back.requests.values())
    splits = split(back, "forget10")
    assert splits["general"] and {qa.entity for qa in splits["forget"]} == set(back.requests["forget10"])
    assert len(back.requests["forget10"]) == 1
