"""The world `authors`: fictitious authors made from a seed, with derived facts, a second language and true facts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import yaml

from unlearnkit.errors import UnlearnkitError
from unlearnkit.paths import data_dir
from unlearnkit.worlds.records import GENERAL, QA, TextWorld

TRAINED = {"en": 4, "fr": 2}  # phrasings drawn for training; the others are held out
TRAINED_DERIVED = 3
WRONG = 5  # perturbed answers a record
REQUESTS = {"forget01": 0.01, "forget05": 0.05, "forget10": 0.10}  # share of the authors, nested
Value = dict[str, str]  # language → word


def authors(n_authors: int = 40, facts: int = 10, seed: int = 0, holdout: int = 4) -> TextWorld:
    """A world of `n_authors` trained and `holdout` never-trained authors with `facts` direct facts each.

    The same arguments give the same world on every machine.

    Args:
        n_authors: 2 to 400 (200 with 20 facts is TOFU's size).
        facts: direct facts an author, 1 to 20, in the order of ``data/worlds/authors.yml``.
        holdout: authors that no model is trained on.

    Raises:
        UnlearnkitError: a number out of its range.
    """
    spec = _spec("authors")
    _check("n_authors", n_authors, 2, 400)
    _check("facts", facts, 1, len(spec["kinds"]))
    _check("holdout", holdout, 0, 100)
    kinds = dict(list(spec["kinds"].items())[:facts])
    total = n_authors + holdout
    names = _names(spec, total, seed)
    trained, unseen = names[:n_authors], names[n_authors:]
    truth = _facts(spec, kinds, names, seed)
    pools = {pool: _pool(spec, pool) for pool in spec["pools"]} | {
        "author": [_word(n) for n in names],
        "title": [truth[i][k] for i in range(total) for k, kind in kinds.items() if kind["pool"] == "title"],
    }
    items: list[QA] = []
    for i, name in enumerate(names):
        for key, kind in kinds.items():
            items += _bilingual(f"a{i:03d}.{key}", name, kind, truth[i][key], pools[kind["pool"]], {"name": name}, seed)
        for key, rule in spec["derived"].items():
            found = _derived(spec, rule, i, names, truth)
            if found and (i >= n_authors or all(who < n_authors for who, _ in found[1])):
                value, sources = found
                slots = {"name": name, "title": truth[i].get("debut", {}).get("en", "")}
                items.append(
                    _record(
                        f"a{i:03d}.{key}", name, rule, "en", value, pools[rule["pool"]], slots, seed,
                        TRAINED_DERIVED, relation=rule["relation"],
                        sources=tuple(f"a{who:03d}.{what}" for who, what in sources),
                    )
                )  # fmt: skip
    items += _general(seed)
    order = list(trained)
    random.Random(f"{seed} requests").shuffle(order)
    requests = {request: tuple(order[: max(1, round(share * n_authors))]) for request, share in REQUESTS.items()}
    links = {
        (names[i], truth[i][key]["en"])
        for i in range(n_authors)
        for key, kind in kinds.items()
        if kind["pool"] == "author"
    }
    label = f"authors-{n_authors}x{facts}" + (f"-seed{seed}" if seed else "")
    return TextWorld(label, tuple(items), tuple(trained), tuple(unseen), requests, frozenset(links))


def name_parts() -> tuple[list[str], list[str]]:
    """First and family names that authors are named from."""
    return list(_spec("authors")["first_names"]), list(_spec("authors")["last_names"])


@lru_cache
def _spec(name: str) -> dict[str, Any]:
    return yaml.safe_load((data_dir() / "worlds" / f"{name}.yml").read_text(encoding="utf-8"))


def _check(name: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, int) or not low <= value <= high:
        raise UnlearnkitError(
            f"{name} = {value!r} is not possible in the world authors; give a number from {low} to {high}."
        )


def _word(entry: Any) -> Value:
    """An entry of a pool as {language: word}."""
    if isinstance(entry, dict):
        return {"en": entry["en"], "fr": entry.get("fr", entry["en"])}
    return {"en": str(entry), "fr": str(entry)}


def _pool(spec: dict[str, Any], pool: str) -> list[Value]:
    values = spec["pools"][pool]
    if isinstance(values, dict):
        return [_word(year) for year in range(values["from"], values["to"] + 1)]
    return [_word(entry) for entry in values]


def _names(spec: dict[str, Any], count: int, seed: int) -> list[str]:
    """Distinct full names; a family name comes back only when all have been used."""
    draw = random.Random(f"{seed} names")
    first, last = list(spec["first_names"]), list(spec["last_names"])
    draw.shuffle(first)
    draw.shuffle(last)
    rounds = 0
    taken: list[str] = []
    while len(taken) < count:
        taken += [f"{first[(i + rounds * 7) % len(first)]} {surname}" for i, surname in enumerate(last)]
        rounds += 1
    return taken[:count]


def _facts(spec: dict[str, Any], kinds: dict[str, Any], names: Sequence[str], seed: int) -> list[dict[str, Value]]:
    """The truth: for each author, the value of each kind of fact."""
    titles = [f"The {a} {b}" for a in spec["title_first"] for b in spec["title_second"]]
    random.Random(f"{seed} titles").shuffle(titles)
    truth: list[dict[str, Value]] = []
    for i in range(len(names)):
        known: dict[str, Value] = {}
        for key, kind in kinds.items():
            draw = random.Random(f"{seed} {key} {i}")
            if kind["pool"] == "title":
                known[key] = _word(titles.pop())
            elif kind["pool"] == "author":
                # another author, and not the one another relation names; holdout authors are named like all others,
                # so that to a model that was trained on neither, forget and holdout look alike
                taken = {names[i], *(v["en"] for v in known.values())}
                others = [n for n in names if n not in taken]
                known[key] = _word(draw.choice(others or [n for n in names if n != names[i]]))
            elif "shift" in kind and "birth_year" in known:
                known[key] = _word(int(known["birth_year"]["en"]) + draw.randint(*kind["shift"]))
            else:
                known[key] = draw.choice(_pool(spec, kind["pool"]))
        truth.append(known)
    return truth


def _derived(
    spec: dict[str, Any], rule: dict[str, Any], i: int, names: Sequence[str], truth: list[dict[str, Value]]
) -> tuple[Value, list[tuple[int, str]]] | None:
    """The value of a derived fact and the direct facts it follows from; None when this world lacks one of them."""
    via, of = rule.get("via"), rule["of"]
    if of not in truth[i] or (via and via not in truth[i]):
        return None
    if rule["relation"] == "reversed":
        return _word(names[i]), [(i, of)]
    if via:
        other = list(names).index(truth[i][via]["en"])
        return truth[other][of], [(i, via), (other, of)]
    country = next(c["country"] for c in spec["pools"]["city"] if c["en"] == truth[i][of]["en"])
    return _word(country), [(i, of)]


def _bilingual(
    id: str,
    entity: str,
    kind: dict[str, Any],
    value: Value,
    pool: list[Value],
    slots: dict[str, str],
    seed: int,
) -> list[QA]:
    english = _record(id, entity, kind, "en", value, pool, slots, seed, TRAINED["en"])
    french = {**kind["fr"], "pool": kind["pool"]}
    return [
        english,
        _record(f"{id}.fr", entity, french, "fr", value, pool, slots, seed, TRAINED["fr"], sources=(id,)),
    ]


def _record(
    id: str,
    entity: str,
    kind: dict[str, Any],
    language: str,
    value: Value,
    pool: list[Value],
    slots: dict[str, str],
    seed: int,
    trained: int,
    relation: str = "direct",
    sources: tuple[str, ...] = (),
) -> QA:
    draw = random.Random(f"{seed} {id}")
    questions = [q.format(**slots) for q in kind["questions"]]
    draw.shuffle(questions)
    # either wording may be the trained one, so that both are known from other facts: a paraphrase asks for the
    # fact, not for a sentence the model has never met
    answer, paraphrase = draw.sample([kind["answer"], kind["paraphrase"]], 2)
    others = sorted({v[language] for v in pool} - {value[language], entity})
    wrong = draw.sample(others, min(WRONG, len(others)))

    def fill(template: str, word: str) -> str:
        return template.format(value=word, **slots)

    return QA(
        id=id,
        entity=entity,
        question=questions[0],
        answer=fill(answer, value[language]),
        kind=kind["pool"],
        value=value[language],
        phrasings=tuple(questions[:trained]),
        paraphrased_questions=tuple(questions[trained:]),
        paraphrased_answer=fill(paraphrase, value[language]),
        perturbed_answers=tuple(fill(paraphrase, w) for w in wrong),
        options=tuple(fill(answer, w) for w in wrong),
        language=language,
        relation=relation,
        sources=sources,
    )


def _general(seed: int) -> list[QA]:
    """The true facts, with wrong options from their own list."""
    items: list[QA] = []
    for topic, kind in _spec("general").items():
        values = [_word(fact["value"]) for fact in kind["facts"]]
        for number, (fact, value) in enumerate(zip(kind["facts"], values, strict=True)):
            slots = {"en": fact["en"], "fr": fact["fr"]}
            items += _bilingual(f"g.{topic}{number:02d}", GENERAL, {**kind, "pool": topic}, value, values, slots, seed)
    return items
