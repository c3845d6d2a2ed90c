"""Language-model methods, one a file. Importing this package fills ``METHODS["text"]``.

>>> from unlearnkit.methods import METHODS
>>> METHODS["text"]["npo"](beta=0.05).beta
0.05
"""

from unlearnkit.methods.text.base import TextMethod
from unlearnkit.methods.text.ceu import CEU, ceu_loss
from unlearnkit.methods.text.dpo import DPO, dpo_loss
from unlearnkit.methods.text.grad_ascent import GradAscent
from unlearnkit.methods.text.grad_diff import GradDiff
from unlearnkit.methods.text.guardrail import Guardrail
from unlearnkit.methods.text.idk_nll import IdkNLL
from unlearnkit.methods.text.in_context import InContext
from unlearnkit.methods.text.npo import NPO, npo_loss
from unlearnkit.methods.text.oracle import Oracle
from unlearnkit.methods.text.pdu import PDU, pdu_loss
from unlearnkit.methods.text.reference import Reference, kl, reference
from unlearnkit.methods.text.retain_finetune import RetainFinetune
from unlearnkit.methods.text.rmu import RMU, rmu_loss
from unlearnkit.methods.text.satimp import SatImp, satimp_loss
from unlearnkit.methods.text.simnpo import SimNPO, simnpo_loss
from unlearnkit.methods.text.task_vector import TaskVector
from unlearnkit.methods.text.undial import UNDIAL, undial_loss
from unlearnkit.methods.text.wga import WGA, wga_loss
from unlearnkit.methods.text.whp import WHP, generic_logits

__all__ = [
    "CEU",
    "PDU",
    "SatImp",
    "WGA",
    "WHP",
    "ceu_loss",
    "pdu_loss",
    "satimp_loss",
    "wga_loss",
    "generic_logits",
    "DPO",
    "NPO",
    "RMU",
    "UNDIAL",
    "GradAscent",
    "GradDiff",
    "Guardrail",
    "IdkNLL",
    "InContext",
    "Oracle",
    "Reference",
    "RetainFinetune",
    "SimNPO",
    "TaskVector",
    "TextMethod",
    "dpo_loss",
    "kl",
    "npo_loss",
    "reference",
    "rmu_loss",
    "simnpo_loss",
    "undial_loss",
]
