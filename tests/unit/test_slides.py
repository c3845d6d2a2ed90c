"""Slides of notebooks 01 and 02: nbconvert makes them, each figure is on one, a page holds no more than it can show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SLIDES = [*NOTEBOOKS.glob("01_*.ipynb"), *NOTEBOOKS.glob("02_*.ipynb")]
MOST = 1500  # characters of prose and code on a page of 960 × 700; beyond it they ran over the edge
LINES = 12  # of code


def pages(path: Path) -> list[list[Any]]:
    """The cells of each page, those left out or in the notes not counted."""
    found: list[list[Any]] = []
    for cell in nbformat.read(path, as_version=4).cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type", "-")
        if kind in ("slide", "subslide"):
            found.append([])
        if kind not in ("skip", "notes"):
            found[-1].append(cell)
    return found


def source_shown(cell: Any) -> bool:
    return not cell.metadata.get("transient", {}).get("remove_source", False)


def pictures(cell: Any) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


@pytest.mark.parametrize("path", SLIDES, ids=lambda path: path.stem)
def test_every_figure_has_a_page_and_no_page_is_too_full(path: Path) -> None:
    shown = pages(path)
    assert 25 <= len(shown) <= 45
    everywhere = nbformat.read(path, as_version=4).cells
    assert sum(pictures(cell) for page in shown for cell in page) == sum(map(pictures, everywhere)) >= 5
    for page in shown:
        assert sum(map(pictures, page)) <= 1
        code = [cell.source for cell in page if cell.cell_type == "code" and source_shown(cell)]
        assert sum(len(text.splitlines()) for text in code) <= LINES, page[0].id
        prose = [cell.source for cell in page if cell.cell_type == "markdown"]
        for cell in page:
            if cell.cell_type == "code":
                said = [output.get("data", {}).get("text/markdown", "") for output in cell.outputs]
                prose += [text for text in said if "\n|" not in text]
        shortened = [re.sub(r"<details>.*?</details>|\]\([^)]*\)", "", text, flags=re.DOTALL) for text in prose]
        room = MOST - 450 * bool(sum(map(pictures, page)))
        assert sum(map(len, shortened)) + sum(map(len, code)) <= room, page[0].id


@pytest.mark.parametrize("path", SLIDES, ids=lambda path: path.stem)
def test_nbconvert_makes_them(path: Path) -> None:
    from nbconvert import SlidesExporter

    page, _ = SlidesExporter().from_filename(str(path))
    starts = [cell.metadata.slideshow.slide_type for cells in pages(path) for cell in cells[:1]]
    assert page.count("<section") == len(starts) + starts.count("slide")  # a slide is a stack of pages
    cells = nbformat.read(path, as_version=4).cells
    skipped = [cell.id for cell in cells if cell.metadata.get("slideshow", {}).get("slide_type") == "skip"]
    assert len(skipped) > 5 and not [one for one in skipped if f'cell-id={one}"' in page]
    assert f'cell-id={cells[0].id}"' in page and page.count("jp-RenderedImage") >= sum(map(pictures, cells))
