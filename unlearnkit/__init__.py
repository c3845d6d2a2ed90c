"""unlearnkit: a research workbench on machine unlearning for generative models.

>>> import unlearnkit as uk
>>> problem = uk.load_problem("authors")
>>> unlearned = uk.unlearn(problem, "npo", seed=0)
>>> scores = uk.evaluate(problem, unlearned)
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "load_problem": "problem",
    "TextProblem": "problem",
    "unlearn": "unlearning",
    "Unlearned": "unlearning",
    "DivergedError": "unlearning",
    "evaluate": "evaluation",
    "attack": "robustness",
    "robustness_card": "robustness",
    "sequential": "sequence",
    "ATTACKS": "attacks",
    "Attack": "attacks",
    "AttackCard": "attacks",
    "register_attack": "attacks",
    "attribute": "attribution",
    "VIEWS": "attribution",
    "View": "attribution",
    "ViewCard": "attribution",
    "register_view": "attribution",
    "attribution_shift": "attribution.text.tokens",
    "trace_grid": "attribution.text.tracing",
    "plane_grid": "attribution.plane",
    "relearning_predictors": "attribution.sharpness",
    "rank_correlations": "attribution.sharpness",
    "detection": "attribution.text.sensitivity",
    "roc": "attribution.text.sensitivity",
    "mask_tradeoff": "attribution.masking",
    "against_control": "attribution.masking",
    "Verdict": "attribution.verdict",
    "verdict": "attribution.verdict",
    "AttributionLoop": "attribution.loop",
    "attribution_loop": "attribution.loop",
    "linear_datamodeling_score": "attribution.lds",
    "attack_console": "panels",
    "attack_twin": "panels",
    "answers_panel": "panels",
    "answers_twin": "panels",
    "pictures_panel": "panels",
    "pictures_twin": "panels",
    "review_panel": "panels",
    "review_twin": "panels",
    "read_review": "panels",
    "front_panel": "panels",
    "front_twin": "panels",
    "attribution_panel": "panels",
    "attribution_twin": "panels",
    "METHODS": "methods",
    "Card": "methods",
    "Method": "methods",
    "Objectives": "methods",
    "StepBatch": "methods",
    "register_method": "methods",
    "TextMethod": "methods.text",
    "METRICS": "metrics.table",
    "Items": "metrics.table",
    "NotMeasurable": "metrics.table",
    "register_metric": "metrics.table",
    "measure": "evaluation",
    "references": "evaluation",
    "related_damage": "related",
    "beside_cost": "evaluation",
    "answer_tokens": "text",
    "generate": "text",
    "leaderboard": "benchmark",
    "rankings": "benchmark",
    "benchmark_rows": "benchmark",
    "MethodCard": "benchmark",
    "method_card": "benchmark",
    "UnlearnkitError": "errors",
    "configure": "runs.config",
    "open_run": "runs.record",
    "read_runs": "runs.record",
    "meta_evaluate": "metaevaluation",
    "check": "exercises",
    "read_jsonl": "worlds.jsonl",
    "write_jsonl": "worlds.jsonl",
}

__all__ = ["__version__", *_WHERE]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    """Names are imported when first used, so that `import unlearnkit` itself costs nothing."""
    if name not in _WHERE:
        raise AttributeError(f"module 'unlearnkit' has no attribute '{name}'")
    return getattr(import_module(f"unlearnkit.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
