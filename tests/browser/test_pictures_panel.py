"""The panel of pictures, operated in Chromium."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect

Cell = Callable[[str], Any]


def test_pictures_follow_prompts_count_and_seed(panel: Cell, shots: Callable[..., None]) -> None:
    cell = panel("pictures")
    view, prompts = cell.locator(".uk-view-pictures"), cell.get_by_label("prompts", exact=True)
    expect(view.locator("thead th")).to_have_text(["prompt", "original", "unlearned: uce", "oracle", "random change"])
    rows = view.locator("tbody tr")
    assert rows.locator("th").all_inner_texts() == prompts.input_value().splitlines()
    assert rows.first.locator("img").count() == 4 * 3
    original, _, oracle = (rows.first.locator("td").nth(k).inner_text() for k in range(3))
    assert original == "“striped” in 3 of 3" and oracle == "“striped” in 0 of 3"
    assert "read as striped: yes" in rows.first.locator("img").first.get_attribute("title")
    first = rows.first.locator("img").first.get_attribute("src")
    shots(cell, "pictures")

    count, seed = cell.locator(".noUi-handle").all()
    count.focus()
    count.press("ArrowLeft")
    expect(rows.first.locator("img")).to_have_count(4 * 2)
    seed.focus()
    seed.press("ArrowRight")
    expect(view.locator("caption")).to_contain_text("seeds 1 to 2")
    assert rows.first.locator("img").first.get_attribute("src") != first

    prompts.fill("dotted square\nplain circle\nstriped circle")
    prompts.blur()
    expect(rows.locator("th")).to_have_text(["dotted square", "plain circle", "striped circle"])
    prompts.fill(" ")
    prompts.blur()
    expect(view.get_by_role("alert")).to_have_text("0 prompts can't be drawn; give one to 6, one a line.")
