"""What the benchmarks count: CPU seconds of this process on one thread; on a GPU, seconds. Ways take turns."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from unlearnkit.models.load import device_of


def clock() -> float:
    """Seconds since some moment. CPU seconds hardly depend on what else the machine does."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def unit() -> str:
    return "seconds" if torch.cuda.is_available() else "CPU seconds"


def about(device: torch.device) -> dict[str, str]:
    """What was counted where, for the record."""
    gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if gpu else "CPU, one thread",
        "clock": "seconds" if gpu else "CPU seconds of the process",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def speed_up(naive: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    """Median, lowest and highest ratio of turns next to each other."""
    ratios = np.array(naive) / np.array(ours)
    return {"speed-up": float(np.median(ratios)), "lowest": float(ratios.min()), "highest": float(ratios.max())}


def seconds_of(work: Callable[[], Any]) -> float:
    begin = clock()
    work()
    wait(device_of())
    return clock() - begin


def take_turns(ways: dict[str, Callable[[], Any]], turns: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of every way, turn by turn in changing order, and what each made last."""
    timed: dict[str, list[float]] = {name: [] for name in ways}
    made: dict[str, Any] = {}
    for turn in tqdm(range(turns), desc=", ".join(ways), unit="turn"):
        for name in ways if turn % 2 else reversed(ways):
            begin = clock()
            made[name] = ways[name]()
            wait(device_of())
            timed[name].append(clock() - begin)
    return timed, made
