"""Attacks on language models; importing this package fills ``ATTACKS["text"]``."""

from unlearnkit.attacks.text.inside import LogitLens, Probe
from unlearnkit.attacks.text.questions import CrossLingual, Derived, ManyShot, Paraphrase, Prefix, RolePlay
from unlearnkit.attacks.text.relearn import Relearn
from unlearnkit.attacks.text.sampling import Leak
from unlearnkit.attacks.text.soft_prompt import SoftPrompt
from unlearnkit.attacks.text.weights import Noise, Prune, Quantize

__all__ = [
    "CrossLingual", "Derived", "Leak", "LogitLens", "ManyShot", "Noise", "Paraphrase", "Prefix", "Probe", "Prune",
    "Quantize", "Relearn", "RolePlay", "SoftPrompt",
]  # fmt: skip
