"""Attacks on diffusion models; importing this package fills ``ATTACKS["image"]``."""

from unlearnkit.attacks.image.arithmetic import ConceptArithmetic
from unlearnkit.attacks.image.embeddings import AdversarialPrefix, ConceptInversion, EmbeddingSearch
from unlearnkit.attacks.image.latents import Completion, LatentInversion
from unlearnkit.attacks.image.prompts import Paraphrase, Synonym
from unlearnkit.attacks.image.relearn import Relearn
from unlearnkit.attacks.image.weights import Noise, Prune, Quantize

__all__ = [
    "AdversarialPrefix", "Completion", "ConceptArithmetic", "ConceptInversion", "EmbeddingSearch", "LatentInversion",
    "Noise", "Paraphrase", "Prune", "Quantize", "Relearn", "Synonym",
]  # fmt: skip
