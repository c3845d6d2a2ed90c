"""Are tiny worlds to be believed? Our rankings beside published ones of real models, by rank correlation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from unlearnkit.tradeoff.published import published

TOFU = {
    "NPO": "npo", "SimNPO": "simnpo", "IdkDPO": "dpo", "GradDiff": "grad_diff", "RMU": "rmu", "UNDIAL": "undial",
    "IdkNLL": "idk_nll",
}  # fmt: skip
PICTURES = {
    "ESD": "esd", "FMN": "forget_me_not", "UCE": "uce", "CA": "concept_ablation", "SalUn": "salun", "SPM": "spm",
    "AdvUnlearn": "advunlearn",
}  # fmt: skip
METRIC_NAMES = {
    "UDS": "inside_depth", "truth ratio": "forget_truth_ratio", "logit lens": "inside_lens", "min-k": "mia_min_k",
    "extraction strength": "forget_extraction_strength", "exact memorization": "forget_exact_memorization",
    "probability": "forget_probability", "ROUGE": "forget_rouge_l_recall",
}  # fmt: skip
LEAST = 4  # names in common below which an order says nothing


@dataclass(frozen=True, eq=False)
class Beside:
    """One published ranking and ours.

    Attributes:
        table: index the published names, columns `published` and `ours`; of both more is better, or of both less.
        tau, p: Kendall's τ-b and its two-sided p-value (exact without ties); NaN with fewer than `LEAST` names.
        verdict: "agree" or "contradict" where p < 0.05, else "not decided".
    """

    question: str
    table: pd.DataFrame
    tau: float
    p: float
    verdict: str
    source: str


def beside(question: str, theirs: pd.Series, ours: Mapping[str, float], source: str) -> Beside:
    """Compare two rankings over the names that both have.

    Args:
        theirs: published name → number; ours: the same names → our number, of the same sense.
    """
    from scipy.stats import kendalltau

    table = pd.DataFrame({"published": theirs, "ours": pd.Series(ours, dtype=float)}).astype(float).dropna()
    tau, p = np.nan, np.nan
    if len(table) >= LEAST and (table.nunique() > 1).all():
        found = kendalltau(table["published"], table["ours"])
        tau, p = float(found.statistic), float(found.pvalue)
    word = "not decided" if not p < 0.05 else "agree" if tau > 0 else "contradict"
    return Beside(question, table.sort_values("published", ascending=False), tau, p, word, source)


def findings(
    text: pd.DataFrame | None = None, image: pd.DataFrame | None = None, metrics: pd.DataFrame | None = None
) -> list[Beside]:
    """Every comparison for which there is something of ours.

    Args:
        text, image: leaderboards of the two branches; metrics: what `meta_evaluate` returned for text.
    """
    out = []
    if text is not None:
        known = published("tofu_overall")
        overall = 1 - text[["gap", "recovered"]].clip(0, 1)
        parts = overall.assign(utility=text["utility"].clip(0, 1))
        with np.errstate(divide="ignore"):
            ours = (3 / (1 / parts).sum(axis=1, skipna=False)).to_dict()
        out.append(_named("best overall score, language", known.set_index("method")["overall"], ours, TOFU, known))
    if image is not None:
        known = published("unlearncanvas")
        styles = known[known["erased"] == "style"].set_index("method")
        for key, word in (
            ("ua", "unlearning accuracy"),
            ("ira", "in-domain accuracy"),
            ("cra", "cross-domain accuracy"),
        ):
            if key in image:
                out.append(_named(f"{word}, style", styles[key] / 100, image[key].to_dict(), PICTURES, known))
        known = published("unlearndiffatk")
        after = known.groupby("method")["success_after"].mean() / 100
        if "recovered" in image:
            out.append(_named("what an attack brings back", after, image["recovered"].to_dict(), PICTURES, known))
    if metrics is not None:
        known = published("metric_quality")
        theirs = known.set_index("metric")
        moved = metrics[["relearn", "quantize"]].mean(axis=1, skipna=False)
        for word, column, ours in (
            ("faithfulness of metrics", "faithfulness_auc", metrics["auc"]),
            ("robustness of metrics", "symmetric_robustness", moved),
        ):
            out.append(_named(word, theirs[column], ours.to_dict(), METRIC_NAMES, known))
    return out


def as_table(found: list[Beside]) -> pd.DataFrame:
    """One row a comparison: names in common, τ, p, verdict, source."""
    rows = [
        {
            "question": f.question,
            "names": len(f.table),
            "tau": f.tau,
            "p": f.p,
            "verdict": f.verdict,
            "source": f.source,
        }
        for f in found
    ]
    return pd.DataFrame(rows, columns=["question", "names", "tau", "p", "verdict", "source"])


def _named(
    question: str, theirs: pd.Series, ours: Mapping[str, float], names: Mapping[str, str], known: pd.DataFrame
) -> Beside:
    mine = {name: float(ours[key]) for name, key in names.items() if key in ours}
    return beside(question, theirs[theirs.index.isin(names)], mine, str(known["source"].iloc[0]))
