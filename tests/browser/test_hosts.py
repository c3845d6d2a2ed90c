"""The same panels in Notebook 7 and in Voilà (JupyterLab is where all other tests operate them)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from .conftest import Server, press_run_all, quiet

CODES = {
    "prepare": 'import unlearnkit as uk\nproblem = uk.load_problem("authors", oracles=1, device="cpu")',
    "answers": 'uk.answers_panel(problem, {"itself": problem.model})',
    "console": 'uk.attack_console(problem, {"itself": problem.model})',
}


@pytest.mark.parametrize("host", ["notebooks", "voila/render"])
def test_panels_answer_and_stop_in(
    host: str, server: Server, opened: Callable[[str], Any], shots: Callable[..., None]
) -> None:
    server.write("hosts", CODES)
    page = opened(server.address("hosts", host))
    if host == "notebooks":
        page.locator(".jp-Notebook .jp-CodeCell").nth(2).wait_for()
        page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
        page.errors.clear()  # Notebook 7.6 itself raises one while it loads its settings, over an empty notebook too
        press_run_all(page)
    view, curve = page.locator(".uk-view-answers"), page.locator(".uk-view-curve")
    view.locator(".uk-card").nth(3).wait_for(timeout=300_000)
    if host == "voila/render":
        page.errors.clear()  # its page asks a CDN for MathJax, and loads JupyterLab's extensions without their modules
    expect(view.locator(".uk-card h4")).to_have_text(["original", "unlearned: itself", "oracle", "random change"])
    expect(view.locator(".uk-card").first.locator("li")).to_have_count(8)
    before = view.locator("ol").nth(2).inner_text()
    page.locator("button.widget-button", has_text="sample again").click()
    expect(view.locator("ol").nth(2)).not_to_have_text(before, use_inner_text=True)
    page.get_by_label("value", exact=True).fill("<b>")
    page.get_by_label("value", exact=True).press("Enter")
    expect(view.locator("p").first).to_contain_text("<b> is what must not be said")

    page.get_by_label("attack", exact=True).select_option(label="Soft prompt")
    expect(curve.locator("b").first).to_have_text("Soft prompt")  # its own budget has been filled in
    page.get_by_label("budget", exact=True).fill("0, 100000")
    page.get_by_label("budget", exact=True).press("Enter")
    page.locator("button.widget-button", has_text="run").click()
    expect(curve.locator("tbody tr")).to_have_count(1)
    page.locator("button.widget-button", has_text="stop").click()
    expect(curve.get_by_role("alert")).to_contain_text("The attack was stopped")
    shots(page, "host_" + host.split("/")[0])
    # the hosts' own icons: Notebook 7 refuses its font to a page that has no cookie yet, Voilà asks a CDN
    page.errors[:] = [
        error for error in page.errors if not re.search(r"cdn\.jsdelivr\.net/|/static/\w+/\w+\.woff2", error)
    ]
    quiet(page)
    page.close()
