"""Image methods, one a file. Importing this package fills ``METHODS["image"]``.

>>> from unlearnkit.methods import METHODS
>>> METHODS["image"]["esd"](variant="u").variant
'u'
"""

from unlearnkit.methods.image.advunlearn import AdvUnlearn, adversary
from unlearnkit.methods.image.base import ImageMethod
from unlearnkit.methods.image.concept_ablation import ConceptAblation
from unlearnkit.methods.image.erasediff import EraseDiff, multiplier
from unlearnkit.methods.image.esd import ESD, esd_target, trajectory_bank
from unlearnkit.methods.image.forget_me_not import ForgetMeNot, attention_norm
from unlearnkit.methods.image.grad_ascent import GradAscent, capped_ascent
from unlearnkit.methods.image.negative_prompt import Negative, NegativePrompt
from unlearnkit.methods.image.oracle import Oracle
from unlearnkit.methods.image.retain_finetune import RetainFinetune
from unlearnkit.methods.image.salun import SalUn
from unlearnkit.methods.image.selective_amnesia import SelectiveAmnesia, elastic
from unlearnkit.methods.image.sld import SLD, SafeLatent
from unlearnkit.methods.image.spm import SPM
from unlearnkit.methods.image.uce import UCE, uce_weight

__all__ = [
    "ESD",
    "SLD",
    "SPM",
    "UCE",
    "AdvUnlearn",
    "ConceptAblation",
    "EraseDiff",
    "ForgetMeNot",
    "GradAscent",
    "ImageMethod",
    "Negative",
    "NegativePrompt",
    "Oracle",
    "RetainFinetune",
    "SafeLatent",
    "SalUn",
    "SelectiveAmnesia",
    "adversary",
    "attention_norm",
    "capped_ascent",
    "elastic",
    "esd_target",
    "multiplier",
    "trajectory_bank",
    "uce_weight",
]
