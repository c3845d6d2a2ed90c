"""Shared by all tests: tiny notebooks, the command line as a process, slow tests behind a flag."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import settings
from nbformat.v4 import new_code_cell, new_notebook

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: processes side by side, a core each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

PARAMETERS = """from typing import Optional

seed: int = 0  # seed of the run
profile: str = "quick"  # smoke or quick
steps: Optional[int] = None  # optimiser steps; None takes the profile's value
rate: float = 1  # learning rate
world: str = "authors"  # world or path
"""
CONFIGURE = """from unlearnkit.runs.config import configure
config = configure(globals(), notebook="{name}")"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run what takes minutes")


HERE = Path(__file__).parent
FIRST = ("browser", "notebooks", "properties", "conformance", "unit")  # what takes long is not left to the end


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FIRST.index(item.path.relative_to(HERE).parts[0]))
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes minutes; pass --slow"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With -n: one process takes as a whole the browser's tests (one page), a file with its fixtures, or a notebook."""
    from xdist.scheduler import LoadScopeScheduling

    class Wholes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            room = (config.rootpath / file).relative_to(HERE).parts[0]
            return {"browser": room, "notebooks": nodeid}.get(room, file)

    return Wholes(config, log)


@pytest.fixture
def series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for notebooks, with a smoke and a quick profile."""
    folder = tmp_path / "series"
    (folder / "profiles").mkdir(parents=True)
    for profile, steps in (("smoke", 1), ("quick", 5)):
        text = f"01_tiny:\n  needs: {{seconds: 1, memory_gb: 0.1}}\n  steps: {steps}\n"
        (folder / "profiles" / f"{profile}.yml").write_text(text)
    monkeypatch.setenv("UNLEARNKIT_NOTEBOOKS", str(folder))
    monkeypatch.delenv("UNLEARNKIT_RUN_DIR", raising=False)
    return folder


@pytest.fixture
def tiny(series: Path) -> Callable[..., Path]:
    """Write a notebook: a parameters cell, a config cell, then the given code cells."""

    def write(*code: str, name: str = "01_tiny", parameters: str = PARAMETERS) -> Path:
        cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
        cells += [new_code_cell(source) for source in (CONFIGURE.format(name=name), *code)]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(notebook, series / f"{name}.ipynb")
        return series / f"{name}.ipynb"

    return write


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `unlearnkit …` as a process of its own, in `tmp_path`."""

    def call(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "unlearnkit.cli", *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return call


@pytest.fixture(scope="session")
def small_problem(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Six authors and models trained for seconds, once a session: for properties, not for claims."""
    import unlearnkit as uk

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNLEARNKIT_HOME", str(tmp_path_factory.mktemp("store")))
        world = {"n_authors": 6, "facts": 3, "holdout": 1}
        size = {"width": 32, "layers": 3, "heads": 2, "inner": 64, "vocabulary": 400, "context": 96}
        return uk.load_problem(
            "authors", "forget10", oracles=1, device="cpu", steps=60, lr=1e-2, batch_size=32, **world, **size
        )


@pytest.fixture(scope="session")
def small_image_problem(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A canvas of few pictures and pipelines trained for five steps, once a session: for properties, not for claims."""
    from unlearnkit.image_loaders import from_world
    from unlearnkit.models.judge import Judge
    from unlearnkit.worlds.canvas import canvas

    world = canvas(images=4, holdout=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNLEARNKIT_HOME", str(tmp_path_factory.mktemp("pipelines")))
        size = {"steps": 5, "batch_size": 8, "channels": (8, 16), "text_width": 16}
        judge = Judge(world.concepts.domains, width=8)
        return from_world(world, "striped", 0, oracles=1, judge=judge, device="cpu", **size)
