"""The workers of a sweep: processes on this machine, or those of a Dask scheduler that runs already."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from unlearnkit.errors import UnlearnkitError

ADDRESS = re.compile(r"((tcp|tls|ws|wss)://)?(\[[\w:.%]+\]|[\w.-]+):\d{1,5}/?")
PATIENCE = 20  # seconds until a scheduler is called unreachable
GREETING = 2**20  # bytes that no scheduler's greeting has


@contextmanager
def connected(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """A Dask client of a scheduler, or of a local cluster that is gone afterwards.

    A scheduler at ``tls://…`` is spoken to with the certificates of Dask's own configuration
    (``distributed.comm.tls``).

    Raises:
        UnlearnkitError: the address is none, or the scheduler doesn't answer or has no worker.
    """
    if scheduler is None:
        with _local(workers) as client:
            yield client
        return
    from distributed import Client, Security

    if not ADDRESS.fullmatch(scheduler):  # a client of such an address fails, and would then wait for itself at exit
        raise UnlearnkitError(
            f"the scheduler's address '{scheduler}' can't be used; give HOST:PORT or tcp://, tls://, ws:// or "
            "wss://HOST:PORT, as `dask scheduler` prints it."
        )
    if scheduler.startswith("tls://") and not Security().get_connection_args("client").get("ssl_context"):
        raise UnlearnkitError(
            f"the scheduler {scheduler} speaks TLS and Dask's configuration names no certificate of the client; set "
            "distributed.comm.tls.ca-file and distributed.comm.tls.client.cert (and key)."
        )
    if scheduler.startswith("tcp://") or "://" not in scheduler:
        _greeted(scheduler)
    try:
        client = Client(scheduler, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UnlearnkitError(
            f"the scheduler {scheduler} doesn't answer: {said}; start it with `dask scheduler`, and for tls:// name "
            "the certificates in Dask's configuration."
        ) from error
    with client:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            raise UnlearnkitError(
                f"the scheduler {scheduler} has no worker; start some with `dask worker {scheduler}`."
            )
        yield client


def _greeted(scheduler: str) -> None:
    """Raise UnlearnkitError unless a Dask server listens there: it speaks first, the length of its greeting.

    A client of any other server waits for the greeting without end, whatever its timeout.
    """
    host, _, port = scheduler.removeprefix("tcp://").rstrip("/").rpartition(":")
    said = b""
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE) as line, suppress(TimeoutError):
            said = line.recv(8, socket.MSG_WAITALL)
    except (OSError, OverflowError) as error:
        raise UnlearnkitError(
            f"the scheduler {scheduler} doesn't answer: {error}; start it with `dask scheduler`."
        ) from error
    if len(said) < 8 or int.from_bytes(said, "little") > GREETING:
        raise UnlearnkitError(f"what answers at {scheduler} is no Dask scheduler; start one with `dask scheduler`.")


@contextmanager
def _local(workers: int | None) -> Iterator[Any]:
    """One process a worker, on loopback only, one run at a time; a GPU each where there are some."""
    import torch
    from distributed import Client, Nanny, Scheduler
    from distributed.deploy.spec import SpecCluster

    gpus = torch.cuda.device_count()
    count = workers or max(1, gpus)
    threads = str(max(1, (os.cpu_count() or 1) // count))
    own = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    parts = {}
    for k in range(count):
        device = {"CUDA_VISIBLE_DEVICES": str(k % gpus)} if gpus else {}
        options: dict[str, Any] = {
            "host": "127.0.0.1",
            "nthreads": 1,
            "memory_limit": 0,  # a run's memory is its kernel's, which the worker doesn't see
            "dashboard": False,
            "silence_logs": 50,
            "env": own | device,
            "resources": {"GPU": 1} if gpus else {},
        }
        parts[k] = {"cls": Nanny, "options": options}
    head = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"},
    }
    try:
        cluster = SpecCluster(workers=parts, scheduler=head, silence_logs=50)
    except (OSError, RuntimeError) as error:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UnlearnkitError(
            f"no workers can be started here ({said}); try fewer --workers, or give the address of a "
            "--scheduler that runs."
        ) from error
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client
