"""A CLIP checkpoint as a judge for real images: zero-shot, by folder or hub id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.load import quiet
from unlearnkit.worlds.pictures import Concepts, Pictures


class ClipJudge:
    """Reads images by their similarity to "a picture of {concept}"; and gives CLIP scores of prompts.

    Its accuracy on the pictures at hand is not known, so it reports none: `accuracy` stays empty until
    `calibrate` has measured it on labelled pictures.
    """

    def __init__(self, name: str | Path, concepts: Concepts | None, template: str = "a picture of {}") -> None:
        from transformers import CLIPModel, CLIPProcessor

        load: Any = CLIPModel.from_pretrained
        try:
            with quiet():
                model, report = load(str(name), use_safetensors=True, output_loading_info=True)
                self.processor: Any = CLIPProcessor.from_pretrained(str(name))
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            raise UnlearnkitError(
                f"judge '{name}' is neither a folder of Judge.save nor a CLIP checkpoint in safetensors that can be "
                "reached; download one where there is a network with "
                "`hf download openai/clip-vit-base-patch32 --local-dir FOLDER`."
            ) from error
        absent = sorted(report["missing_keys"])
        if absent:  # transformers would fill them with random numbers
            raise UnlearnkitError(
                f"judge '{name}' is no CLIP checkpoint: {len(absent)} of its tensors are absent, the first is "
                f"'{absent[0]}'."
            )
        self.model: Any = model.eval()
        self.domains = dict(concepts.domains) if concepts else {}
        self.template = template
        self.accuracy: dict[str, float] = {}
        self.held_out = 0

    @torch.inference_mode()
    def _texts(self, texts: list[str]) -> torch.Tensor:
        inputs = self.processor(text=texts, return_tensors="pt", padding=True, truncation=True)
        found = self.model.get_text_features(**inputs)
        return torch.nn.functional.normalize(getattr(found, "pooler_output", found), dim=-1)

    @torch.inference_mode()
    def _images(self, images: np.ndarray) -> torch.Tensor:
        parts = [torch.empty(0, self.model.config.projection_dim)]
        for begin in range(0, len(images), 32):
            inputs = self.processor(images=list(images[begin : begin + 32]), return_tensors="pt")
            found = self.model.get_image_features(**inputs)
            parts.append(getattr(found, "pooler_output", found))
        return torch.nn.functional.normalize(torch.cat(parts), dim=-1)

    def read(self, images: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """uint8 (n, height, width, 3) → domain → probabilities (n, concepts); and features (n, width)."""
        seen = self._images(images)
        scale = self.model.logit_scale.detach().exp()
        out = {}
        for domain, concepts in self.domains.items():
            texts = self._texts([self.template.format(c) for c in concepts])
            out[domain] = (scale * seen @ texts.T).softmax(-1).numpy()
        return out, seen.numpy()

    def score(self, images: np.ndarray, prompts: list[str]) -> np.ndarray:
        """CLIP score of each image with its prompt, cosine × 100: (n,)."""
        return 100 * (self._images(images) * self._texts(prompts)).sum(-1).numpy()

    def calibrate(self, pictures: Pictures) -> None:
        """Measure the accuracy on labelled pictures; below 0.97 the tables refuse to use it.

        Raises:
            UnlearnkitError: no pictures, or pictures without labels of the judge's domains or with unknown ones.
        """
        unknown = [
            f"'{label}' ({domain})"
            for domain, concepts in self.domains.items()
            for label in pictures.labels.get(domain, ("no label",))
            if label not in concepts
        ]
        if not len(pictures) or unknown:
            raise UnlearnkitError(
                f"a judge is calibrated on pictures labelled in {', '.join(self.domains) or 'its domains'}; "
                f"these have {unknown[0] if unknown else 'none'}."
            )
        probabilities, _ = self.read(pictures.images)
        self.held_out = len(pictures)
        for domain, p in probabilities.items():
            truth = np.array([self.domains[domain].index(label) for label in pictures.labels[domain]])
            self.accuracy[domain] = float((p.argmax(-1) == truth).mean())

    def weakest(self) -> float:
        """The lowest measured accuracy of its domains, 0 before `calibrate`."""
        return min(self.accuracy.values(), default=0.0)
