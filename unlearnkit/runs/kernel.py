"""The kernel that notebooks are executed in: this Python, over sockets in a private folder, gone with its parent."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

# glibc then keeps what torch frees and takes again at every step; page faults were up to half of a run under Dask,
# which asks for the opposite in its workers
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**29)}
OF_DASK = "65536"


@contextmanager
def own_kernel(environment: Mapping[str, str]) -> Iterator[tuple[type, dict[str, float]]]:
    """A class of kernel managers for this Python, whatever kernels are installed, over sockets that no one else sees.

    The kernel watches its parent and ends when that is killed.
    """
    measured: dict[str, float] = {}
    variables = {name: value.replace("$", "$$") for name, value in environment.items()}  # it substitutes in them
    allocator = {name: value for name, value in ALLOCATOR.items() if os.environ.get(name, OF_DASK) == OF_DASK}
    with tempfile.TemporaryDirectory(prefix="uk-", dir=_short()) as sockets:

        class ThisPython(AsyncKernelManager):
            def __init__(self, **settings: Any) -> None:
                ipc = {"transport": "ipc", "ip": f"{sockets}/k"} if os.name == "posix" else {}
                super().__init__(**settings, **ipc, connection_file=f"{sockets}/kernel.json")
                self._kernel_spec = KernelSpec(
                    argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=50"],
                    env={**allocator, **variables, "PYTHONHASHSEED": "0"},
                    display_name="Python 3",
                    language="python",
                )

            async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:  # type: ignore[override]
                if pid := getattr(self.provisioner, "pid", None):
                    measured.update(_peak(pid))
                # every cell has ended and its outputs are here: asking it to leave would only cost time
                await self._async_shutdown_kernel(now=True, restart=restart)

        yield ThisPython, measured


def _short() -> str | None:
    """A folder for sockets: their paths must stay under about 100 bytes, which a deep TMPDIR can break."""
    return None if os.name != "posix" or len(tempfile.gettempdir()) < 70 else "/tmp"


def _peak(pid: int) -> dict[str, float]:
    """Peak resident memory of a process in MB; where the system doesn't keep it, what it has now."""
    try:
        with open(f"/proc/{pid}/status") as lines:
            return {"peak_memory_mb": int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e3}
    except (OSError, StopIteration):
        try:
            return {"peak_memory_mb": psutil.Process(pid).memory_info().rss / 1e6}
        except psutil.Error:
            return {}
