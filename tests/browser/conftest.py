"""A Jupyter server and Chromium, started once; a notebook with all panels, every cell run, each test operates its own.

Screenshots are kept in pytest's temporary folder, or in $UNLEARNKIT_SCREENSHOTS.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from .front_cell import FRONT

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
PAYLOAD = "<img src=x onerror=alert(1)>"  # what hostile models, tokenizers and targets say

PREPARE = f"""
import dataclasses
import unlearnkit as uk
problem = uk.load_problem("authors", oracles=1, device="cpu")
npo = uk.unlearn(problem, "npo", steps=4, progress=False)

class Hostile:
    "A tokenizer that reads tags everywhere."
    def __init__(self, inner): self.inner = inner
    def __getattr__(self, name): return getattr(self.inner, name)
    def __call__(self, *words, **options): return self.inner(*words, **options)
    def decode(self, ids, **options): return {PAYLOAD!r}
    def batch_decode(self, rows, **options): return [{PAYLOAD!r}] * len(rows)

hostile = dataclasses.replace(problem, tokenizer=Hostile(problem.tokenizer), measured={{}})
pictures = uk.load_problem("canvas", "striped", oracles=1, device="cpu")
uce = uk.unlearn(pictures, "uce", progress=False)
loud = dataclasses.replace(pictures, asked={{**pictures.asked, "forget": [{PAYLOAD!r} + " striped circle"]}},
    wanted={{**pictures.wanted, "forget": pictures.wanted["forget"][:1]}}, measured={{}})
"""
PANELS = {  # id of the cell → its code
    "text": 'uk.attribution_panel(problem, {"npo": npo, "nothing": problem.model})',
    "hostile": f"uk.attribution_panel(hostile, {{{PAYLOAD!r}: npo}})",
    "image": 'uk.attribution_panel(pictures, {"uce": uce})',
    "answers": 'uk.answers_panel(problem, {"npo": npo})',
    "hostile_answers": f"uk.answers_panel(hostile, {{{PAYLOAD!r}: npo}})",
    "pictures": 'uk.pictures_panel(pictures, {"uce": uce})',
    "hostile_pictures": f"uk.pictures_panel(loud, {{{PAYLOAD!r}: uce}})",
    "console": 'uk.attack_console(problem, {"npo": npo})',
    "hostile_console": f"uk.attack_console(hostile, {{{PAYLOAD!r}: npo}})",
    "review": 'uk.review_panel(problem, {"npo": npo}, limit=6, file="review.csv")',
    "hostile_review": f"uk.review_panel(hostile, {{{PAYLOAD!r}: npo}}, limit=2)",
    "review_pictures": 'uk.review_panel(pictures, {"uce": uce}, limit=6)',
    "front": FRONT,
}
SETTINGS = {  # nothing from outside, and every cell in the page
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab, Notebook 7 and Voilà behind one server on the loopback, at a port of its own choice."""
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine; install the system package `chromium` to test panels in a browser")
    home = tmp_path_factory.mktemp("jupyter")
    folder, runtime = home / "notebooks", home / "runtime"
    folder.mkdir()
    for name, settings in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    token = secrets.token_hex(16)
    environment = {
        **os.environ, "JUPYTER_TOKEN": token, "JUPYTER_RUNTIME_DIR": str(runtime), "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    words = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", f"--notebook-dir={folder}"]
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *words], env=environment, cwd=home, stdout=log, stderr=log
        )
        try:
            yield Server(_address(runtime, process, home / "server.log"), token, folder)
        finally:
            process.terminate()
            process.wait(20)


@dataclass(frozen=True)
class Server:
    """Where the server listens, its token, and the folder whose notebooks it opens."""

    url: str
    token: str
    folder: Path

    def write(self, name: str, codes: Mapping[str, str]) -> None:
        """A notebook of code cells: id → source."""
        cells = [new_code_cell(code, id=key) for key, code in codes.items()]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), self.folder / f"{name}.ipynb")

    def address(self, name: str, host: str = "lab") -> str:
        """A notebook's address in a host: "lab", "notebooks" or "voila/render".

        In JupyterLab each notebook has a workspace of its own: a shared one would open those of other pages again.
        """
        host = f"lab/workspaces/{name}/tree" if host == "lab" else host
        return f"{self.url}{host}/{name}.ipynb?token={self.token}"


def _address(runtime: Path, process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            try:
                return json.loads(file.read_text())["url"]
            except (json.JSONDecodeError, KeyError):  # still being written
                pass
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="package")
def chromium(server: Server) -> Iterator[Any]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=120_000)
    with sync_playwright() as tools:
        browser = tools.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def opened(chromium: Any) -> Callable[[str], Any]:
    """Open an address in a page of its own; `page.errors` and `page.dialogs` must stay empty, see `quiet`."""

    def open_page(address: str) -> Any:
        page = chromium.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(120_000)
        errors: list[str] = []
        dialogs: list[str] = []
        page.on("console", lambda said: errors.append(f"{said.text} {said.location}") if said.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.errors, page.dialogs = errors, dialogs
        page.goto(address, wait_until="commit")  # Voilà goes on loading as long as cells run
        return page

    return open_page


def quiet(page: Any) -> None:
    """Assert: no console error, no dialog, no tag from a model."""
    assert page.locator("[onerror], img[src=x]").count() == 0
    assert not page.dialogs and not page.errors


def run_all(page: Any, count: int) -> None:
    """Begin to run all cells, of which `count` hold code, in JupyterLab."""
    page.locator(".jp-Notebook .jp-CodeCell").nth(count - 1).wait_for()
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()  # cells run before that are not run at all
    page.keyboard.press("Control+b")  # the file browser leaves its place to the notebook
    press_run_all(page)


def press_run_all(page: Any) -> None:
    """The menu's entry, again if the host did not heed it, as it does while its kernel is still being connected."""
    from playwright.sync_api import TimeoutError

    begun = page.locator(".jp-CodeCell").first.locator(".jp-InputPrompt").filter(has_text=re.compile(r"[*\d]"))
    for _ in range(10):
        page.locator(".lm-MenuBar-item", has_text="Run").click()
        page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()
        try:
            begun.wait_for(timeout=20_000)
            return
        except TimeoutError:
            pass
    raise AssertionError("the host never began to run the cells")


@pytest.fixture(scope="package")
def notebook(server: Server, opened: Callable[[str], Any], shots: Callable[..., None]) -> Iterator[Any]:
    """The page of the notebook with all panels, its cells run in JupyterLab."""
    codes = {"prepare": PREPARE.strip(), **PANELS}
    server.write("panels", codes)
    page = opened(server.address("panels"))
    run_all(page, len(codes))
    try:
        page.locator(".jp-CodeCell").last.locator(".jp-InputPrompt", has_text=f"[{len(codes)}]:").wait_for(
            timeout=400_000
        )
        yield page
    finally:
        shots(page, "last")
        page.close()


@pytest.fixture(scope="package")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Take a screenshot of a page or of a part of it under a name."""
    named = os.environ.get("UNLEARNKIT_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return lambda part, name: part.screenshot(path=folder / f"{name}.png")


@pytest.fixture
def panel(notebook: Any, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Any]]:
    """name of a panel → its cell in the page; afterwards: no console error, no dialog, no tag from a model."""
    yield lambda name: notebook.locator(".jp-CodeCell").nth(1 + list(PANELS).index(name))
    quiet(notebook)
