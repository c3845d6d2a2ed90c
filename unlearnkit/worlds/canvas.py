"""The world `canvas`: shapes in textures, 32×32, drawn from a seed; after UnlearnCanvas's objects × styles."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from unlearnkit.errors import UnlearnkitError
from unlearnkit.worlds.pictures import Concepts, ImageWorld, Pictures

SIZE = 32  # pixels a side
FINE = 2  # drawn at twice the size and averaged, against jagged edges
DRAWING = "canvas 2"  # to be raised when the pixels change: recipes are addressed by it
SYNONYM_SHARE = 0.25  # of the training captions that use another word for a concept

CONCEPTS = Concepts(
    domains={
        "object": ("circle", "square", "triangle", "cross", "star", "ring"),
        "style": ("plain", "striped", "dotted", "checkered", "crossed", "shaded"),
    },
    templates=("a {style} {object}", "a picture of a {style} {object}", "a {object} that is {style}",
               "{style} {object}"),
    held_out=("a drawing with one {style} {object}", "one {object}, quite {style}", "look, a {style} {object} here"),
    synonyms={
        "circle": ("disc",), "square": ("box",), "triangle": ("wedge",), "cross": ("plus",), "star": ("asterisk",),
        "ring": ("hoop",), "plain": ("solid",), "striped": ("banded",), "dotted": ("spotted",),
        "checkered": ("chequered",), "crossed": ("hatched",), "shaded": ("graded",),
    },
    anchors={"object": "circle", "style": "plain"},
)  # fmt: skip


@lru_cache(maxsize=4)
def canvas(images: int = 100, seed: int = 0, holdout: int = 10) -> ImageWorld:
    """The world with `images` trained and `holdout` never-trained pictures of each object in each style.

    The same arguments give the same pictures on every machine.

    Raises:
        UnlearnkitError: a number out of its range.
    """
    for name, value, low in (("images", images, 4), ("holdout", holdout, 0)):
        if not isinstance(value, int) or not low <= value <= 2000:
            raise UnlearnkitError(
                f"{name} = {value!r} is not possible in the world canvas; give a number from {low} to 2000."
            )
    label = f"canvas-{images}" + (f"-seed{seed}" if seed else "")
    return ImageWorld(label, CONCEPTS, draw(images, seed, "c"), draw(holdout, seed + 500_000, "h"), "canvas")


def draw(each: int, seed: int, prefix: str) -> Pictures:
    """`each` pictures of every pair, from a seed: colour, place, size and wording vary."""
    images = [np.empty((0, SIZE, SIZE, 3), np.uint8)]
    captions: list[str] = []
    objects: list[str] = []
    styles: list[str] = []
    ids: list[str] = []
    for o, shape in enumerate(CONCEPTS.domains["object"]):
        for s, style in enumerate(CONCEPTS.domains["style"]):
            rng = np.random.default_rng([seed, o, s])
            images.append(pictures(shape, style, each, rng))
            for k in range(each):
                template = CONCEPTS.templates[int(rng.integers(len(CONCEPTS.templates)))]
                other = 0 if rng.random() < SYNONYM_SHARE else None
                captions.append(CONCEPTS.prompt({"object": shape, "style": style}, template, other))
                ids.append(f"{prefix}-{style}-{shape}-{k:03d}")
            objects += [shape] * each
            styles += [style] * each
    labels = {"object": tuple(objects), "style": tuple(styles)}
    return Pictures(np.concatenate(images), tuple(captions), labels, tuple(ids), DRAWING)


def pictures(shape: str, style: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` pictures of one pair: uint8 (count, 32, 32, 3)."""
    n = SIZE * FINE

    def uniform(low: float, high: float, width: int = 1) -> np.ndarray:
        return rng.uniform(low, high, (count, width)).astype(np.float32)[:, :, None, None]  # (count, width, 1, 1)

    radius = uniform(0.30, 0.40)[:, 0] * n  # (count, 1, 1)
    cy, cx = (radius + 1 + uniform(0, 1)[:, 0] * (n - 2 * radius - 2) for _ in range(2))
    y, x = np.mgrid[0:n, 0:n].astype(np.float32)
    inside = _shape(shape, (x - cx) / radius, (y - cy) / radius)  # (count, n, n)
    ink = _colour(uniform(0, 1), uniform(0.75, 1.0), uniform(0.45, 0.75))  # (count, 3, 1, 1)
    second = 0.25 * ink + 0.75  # a tint of the ink
    paper = 1 - uniform(0, 0.06, 3)
    share = np.broadcast_to(_texture(style, x, y, (y - cy) / radius), inside.shape)[:, None]  # 1 = ink, 0 = tint
    filled = share * ink + (1 - share) * second
    fine = np.where(inside[:, None], filled, paper)  # (count, 3, n, n)
    coarse = fine.reshape(count, 3, SIZE, FINE, SIZE, FINE).mean((3, 5))
    return (coarse * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)


def _shape(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where a shape of radius 1 is: coordinates → bool."""
    if shape == "square":
        return np.maximum(abs(x), abs(y)) < 0.86
    if shape == "triangle":
        return (y < 0.8) & (y > 1.9 * abs(x) - 1)
    if shape == "cross":
        return (np.minimum(abs(x), abs(y)) < 0.36) & (np.maximum(abs(x), abs(y)) < 1)
    r = np.hypot(x, y)
    if shape == "circle":
        return r < 1
    if shape == "ring":
        return (r < 1) & (r > 0.52)
    angle = (np.arctan2(x, -y) / (2 * np.pi) * 5) % 1  # star: five points, the first upwards
    return r < 1 - 0.58 * (1 - abs(2 * angle - 1))


def _texture(style: str, x: np.ndarray, y: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Share of ink of each pixel: x, y (n, n) on the page in fine pixels, height (count, n, n) within the shape.

    Textures lie on the page like wallpaper, two latent cells wide, so that shapes are cut out of them.
    """
    period = 8 * FINE
    u, v = x / period % 1, y / period % 1  # position within a cell, 0…1
    if style == "plain":
        return np.ones_like(x)
    if style == "striped":
        return ((u + v) % 1 < 0.5).astype(np.float32)
    if style == "dotted":
        return 1 - (np.hypot(u - 0.5, v - 0.5) < 0.32).astype(np.float32)
    if style == "checkered":
        return ((u < 0.5) ^ (v < 0.5)).astype(np.float32)
    if style == "crossed":
        return 1 - ((u < 0.25) | (v < 0.25)).astype(np.float32)
    return np.clip(0.5 - height / 2, 0, 1)  # shaded: dark above, light below


def _colour(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """HSV → RGB, each in 0…1: (count, 1, 1, 1) → (count, 3, 1, 1)."""
    k = (np.array([5, 3, 1], np.float32)[:, None, None] + hue * 6) % 6
    return value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1)
