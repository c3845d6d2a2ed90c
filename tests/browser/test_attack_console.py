"""The attack console, operated in Chromium."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect

Cell = Callable[[str], Any]


def test_an_attack_runs_on_request_and_its_curves_grow(panel: Cell, shots: Callable[..., None]) -> None:
    cell = panel("console")
    view, field = cell.locator(".uk-view-curve"), lambda name: cell.get_by_label(name, exact=True)
    field("attack").select_option(label="Weight noise")
    expect(view).to_contain_text("Press run")
    expect(view.locator("b").first).to_have_text("Weight noise")
    height = view.bounding_box()["height"]

    field("budget").fill("0, much")
    field("budget").press("Enter")
    cell.get_by_role("button", name="run").click()
    expect(view.get_by_role("alert")).to_contain_text("budget '0, much' is not possible")

    field("budget").fill("0, 0.05")
    field("budget").press("Enter")
    grown = "node => { window.grown = []; new MutationObserver(() => window.grown.push("
    grown += "node.querySelectorAll('thead th').length)).observe(node, {childList: true, subtree: true}) }"
    view.evaluate(grown)
    cell.get_by_role("button", name="run").click()
    head = ["original", "unlearned: npo", "oracle", "random change"]
    expect(view.locator("thead th")).to_have_text(["noise, standard deviations of the weights", *head])
    expect(view.locator("tbody tr").nth(1)).not_to_contain_text("–")
    counts = cell.page.evaluate("window.grown")
    assert sorted(counts) == counts and len(set(counts) & {2, 3, 4, 5}) > 1  # a model after the other came in
    assert view.locator("tbody th").all_inner_texts() == ["0", "0.05"]
    assert view.locator("img").evaluate("image => image.naturalWidth") > 300
    expect(cell.locator(".uk-progress")).not_to_be_visible()
    expect(cell.get_by_role("button", name="run")).to_be_enabled()
    shots(cell, "console")

    before = view.locator("tbody td").all_inner_texts()
    field("measure").select_option(index=1)
    expect(view.locator("caption")).to_contain_text(field("measure").locator("option:checked").inner_text()[:6])
    assert view.locator("tbody td").all_inner_texts() != before
    assert view.bounding_box()["height"] == height


def test_stop_ends_an_attack_while_other_cells_wait(panel: Cell, shots: Callable[..., None]) -> None:
    cell = panel("console")
    view, field = cell.locator(".uk-view-curve"), lambda name: cell.get_by_label(name, exact=True)
    run, stop = (cell.get_by_role("button", name=name) for name in ("run", "stop"))
    other = panel("answers")
    other.get_by_label("record", exact=True).select_option(index=2)  # a prompt, whatever was asked before
    expect(other.locator("ol")).to_have_count(4)
    field("attack").select_option(label="Soft prompt")
    expect(view.locator("b").first).to_have_text("Soft prompt")  # its own budget has been filled in
    field("budget").fill("0, 100000")  # hours, if it weren't stopped
    field("budget").press("Enter")
    expect(stop).to_be_disabled()
    run.click()
    expect(view.locator("tbody tr")).to_have_count(1)  # budget 0 of the original is there, and it goes on
    expect(run).to_be_disabled()
    expect(cell.locator(".uk-progress")).to_be_visible()
    other.get_by_role("button", name="sample again").click()
    expect(other.get_by_role("alert")).to_have_text("an attack is running; wait for it, or press its stop.")
    waiting = cell.page.locator(".jp-CodeCell").last
    count = int(waiting.locator(".jp-InputPrompt").inner_text().strip("[]: "))
    waiting.locator(".cm-content").click()
    cell.page.keyboard.press("Control+Enter")
    expect(waiting.locator(".jp-InputPrompt")).to_have_text("[*]:")
    stop.click()
    expect(view.get_by_role("alert")).to_contain_text("The attack was stopped")
    expect(view.locator("tbody tr")).to_have_count(1)  # what was measured stays
    expect(waiting.locator(".jp-InputPrompt")).to_have_text(f"[{count + 1}]:")
    expect(run).to_be_enabled()
    shots(cell, "console_stopped")
    other.get_by_role("button", name="sample again").click()
    expect(other.get_by_role("alert")).to_have_count(0)
