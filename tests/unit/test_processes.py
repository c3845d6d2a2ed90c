"""One model in several processes: two of them make the step that one makes with twice the micro-batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.torch import load_file

import unlearnkit as uk
from unlearnkit.unlearning import sharding
from unlearnkit.unlearning.configuration import configure_method

SETTINGS = {"steps": 5, "batch_size": 4, "trace_every": 0}


@pytest.mark.parametrize("shard", [False, True], ids=["data parallel", "FSDP"])
def test_two_processes_are_one_with_twice_the_accumulation(tmp_path: Path, shard: bool) -> None:
    words = [w for name, value in SETTINGS.items() for w in ("-p", name, str(value))]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, "-m", "unlearnkit.cli", "unlearn", "authors", "npo", "--out", "two", *words]
    fsdp = {"ACCELERATE_USE_FSDP": "true"} if shard else {}  # as `accelerate launch --use_fsdp` sets it
    environment = os.environ | fsdp | {"OMP_NUM_THREADS": "1", "UNLEARNKIT_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    made = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr[-2000:]
    assert made.stdout.count("saved: two") == 1  # by one of them
    problem = uk.load_problem("authors", oracles=0, device="cpu")
    one = uk.unlearn(problem, "npo", accumulation=2, progress=False, **SETTINGS)
    mine, before = one.model.state_dict(), problem.model.state_dict()
    theirs = load_file(tmp_path / "two" / "model.safetensors")
    apart = max(float((theirs[name] - mine[name]).abs().max()) for name in theirs)
    moved = max(float((mine[name] - before[name].float()).abs().max()) for name in theirs)
    assert apart < 1e-5 < 1e-3 < moved
    made_of = json.loads((tmp_path / "two" / "unlearnkit.json").read_text())
    share = made_of["cost"].get("parameters_held", 0) / made_of["cost"]["parameters_touched"]
    assert share == pytest.approx(0.5 if shard else 0.0, abs=0.02)
    trace = pd.read_csv(tmp_path / "two" / "trace.csv")
    for column in ("forget_loss", "retain_loss", "grad_norm"):
        assert trace[column].to_numpy() == pytest.approx(one.trace[column].to_numpy(), rel=1e-4)


def test_what_unlearn_refuses_is_one_sentence(cli: Any, tmp_path: Path) -> None:
    for words, said in (
        (["authors", "npoo"], "npoo"),
        (["authors", "npo", "-p", "steps", "-5"], "steps"),
        (["authors", "npo", "-p", "stepz", "5"], "stepz"),
        (["authors", "npo", "-p", "shard", "true"], "there is one process; start it by `accelerate launch"),
        (["no_world", "npo"], "no_world"),
    ):
        made = cli("unlearn", *words, "--out", "out")
        assert made.returncode == 2 and said in made.stderr and made.stderr.startswith("error: "), made.stderr
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_shared_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for modality, method, settings, watched, said in (
        ("image", "esd", {}, False, "pipelines aren't shared out"),
        ("text", "npo", {"lora": 4}, False, "leave one of shard and lora off"),
        ("text", "npo", {"mask": "random"}, False, "mask 'random' compares"),
        ("text", "task_vector", {}, False, "TaskVector compares"),
        ("text", "npo", {"balance": "mgda"}, False, "leave it at 'sum'"),
        ("text", "npo", {}, True, "leave them out"),
    ):
        chosen, loop = configure_method(modality, method, settings | {"shard": True})
        assert sharding.wanted(loop)
        with pytest.raises(uk.UnlearnkitError, match=said):
            sharding.check_shardable(modality, chosen, loop, watched)
