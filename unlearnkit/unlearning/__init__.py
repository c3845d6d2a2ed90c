"""The verb `unlearn`: its loop, its settings, what it returns."""

from unlearnkit.unlearning.configuration import Loop, configure_method
from unlearnkit.unlearning.loop import unlearn
from unlearnkit.unlearning.result import DivergedError, Unlearned, check_problem, free_folder, model_of

__all__ = [
    "DivergedError",
    "Loop",
    "Unlearned",
    "check_problem",
    "configure_method",
    "free_folder",
    "model_of",
    "unlearn",
]
