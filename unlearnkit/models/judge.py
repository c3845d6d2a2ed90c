"""The judge: a small classifier with a head a domain, trained on other samples of the world."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unlearnkit.errors import UnlearnkitError

LEAST = 0.97  # held-out accuracy below which nothing is reported


class Judge(nn.Module):
    """Convolutions, a feature vector, a linear head a domain.

    Attributes:
        domains: domain → its concepts in the order of the head's outputs.
        accuracy: domain → accuracy on pictures it was not trained on.
        held_out: how many pictures that was.
    """

    def __init__(self, domains: Mapping[str, Sequence[str]], width: int = 32, features: int = 64) -> None:
        super().__init__()
        self.domains = {d: tuple(c) for d, c in domains.items()}
        self.width, self.features = width, features
        self.accuracy: dict[str, float] = {}
        self.held_out = 0

        def block(inner: int, outer: int) -> list[nn.Module]:
            return [nn.Conv2d(inner, outer, 3, 2, 1), nn.GroupNorm(8, outer), nn.SiLU()]

        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1), nn.SiLU(), *block(width, width), *block(width, 2 * width),
            *block(2 * width, 2 * width), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(8 * width, features), nn.SiLU(),
        )  # fmt: skip
        self.heads = nn.ModuleDict({d: nn.Linear(features, len(c)) for d, c in self.domains.items()})

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """(n, 3, height, width) in −1…1 → domain → logits (n, concepts)."""
        found = self.body(pixels)
        return {d: head(found) for d, head in self.heads.items()}

    @torch.inference_mode()
    def read(self, images: np.ndarray, batch_size: int = 256) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """uint8 (n, height, width, 3) → domain → probabilities (n, concepts); and features (n, features)."""
        probabilities: dict[str, list[Tensor]] = {d: [] for d in self.domains}
        features = []
        for begin in range(0, max(len(images), 1), batch_size):
            found = self.body(as_pixels(images[begin : begin + batch_size]))
            features.append(found)
            for d, head in self.heads.items():
                probabilities[d].append(head(found).softmax(-1))
        return {d: torch.cat(p).numpy() for d, p in probabilities.items()}, torch.cat(features).numpy()

    def weakest(self) -> float:
        """The lowest held-out accuracy of its heads."""
        return min(self.accuracy.values(), default=0.0)

    def save(self, folder: Path) -> None:
        save_file({k: v.half().contiguous() for k, v in self.state_dict().items()}, folder / "judge.safetensors")
        about = {"domains": self.domains, "width": self.width, "features": self.features}
        about |= {"accuracy": self.accuracy, "held_out": self.held_out}
        (folder / "judge.json").write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")


def as_pixels(images: np.ndarray) -> Tensor:
    """uint8 (n, height, width, 3) → float (n, 3, height, width) in −1…1."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def load_judge(folder: str | Path) -> Judge:
    """A judge saved by `Judge.save`.

    Raises:
        UnlearnkitError: the folder has none.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / "judge.json").read_text())
        judge = Judge(about["domains"], about["width"], about["features"])
        judge.load_state_dict({k: v.float() for k, v in load_file(folder / "judge.safetensors").items()})
    except (OSError, KeyError, ValueError) as error:
        raise UnlearnkitError(
            f"{folder} holds no judge that can be read ({error}); give a folder written by Judge.save."
        ) from error
    judge.accuracy, judge.held_out = about["accuracy"], about["held_out"]
    return judge.eval()
