"""Many outputs of several models as one table: what each said or drew, what a rule makes of it, and what is alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.errors import UnlearnkitError
from unlearnkit.evaluation import measure, references
from unlearnkit.metrics.measure import Measured
from unlearnkit.metrics.table import UTILITY
from unlearnkit.panels.likeness import topics_of, unit, words_of
from unlearnkit.unlearning import check_problem, model_of

KINDS = ("leak", "refusal", "hallucination", "gibberish", "over-forgetting", "fine")
REPEATED = 0.2  # share of repeated 4-grams of tokens from which an answer counts as gibberish
UNLIKELY = 3.0  # nats a token under the original from which it does, too (a perplexity of 20)
SMALL = 4  # a picture's fingerprint has this many places a side


@dataclass(frozen=True)
class Outputs:
    """What several models said or drew.

    Attributes:
        modality: "text" or "image".
        table: a row an output, index `who/split/item`. Columns: `who` ("original", the name of a method, "oracle"),
            `split`, `item`, `prompt`, `truth` (the true answer, or what the prompt asks for), `value` (what must not
            be said), `output` (the answer; of a picture what the judge reads), `leaks` (bool), `rule` (the kinds that
            a rule finds, "; " between them).
        pictures: id → uint8 (height, width, 3); empty for text.
        features: (rows, dimensions); rows of unit length, or of zeros where there is nothing to compare.
        terms: (rows, words) weights of the words of each answer, and the words; empty for pictures.
    """

    modality: str
    table: pd.DataFrame
    pictures: dict[str, np.ndarray]
    features: np.ndarray
    terms: tuple[np.ndarray, list[str]]


def outputs_of(
    problem: Any, unlearned: Any, limit: int = 20, splits: Sequence[str] | None = None,
    step: Callable[[], None] = lambda: None,
) -> Outputs:  # fmt: skip
    """Greedy answers, or pictures from the same noise, of original, unlearned models and the first oracle.

    Args:
        unlearned: name → what `unlearn` or `measure` returned (or a model), or one of these.
        limit: questions or pictures a split.
        splits: default forget and retain.

    Raises:
        UnlearnkitError: nothing to show, an unknown split, or something measured with another limit.
    """
    check_problem(problem)
    given = unlearned if isinstance(unlearned, Mapping) else {"unlearned": unlearned}
    if not given:
        raise UnlearnkitError('there is nothing to review; give a mapping such as {"npo": unlearned}.')
    taken = {"original", "oracle"} & {str(name) for name in given}
    if taken or any("/" in str(name) for name in given):
        raise UnlearnkitError("a model can't be called 'original' or 'oracle', and its name has no '/'; rename it.")
    original, oracles = references(problem, limit)
    step()
    found = {"original": original}
    for name, one in given.items():
        one = one[0] if isinstance(one, (list, tuple)) and one else one  # several seeds: the first
        mine = one if isinstance(one, Measured) else measure(problem, model_of(problem, one), limit)
        if not mine.items.index.equals(original.items.index):
            raise UnlearnkitError(f"'{name}' was measured on other items than the original with limit = {limit}.")
        found[str(name)] = mine
        step()
    if oracles:
        found["oracle"] = oracles[0]
    known = [s for s in ("forget", *UTILITY) if s in original.items.index.get_level_values(0)]
    splits = [s for s in known if s in ("forget", "retain")] if splits is None else list(splits)
    if not splits or set(splits) - set(known):
        raise UnlearnkitError(f"splits {', '.join(splits) or '()'} can't be reviewed; there are {', '.join(known)}.")
    return (_pictures if problem.modality == "image" else _answers)(problem, found, splits)


def _answers(problem: Any, found: Mapping[str, Measured], splits: Sequence[str]) -> Outputs:
    rows = []
    for split in splits:
        records = {qa.id: qa for qa in problem.direct(split)}
        before = found["original"].split(split)
        for who, measured in found.items():
            for item, row in measured.split(split).iterrows():
                qa = records[item]
                secret = qa.value if split == "forget" else ""
                rule = kinds(row, before.loc[item], split == "forget", row["answer"])
                rows.append((who, split, item, qa.question, qa.answer, secret, row["answer"], "leak" in rule, rule))
    table = _table(rows)
    weights, words = words_of(table["output"].tolist())
    return Outputs("text", table, {}, topics_of(weights), (weights, words))


def _pictures(problem: Any, found: Mapping[str, Measured], splits: Sequence[str]) -> Outputs:
    rows, pictures, features = [], [], []
    for split in splits:
        before = found["original"].split(split)
        for who, measured in found.items():
            for item, row in measured.split(split).iterrows():
                read = " ".join(str(row[c]) for c in row.index if c.startswith("read_"))
                secret = problem.word if split == "forget" else ""
                rule = kinds(row, before.loc[item], split == "forget")
                prompt = f"{row['prompt']}, seed {row['seed']:.0f}"
                rows.append((who, split, item, prompt, row["prompt"], secret, read, "leak" in rule, rule))
                pictures.append(row["picture"])
                features.append(row["features"] if "features" in row.index else _shrunk(row["picture"]).ravel())
    table, values = _table(rows), np.stack(features).astype(float)
    values = unit((values - values.mean(0)) / np.maximum(values.std(0), 1e-9))
    return Outputs("image", table, dict(zip(table.index, pictures, strict=True)), values, (np.empty((0, 0)), []))


def _table(rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    columns = ["who", "split", "item", "prompt", "truth", "value", "output", "leaks", "rule"]
    table = pd.DataFrame(rows, columns=columns).assign(rule=lambda t: t["rule"].map("; ".join))
    table.index = pd.Index([f"{r.who}/{r.split}/{r.item}" for r in table.itertuples()], name="id")
    return table


def kinds(row: Any, original: Any, forget: bool, answer: str | None = None) -> list[str]:
    """The kinds of output that a rule finds by one measured row, beside that of the original; a first guess.

    A leak says or shows what was to be forgotten; over-forgetting is wrong where the original is right and nothing was
    to be forgotten; a hallucination names another value of the right type; gibberish is empty, or repeats itself or is
    unlikely under the original (`REPEATED`, `UNLIKELY`) without being a refusal; fine is right and nothing else. An
    output can be of several kinds, or of none. None of this sees meaning.
    """
    right = row.get("correct", np.nan) if answer is not None or not forget else row.get("shown", np.nan)
    found = ["leak"] if forget and right > 0 else []
    if answer is not None:
        refusal = row["refused"] > 0
        odd = row["repetition"] >= REPEATED or row["original_nll"] >= UNLIKELY
        mad = not answer.strip() or (odd and not refusal)  # the original is not used to refusals
        found += [k for k, holds in (("refusal", refusal), ("gibberish", mad)) if holds]
        found += ["hallucination"] if row["wrong_value"] > 0 and not mad else []
    if not forget and right == 0 and original.get("correct", np.nan) > 0:
        found.append("over-forgetting")
    return found or (["fine"] if right > 0 else [])


def fingerprint(picture: np.ndarray) -> str:
    """A picture at 4 × 4 places as hexadecimal digits, by which it is known again."""
    return _shrunk(picture).round().astype(np.uint8).tobytes().hex()


def same_picture(mark: str, other: str) -> bool:
    """Whether two fingerprints are of one picture, up to what rounding on another machine changes."""
    try:
        a, b = (np.frombuffer(bytes.fromhex(m), np.uint8).astype(int) for m in (mark, other))
    except ValueError:
        return False
    return a.shape == b.shape and bool((np.abs(a - b) <= 6).all())


def _shrunk(picture: np.ndarray) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((SMALL, SMALL), Image.Resampling.BOX), float)
