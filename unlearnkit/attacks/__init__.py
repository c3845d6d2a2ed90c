"""Attacks: each gives a curve over its budget for original, unlearned and oracle.

>>> from unlearnkit.attacks import ATTACKS
>>> ATTACKS["text"]["relearn"](data="related").unit
'fine-tuning steps'
"""

from unlearnkit.attacks import image as _image  # noqa: F401  these fill the registries
from unlearnkit.attacks import text as _text  # noqa: F401
from unlearnkit.attacks.base import ATTACKS, Attack, AttackCard, register_attack

__all__ = ["ATTACKS", "Attack", "AttackCard", "register_attack"]
