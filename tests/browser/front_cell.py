"""The cell of the front panel: a run folder with known points, one of them of the model at hand, one hostile."""

PAYLOAD = "<img src=x onerror=alert(1)>"

FRONT = f"""
import json, pathlib
import numpy as np, pandas as pd
from unlearnkit import tradeoff

KEYS = ["forget_answer_nll", "retain_probability"]
marks = ["method", "balance", "seed", "settings", "step", "forgetting", "utility"]
known = pd.DataFrame([
    ("oracle", "sum", 0, "{{}}", np.nan, 1.0, 1.02), ("oracle", "sum", 1, "{{}}", np.nan, 0.9, 1.0),
    ("npo", "sum", 0, '{{"steps": 4}}', 2, 0.3, 0.99), ("npo", "sum", 0, '{{"steps": 4}}', 4, 0.6, 0.95),
    ("npo", "sum", 1, '{{"steps": 4}}', 2, 0.4, 0.97), ("npo", "sum", 1, '{{"steps": 4}}', 4, 0.95, 0.70),
    ("npo", "mgda", 0, "{{}}", 4, 1.2, 0.8), ({PAYLOAD!r}, "sum", 0, "{{}}", 4, 0.5, 0.6),
], columns=marks)
rows = []
for p in known.to_dict("records"):
    own = {{m: p[m] for m in marks[:5]}}
    gap = abs(1 - p["forgetting"])
    rows.append({{**own, "key": KEYS[0], "original": 1.0, "oracle": 3.0, "unlearned": 1 + 2 * p["forgetting"],
                 "low": 0.9 + 2 * p["forgetting"], "high": 1.1 + 2 * p["forgetting"], "gap": gap, "gap_low": gap,
                 "gap_high": gap, "floor": 0.1, "relative": 1 + 2 * p["forgetting"], "why": ""}})
    rows.append({{**own, "key": KEYS[1], "original": 0.9, "oracle": 0.9, "unlearned": 0.9 * p["utility"], "low": 0.85 *
                 p["utility"], "high": 0.95 * p["utility"], "relative": p["utility"], "why": "no gap"}})
folder = pathlib.Path("front_runs/07_tradeoff/one")
folder.mkdir(parents=True, exist_ok=True)
values = {{"profile": "smoke", "seed": 0, "share": 0.9}}
(folder / "config.json").write_text(json.dumps({{"notebook": "07_tradeoff", "values": values}}))
(folder / "status.json").write_text(json.dumps({{"state": "complete"}}))
pd.DataFrame(rows).to_csv(folder / "scores.csv", index=False)
kept = tradeoff.samples(problem, uk.measure(problem, npo.model, 12)).assign(
    method="npo", balance="sum", seed=0, settings='{{"steps": 4}}', step=4)
kept.loc[kept.index[0], "said"] = {PAYLOAD!r}
kept.to_csv(folder / "trace-samples.csv", index=False)
uk.front_panel("front_runs", forgetting=KEYS[0], utility=KEYS[1], problem=problem, unlearned={{"npo": npo}}, limit=12)
""".strip()
