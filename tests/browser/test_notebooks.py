"""Every notebook of the series: all its cells run in JupyterLab, in the profile smoke, two notebooks at a time, without
an error in the browser's console; then each of its panels is operated."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from unlearnkit import panels
from unlearnkit.runs.freshness import parameters_cell

from .conftest import Server, quiet, run_all

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
CALLED = re.compile(r"\buk\.(\w+_panel|attack_console)\(")
SHOWN = "all => all.map(view => view.innerHTML)"  # at one moment, as views are replaced as a whole
SECONDS = 1500  # for a notebook, on a busy machine


def pushed(cell: Any) -> None:
    """The first slider, one step to the left."""
    handle = cell.locator(".noUi-handle").first
    handle.focus()
    handle.press("ArrowLeft")


def other(*names: str) -> Callable[[Any], None]:
    """The choice after the present one in the first list there is of these names."""

    def operate(cell: Any) -> None:
        found = [cell.get_by_label(name, exact=True) for name in names]
        choices = next(s for s in found if s.count())
        choices.select_option(index=choices.evaluate("list => (list.selectedIndex + 1) % list.options.length"))

    return operate


OPERATED = {  # panel → what is done to it, upon which one of its views must change
    "answers_panel": lambda cell: cell.get_by_role("button", name="sample again").click(),
    "attack_console": other("attack"),
    "attribution_panel": other("method", "token"),
    "front_panel": pushed,
    "pictures_panel": pushed,
    "review_panel": lambda cell: cell.locator(".uk-outputs select").select_option(index=1),
}


def codes(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


SERIES = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


def test_every_panel_stands_in_a_notebook_or_in_the_tests_of_its_own() -> None:
    assert set(OPERATED) == {name for name in panels.__all__ if CALLED.fullmatch(f"uk.{name}(")}
    holding = {path.stem[:2] for path in SERIES if CALLED.search("\n".join(codes(path)))}
    assert holding >= {"02", "03", "04", "06", "07"}


@pytest.fixture(scope="module")
def running(server: Server, opened: Callable[[str], Any]) -> Iterator[Callable[[Path], Any]]:
    """path → the page in which it runs; the next notebook is started as well, as there are two cores."""
    pages: dict[Path, Any] = {}

    def start(path: Path) -> None:
        notebook = nbformat.read(path, as_version=4)
        cell = parameters_cell(notebook, path.stem)
        cell.source, count = re.subn(r'^profile: str = "\w+"', 'profile: str = "smoke"', cell.source, flags=re.M)
        assert count == 1
        for code in (c for c in notebook.cells if c.cell_type == "code"):
            code.outputs, code.execution_count = [], None
        nbformat.write(notebook, server.folder / path.name)
        pages[path] = opened(server.address(path.stem))
        run_all(pages[path], len(codes(path)))

    def page_of(path: Path) -> Any:
        at = SERIES.index(path)
        for one in SERIES[at : at + 2]:
            if one not in pages:
                start(one)
        return pages[path]

    yield page_of
    for page in pages.values():
        page.close()


def ended(page: Any, count: int) -> None:
    """Wait until the last of so many code cells has run; fail as soon as one has failed."""
    last = page.locator(".jp-CodeCell").last.locator(".jp-InputPrompt, .jp-OutputPrompt")  # the source may be folded
    failed = page.locator("[data-mime-type='application/vnd.jupyter.error']")
    deadline = time.monotonic() + SECONDS
    while f"[{count}]:" not in last.all_text_contents():
        assert failed.count() == 0, failed.first.inner_text()
        assert time.monotonic() < deadline, f"the notebook has not ended within {SECONDS} s"
        page.wait_for_timeout(250)


@pytest.mark.slow  # minutes a notebook
@pytest.mark.parametrize("path", SERIES, ids=lambda path: path.stem)
def test_notebook_runs_and_its_panels_answer(
    path: Path, running: Callable[[Path], Any], server: Server, shots: Callable[..., None]
) -> None:
    page, sources = running(path), codes(path)
    ended(page, len(sources))
    for number, (name, at) in enumerate((n, k) for k, source in enumerate(sources) for n in CALLED.findall(source)):
        cell = page.locator(".jp-CodeCell").nth(at)
        views = cell.locator("[class*='uk-view-']")
        views.first.locator(".uk-panel").wait_for()
        assert cell.get_by_role("alert").count() == 0, cell.get_by_role("alert").first.inner_text()
        before = views.evaluate_all(SHOWN)
        OPERATED[name](cell)
        for _ in range(240):
            page.wait_for_timeout(250)
            now = views.evaluate_all(SHOWN)
            if now != before and not cell.locator(".uk-progress").is_visible():
                break
        assert now != before, f"{name} did not answer"
        assert cell.get_by_role("alert").count() == 0
        shots(cell, f"{path.stem}_{number}_{name}")
    quiet(page)
    head = {"Authorization": f"token {server.token}"}
    for session in page.request.get(f"{server.url}api/sessions", headers=head).json():
        if session["path"] == path.name:  # its memory is needed by the next
            page.request.delete(f"{server.url}api/sessions/{session['id']}", headers=head)
