"""Sweeps: every run once, whatever dies; a second start does nothing; searches go on where they stopped; TLS."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from unlearnkit.errors import UnlearnkitError
from unlearnkit.runs.cluster import connected
from unlearnkit.runs.record import read_runs
from unlearnkit.runs.search import SearchSource
from unlearnkit.runs.sweep import Grid, Search, carry_out, read_spec

Notebook = Callable[..., Path]
SCORES = """from unlearnkit.runs.record import open_run
import pandas as pd
run = open_run(config)
run.scores(pd.DataFrame({"who": ["me", "other"], "loss": [(config.rate - 2) ** 2, 99], "cost": [config.rate, 99]}))"""
OBJECTIVES = {name: {"column": name, "where": {"who": "me"}, "direction": "minimize"} for name in ("loss", "cost")}


def kills_its_worker(seed: int, once: Path) -> str:
    return f"""import os, pathlib, signal, time
once = pathlib.Path({str(once)!r})
if config.seed == {seed} and not once.exists():
    once.touch()
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)  # an orphan: it ends by itself"""


def executed(file: Path) -> list[str]:
    return sorted(file.read_text().split()) if file.exists() else []


def counts(file: Path) -> str:
    return f"with open({str(file)!r}, 'a') as file:\n    file.write(f'{{config.seed}} ')"


def test_a_killed_worker_costs_its_run_only(tiny: Notebook, tmp_path: Path, monkeypatch: Any) -> None:
    done, runs = tmp_path / "done", tmp_path / "runs"
    path = tiny(kills_its_worker(1, tmp_path / "a"), kills_its_worker(4, tmp_path / "b"), counts(done))
    spec = Grid(fixed={"profile": "smoke"}, grid={"seed": list(range(6))})
    tally = carry_out(str(path), spec, workers=2, runs=runs, progress=False)
    assert (tmp_path / "a").exists() and (tmp_path / "b").exists()
    assert (tally.done, tally.found, tally.failures) == (6, 0, {})
    assert str(tally) == "6 runs executed, 0 found, 0 failed; 2 were begun again after a process died"
    assert executed(done) == list("012345")
    records = read_runs(runs)
    assert sorted(r.config["seed"] for r in records) == list(range(6))
    assert [p.name for p in (runs / "01_tiny").glob(".*.tmp")] == []
    (listed,) = (runs / "01_tiny").glob("sweep-*.json")
    assert json.loads(listed.read_text())["runs"] == sorted(str(r.folder.relative_to(runs)) for r in records)

    monkeypatch.setattr("unlearnkit.runs.cluster.connected", None)  # a second start needs no cluster
    again = carry_out(str(path), spec, workers=2, runs=runs, progress=False)
    assert (again.done, again.found) == (0, 6) and executed(done) == list("012345")


def test_a_failed_run_is_told_and_the_others_go_on(tiny: Notebook, tmp_path: Path, cli: Any) -> None:
    path = tiny("if config.seed == 1: raise ValueError('no <such> seed')", counts(tmp_path / "done"))
    (tmp_path / "grid.yml").write_text("grid: {seed: [0, 1, 2]}\nfixed: {steps: 3}\n")
    made = cli("sweep", path, "--grid", "grid.yml", "--runs", "runs")
    assert made.returncode == 1, made.stderr
    assert "2 runs executed, 0 found, 1 failed" in made.stdout and "ValueError: no <such> seed" in made.stdout
    assert executed(tmp_path / "done") == ["0", "2"]
    assert all(r.config["values"]["steps"] == 3 for r in read_runs(tmp_path / "runs"))


def test_a_search_goes_on_where_it_stopped(tiny: Notebook, tmp_path: Path) -> None:
    path, runs = tiny(SCORES, counts(tmp_path / "done")), tmp_path / "runs"
    space = {"rate": {"low": 0.5, "high": 4.0}, "seed": [0, 1]}
    spec = Search(space=space, objectives=OBJECTIVES)  # type: ignore[arg-type]
    first = carry_out(str(path), spec, trials=3, runs=runs, progress=False)
    assert (first.done, first.failures) == (3, {})
    left = SearchSource(path, spec, runs, 5)
    open_ = left.ask()  # a trial that its sweep does not live to end
    assert open_ is not None
    del left
    second = carry_out(str(path), spec, trials=5, runs=runs, progress=False)
    assert (second.done, second.found) == (2, 3) and len(executed(tmp_path / "done")) == 5
    study = SearchSource(path, spec, runs, 5).study
    ended = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    assert open_.given["rate"] in {t.params["rate"] for t in ended}
    assert len({(t.params["rate"], t.params["seed"]) for t in ended}) == 5
    for trial in ended:
        assert trial.values == pytest.approx([(trial.params["rate"] - 2) ** 2, trial.params["rate"]])
    (listed,) = (runs / "01_tiny").glob("sweep-*.json")
    named = json.loads(listed.read_text())["runs"]
    assert len(named) == 5
    third = carry_out(str(path), spec, trials=5, runs=runs, progress=False)
    assert (third.done, third.found) == (0, 5) and str(third) == "0 runs executed, 5 found, 0 failed"
    assert json.loads(listed.read_text())["runs"] == named


def test_an_objective_that_no_run_has(tiny: Notebook, tmp_path: Path) -> None:
    wrong = OBJECTIVES | {"cost": {"column": "price", "direction": "minimize"}}
    spec = Search(space={"seed": [0, 1]}, objectives=wrong)  # type: ignore[arg-type]
    with pytest.raises(UnlearnkitError, match="no column 'price'; it has who, loss, cost"):
        carry_out(str(tiny(SCORES)), spec, trials=2, runs=tmp_path / "runs", progress=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grid: {sede: [1]}", "unknown"),
        ("grid: {seed: [one]}", "seed"),
        ("grid: {}", "grid"),
        ("grid: {seed: []}", "error: grid.yml: 'seed' has no values; list at least one; a grid has"),
        ("grid: {seed: [1], steps: [2], seed: [3]}", "error: grid.yml: 'seed' is given twice; keep one of them."),
        ("grid: {seed: [1]}\ngrid: {steps: [2]}", "error: grid.yml: 'grid' is given twice; keep one of them."),
        ("grid: {seed: [1]}\nfixed: {seed: 2}", "both fixed and in the grid"),
        ("grid: {seed: [1]}\nresources: {GPU: -1}", "resources.GPU: Input should be greater than 0"),
        (f"grid: {{seed: {list(range(500))}, steps: {list(range(500))}}}", "a grid of 250,000 runs is too large"),
        ("girds: {seed: [1]}", "girds"),
        ("- 1", "holds no entries"),
        ("grid: [", "isn't YAML"),
        ("grid: {seed: !!python/object/apply:os.getpid []}", "isn't YAML"),
    ],
)
def test_a_bad_file_is_told_before_any_work(text: str, said: str, tiny: Notebook, tmp_path: Path, cli: Any) -> None:
    path = tiny(counts(tmp_path / "done"))
    (tmp_path / "grid.yml").write_text(text)
    made = cli("sweep", path, "--grid", "grid.yml", "--runs", "runs")
    assert made.returncode == 2 and said in made.stderr and made.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists() and executed(tmp_path / "done") == []


def test_a_bad_search_is_told(tiny: Notebook, tmp_path: Path) -> None:
    for space, said in (
        ({"rate": {"low": 2, "high": 1}}, "s.yml: space.rate: low 2, high 1: low must be below high"),
        ({"rate": {"low": 0, "high": 1, "log": True}}, "above 0 with log"),
        ({"rate": {"low": 2}}, "s.yml: space.rate.high: Field required; a search has the entries fixed"),
        ({"rate": [1, {"of": 2}]}, "s.yml: space.rate.1: Input should be a valid boolean or .* or a valid string; a"),
        ({"rates": [1]}, "unknown"),
    ):
        (tmp_path / "s.yml").write_text(yaml.safe_dump({"space": space, "objectives": OBJECTIVES}))
        with pytest.raises(UnlearnkitError, match=said):
            carry_out(str(tiny()), read_spec(tmp_path / "s.yml", "search"), runs=tmp_path / "runs")
    (tmp_path / "s.yml").write_text(yaml.safe_dump({"space": {"rate": [1]}, "objectives": {}}))
    with pytest.raises(UnlearnkitError, match="objectives"):
        read_spec(tmp_path / "s.yml", "search")


def test_an_unreachable_scheduler_is_one_sentence(tiny: Notebook, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("unlearnkit.runs.cluster.PATIENCE", 1)
    with pytest.raises(UnlearnkitError, match="doesn't answer"):
        carry_out(str(tiny()), Grid(grid={"seed": [0]}), scheduler=f"tcp://127.0.0.1:{free_port()}", runs=tmp_path)
    with pytest.raises(UnlearnkitError, match="contradict"):
        carry_out(str(tiny()), Grid(grid={"seed": [0]}), scheduler="tcp://127.0.0.1:1", workers=2, runs=tmp_path)


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-OpenSSH_9.9"], ids=["silent", "another protocol"])
def test_a_server_that_is_no_scheduler_is_not_waited_for(greeting: bytes, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("unlearnkit.runs.cluster.PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            line, _ = server.accept()
            line.sendall(greeting)
            with suppress(ConnectionResetError):
                line.recv(1)  # until the other side has had enough

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with (
            pytest.raises(UnlearnkitError, match=f"what answers at {address} is no Dask scheduler"),
            connected(None, address),
        ):
            pass
        thread.join(10)
        assert not thread.is_alive()


def test_workers_that_can_not_be_started_are_one_sentence(tmp_path: Path, tiny: Notebook, cli: Any) -> None:
    (tmp_path / "grid.yml").write_text("grid: {seed: [0]}\n")
    (tmp_path / "file").touch()
    (tmp_path / "dask").mkdir()
    (tmp_path / "dask" / "own.yaml").write_text(f"temporary-directory: {tmp_path / 'file'}\n")  # can't be a folder
    made = cli("sweep", tiny(), "--grid", "grid.yml", "--runs", "runs", DASK_CONFIG=str(tmp_path / "dask"))
    assert made.returncode == 2 and made.stderr.count("\n") == 1, made.stderr
    assert "no workers can be started here (" in made.stderr and "give the address of a --scheduler" in made.stderr


def test_a_running_scheduler_without_tls() -> None:
    with connected(1, None) as own, connected(None, own.scheduler.address) as client:
        assert client.submit(sum, [1, 2]).result() == 3


@pytest.mark.parametrize("address", ["nonsense", "nonsense/a:1", "udp://127.0.0.1:8786", "tcp://127.0.0.1", ""])
def test_an_address_that_is_none_ends_at_once(address: str, tiny: Notebook, tmp_path: Path, cli: Any) -> None:
    (tmp_path / "grid.yml").write_text("grid: {seed: [0]}\n")
    made = cli("sweep", tiny(), "--grid", "grid.yml", "--scheduler", address, "--runs", "runs")
    assert made.returncode == 2 and made.stderr.count("\n") == 1, made.stderr
    assert f"the scheduler's address '{address}' can't be used; give HOST:PORT or tcp://" in made.stderr


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def certificate(folder: Path) -> dict[str, str]:
    """A certificate that signs itself, as Dask's configuration wants it named."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sweep")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    variables = {f"{tls}CA_FILE": str(folder / "cert.pem")}
    for who in ("SCHEDULER", "WORKER", "CLIENT"):
        variables |= {
            f"{tls}{who}__CERT": str(folder / "cert.pem"),
            f"{tls}{who}__KEY": str(folder / "key.pem"),
        }
    return variables


@pytest.fixture
def tls_cluster(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """`dask scheduler` and two `dask worker` processes on loopback that speak TLS only: address, environment."""
    variables, port = certificate(tmp_path), free_port()
    address = f"tls://127.0.0.1:{port}"
    dask = [sys.executable, "-m", "dask"]
    words = [
        [*dask, "scheduler", "--host", address, "--no-dashboard"],
        *([*dask, "worker", address, "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1"] for _ in range(2)),
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = os.environ | variables | {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true"}
    started = [subprocess.Popen(w, cwd=tmp_path, env=environment, start_new_session=True, **quiet) for w in words]  # type: ignore[call-overload]
    try:
        yield address, variables
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_running_scheduler_with_tls(
    tls_cluster: tuple[str, dict[str, str]], tiny: Notebook, tmp_path: Path, cli: Any
) -> None:
    address, variables = tls_cluster
    path = tiny(counts(tmp_path / "done"), "import os\nopen(f'pid{os.getppid()}', 'w')")
    (tmp_path / "grid.yml").write_text("grid: {seed: [0, 1, 2, 3]}\n")
    for _ in range(30):  # until both workers are there
        made = cli("sweep", path, "--grid", "grid.yml", "--scheduler", address, "--runs", "runs", **variables)
        if "has no worker" not in made.stderr:
            break
        time.sleep(1)
    assert made.returncode == 0, made.stderr
    assert "4 runs executed" in made.stdout and executed(tmp_path / "done") == list("0123")
    refused = cli("sweep", path, "--grid", "grid.yml", "--scheduler", address, "--runs", "others")  # no certificate
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and not (tmp_path / "others").exists()
