"""What the benchmarks count: CPU seconds of this process on one thread; on a GPU, seconds."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


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
