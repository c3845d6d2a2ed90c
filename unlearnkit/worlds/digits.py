"""The world `digits`: scikit-learn's real handwritten digits as captioned pictures."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from unlearnkit.errors import UnlearnkitError
from unlearnkit.worlds.pictures import Concepts, ImageWorld, Pictures

SIZE = 32  # pixels a side; the scans are 8×8
TRAINED, HELD_OUT = 800, 150  # of the 1,797 scans; the judge gets the others
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

CONCEPTS = Concepts(
    domains={"digit": WORDS},
    templates=("a handwritten {digit}", "the digit {digit}", "a scan of a {digit}", "{digit}"),
    held_out=("one {digit} in ink", "somebody wrote a {digit}"),
    synonyms={word: (str(number),) for number, word in enumerate(WORDS)},
    anchors={"digit": "zero"},
)


@lru_cache(maxsize=2)
def digits(seed: int = 0) -> ImageWorld:
    """800 scans to train on and 150 that no model sees; the seed decides which.

    Raises:
        UnlearnkitError: a seed that is not a whole number from 0.
    """
    if not isinstance(seed, int) or seed < 0:
        raise UnlearnkitError(f"seed = {seed!r} is not possible in the world digits; give a whole number from 0.")
    trained, held_out, _ = parts(seed)
    return ImageWorld("digits" + (f"-seed{seed}" if seed else ""), CONCEPTS, trained, held_out, "digits", seed)


def parts(seed: int) -> tuple[Pictures, Pictures, Pictures]:
    """(trained, held out, for codec and judge): disjoint scans."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(seed).permutation(len(data.target))
    cuts = (order[:TRAINED], order[TRAINED : TRAINED + HELD_OUT], order[TRAINED + HELD_OUT :])
    first, second, third = (_pictures(data.images, data.target, rows, seed) for rows in cuts)
    return first, second, third


def _pictures(scans: np.ndarray, target: np.ndarray, rows: np.ndarray, seed: int) -> Pictures:
    from PIL import Image

    draw = np.random.default_rng([seed, len(rows)])
    images, captions, labels, ids = [], [], [], []
    for row in sorted(rows.tolist()):
        ink = (255 - scans[row] * (255 / 16)).round().astype(np.uint8)  # dark on light
        image = Image.fromarray(ink).resize((SIZE - 4, SIZE - 4), Image.Resampling.BICUBIC)
        page = np.full((SIZE, SIZE), 255, np.uint8)
        page[2:-2, 2:-2] = np.asarray(image)
        images.append(np.repeat(page[:, :, None], 3, 2))
        word = WORDS[int(target[row])]
        template = CONCEPTS.templates[int(draw.integers(len(CONCEPTS.templates)))]
        captions.append(CONCEPTS.prompt({"digit": word}, template, 0 if draw.random() < 0.25 else None))
        labels.append(word)
        ids.append(f"scan-{row:04d}")
    return Pictures(np.stack(images), tuple(captions), {"digit": tuple(labels)}, tuple(ids), "digits 1")
