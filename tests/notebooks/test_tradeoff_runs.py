"""Notebook 07 with `-p runs DIR`: every figure from the folders of a finished sweep, and nothing is trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd

from unlearnkit import tradeoff

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "07_tradeoff.ipynb"
TEXT = ("forget_ks_statistic", "retain_model_utility")
IMAGE = (("forget_alignment", "retain_alignment"), ("oracle_mmd", "retain_alignment"), ("ua", "prompt_accuracy"))


def rows(keys: tuple[str, str], forgetting: float, utility: float, **marks: Any) -> list[dict[str, Any]]:
    """Rows of `evaluate` of a model at this point; the original is at 0 and 0.5, the oracle at 1 and 0.5."""
    base = {"original": 0.0, "oracle": 1.0, "balance": "sum", "settings": "{}", "why": "", "floor": 0.05, **marks}
    base |= dict.fromkeys(("low", "high", "gap_low", "gap_high"), np.nan)
    gap = {"unlearned": forgetting, "gap": abs(1 - forgetting), "relative": np.nan}
    kept = {"original": 0.5, "oracle": 0.5, "unlearned": 0.5 * utility, "relative": utility, "gap": np.nan}
    return [{**base, "key": keys[0], **gap}, {**base, "key": keys[1], **kept}]


def write_run(folder: Path, seed: int, draw: np.random.Generator) -> None:
    """One run of a sweep: two oracles, two methods with two looks each, pictures of one method, a trace."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"notebook": "07_tradeoff", "values": {"seed": seed}}))
    (folder / "status.json").write_text(json.dumps({"state": "complete", "started": f"2026-01-0{seed + 1}"}))
    found = []
    for keys in (TEXT, *IMAGE):
        for k in range(2):
            found += rows(keys, 1 - 0.05 * k, 1.0, method="oracle", seed=k)
        for method in ("npo", "simnpo") if keys == TEXT else ("uce",):
            for step, f, u in ((10, 0.4, 0.98), (20, 0.8, 0.9)):
                noise = draw.normal(0, 0.02, 2)
                marks = {"step": step} if keys == TEXT else {"settings": json.dumps({"preserve_scale": step})}
                found += rows(keys, f + noise[0], u + noise[1], method=method, seed=seed, **marks)
    pd.DataFrame(found).to_csv(folder / "scores.csv", index=False)
    trace = {"balance": "sum", "seed": seed, "cosine": -0.03, "cosine_layer0": -0.02, "norm_ratio": 0.5}
    steps = [{"method": m, "step": s, **trace} for m in ("npo", "simnpo") for s in (0, 10)]
    pd.DataFrame(steps).to_csv(folder / "trace.csv", index=False)


def test_every_figure_is_drawn_from_a_finished_sweep(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for seed in range(2):
        write_run(tmp_path / "sweep" / "07_tradeoff" / f"run{seed}", seed, draw)
    run, out = tmp_path / "run", tmp_path / "out.ipynb"
    run.mkdir()
    words = ["-p", "profile", "smoke", "-p", "runs", str(tmp_path / "sweep"), "--no-progress-bar"]
    environment = {**os.environ, "UNLEARNKIT_RUN_DIR": str(run), "HF_HUB_OFFLINE": "1",
                   "UNLEARNKIT_HOME": str(tmp_path / "empty")}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(NOTEBOOK), str(out), *words], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    figures = {path.stem for path in (run / "figures").glob("*.png")}
    assert figures >= {"layers", "front", "attainment", "equal", "choice", "published"}
    assert figures >= {"images_forget_alignment", "images_oracle_mmd", "images_ua"}
    assert "mixed" not in figures and not (run / "scores.csv").exists()  # no model was at hand
    outputs = [o for cell in nbformat.read(out, as_version=4).cells for o in cell.get("outputs", [])]
    said = " ".join(str(text) for o in outputs for text in o.get("data", {}).values())
    assert "2 finished runs of this notebook" in said and "8 models of 2 methods and balances, 2 seeds" in said
    points = tradeoff.points(tmp_path / "sweep", *TEXT)
    area = tradeoff.hypervolume(points[points["method"] == "npo"])
    assert f"{area:.3f}" in said  # the number of these folders
    assert "a finished sweep keeps only their scores" in said


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    words = ["-p", "profile", "smoke", "-p", "runs", str(tmp_path), "--no-progress-bar"]
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(NOTEBOOK), str(tmp_path / "out.ipynb"), *words], cwd=tmp_path,
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode != 0 and "there is no finished run of 07_tradeoff in" in done.stderr
