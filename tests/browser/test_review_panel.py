"""The review panel, operated in Chromium."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from unlearnkit import read_review

from .conftest import PAYLOAD, Server

Cell = Callable[[str], Any]


def choose(listed: Any, *values: int) -> None:
    """Choose outputs of the list by their places."""
    listed.select_option(index=list(values))


def test_outputs_are_filtered_tagged_noted_and_kept(
    panel: Cell, server: Server, shots: Callable[..., None], tmp_path: Path
) -> None:
    cell = panel("review")
    view, field = cell.locator(".uk-view-output"), lambda name: cell.get_by_label(name, exact=True)
    listed, state = cell.locator(".uk-outputs select"), cell.locator(".uk-state")
    tag = lambda name: cell.locator(".uk-tags").get_by_role("button", name=name, exact=True)  # noqa: E731
    expect(listed.locator("option")).to_have_count(3 * 2 * 6)
    expect(view.locator(".uk-card h4").first).to_have_text("▸ original")
    height = view.bounding_box()["height"]

    field("model").select_option(label="npo")
    field("split").select_option(label="forget")
    expect(listed.locator("option")).to_have_count(6)
    expect(view.locator(".uk-card h4")).to_have_text(["original", "▸ npo", "oracle"])
    assert view.locator(".uk-card mark").count() >= 1  # the original says what must not be said
    tag("hallucination").click()
    expect(listed.locator("option").first).to_contain_text("●")
    expect(tag("hallucination")).to_have_class(
        "lm-Widget jupyter-widgets jupyter-button widget-toggle-button mod-active"
    )
    field("note").fill("=IMPORTXML(1)")
    field("note").press("Enter")
    expect(state).to_contain_text("1 of 36 outputs have a tag; kept in review.csv")
    file = server.folder / "review.csv"
    expect(field("own tag")).to_be_visible()
    field("own tag").fill("too short")
    field("own tag").press("Enter")
    expect(tag("too short")).to_be_visible()
    shots(cell, "review")

    cell.get_by_role("button", name="next without a tag").click()
    expect(view.locator(".uk-card small").nth(1)).not_to_contain_text("tags:")
    listed.focus()
    listed.press("ArrowDown")  # by the keyboard alone
    tag("gibberish").press("Space")
    expect(state).to_contain_text("2 of 36")
    choose(listed, 3, 4, 5)
    expect(view.locator("caption")).to_contain_text("3 outputs are chosen")
    tag("fine").click()
    expect(state).to_contain_text("5 of 36")
    expect(view.locator("tbody tr td:last-child")).to_have_text(["fine"] * 3)
    kept = read_review(file)
    assert kept["tags"].value_counts().to_dict() == {"": 31, "fine": 3, "gibberish": 1, "hallucination; too short": 1}
    assert kept["note"].tolist().count("=IMPORTXML(1)") == 1 and "'=IMPORTXML" in file.read_text()

    field("tag").select_option(label="fine")
    expect(listed.locator("option")).to_have_count(3)
    field("search").fill("no such words")
    field("search").press("Enter")
    expect(view.get_by_role("alert")).to_have_text("no output passes the filters; widen one of them.")
    field("search").fill("")
    field("search").press("Enter")
    for name in ("tag", "model", "split"):
        field(name).select_option(label="(all)")
    expect(listed.locator("option")).to_have_count(36)
    field("leaks only").check()
    expect(listed.locator("option").first).to_contain_text("original")
    field("leaks only").uncheck()

    with cell.page.expect_download() as load:
        cell.get_by_role("button", name="export").click()
        cell.get_by_role("link", name="review.csv").click()
    load.value.save_as(tmp_path / "export.csv")
    assert (tmp_path / "export.csv").read_bytes() == file.read_bytes()
    assert view.bounding_box()["height"] == height


def test_clusters_and_kinds_are_shown_and_lead_back_to_the_outputs(panel: Cell, shots: Callable[..., None]) -> None:
    cell = panel("review")
    cell.get_by_role("tab", name="clusters").click()
    view = cell.locator(".uk-view-clusters")
    expect(view.locator("tbody tr")).to_have_count(8)
    assert sum(int(n) for n in view.locator("tbody td:nth-child(n+4)").all_inner_texts() if n != "–") == 36
    shots(cell, "review_clusters")
    handle = cell.locator(".noUi-handle")
    handle.focus()
    handle.press("ArrowLeft")
    expect(view.locator("tbody tr")).to_have_count(7)
    line = cell.get_by_label("cluster", exact=True).locator("option").nth(1).inner_text().replace("\xa0", " ")
    cell.get_by_label("cluster", exact=True).select_option(index=1)
    expect(view.locator("tbody tr")).to_have_count(1)
    cell.get_by_role("tab", name="outputs").click()
    expect(cell.locator(".uk-outputs option")).to_have_count(int(line.split(": ")[1].split("×")[0]))
    cell.get_by_label("cluster", exact=True).select_option(index=0)
    cell.get_by_role("tab", name="kinds").click()
    kinds = cell.locator(".uk-view-kinds")
    expect(kinds.locator("caption")).to_contain_text("tags of a reader")
    assert kinds.locator("img").evaluate("image => image.naturalWidth") > 300
    expect(kinds.locator("tbody tr", has_text="fine").locator("td")).to_contain_text("3 of 5")
    shots(cell, "review_kinds")
    cell.get_by_role("tab", name="outputs").click()


def test_pictures_are_reviewed_alike(panel: Cell, shots: Callable[..., None]) -> None:
    cell = panel("review_pictures")
    view, listed = cell.locator(".uk-view-output"), cell.locator(".uk-outputs select")
    cell.get_by_label("model", exact=True).select_option(label="uce")
    expect(view.locator(".uk-card img")).to_have_count(3)
    assert "striped" in view.locator(".uk-card mark").first.inner_text()
    shots(cell, "review_pictures")
    choose(listed, 0, 1, 2, 3)
    expect(view.locator("tbody img")).to_have_count(4)
    cell.get_by_role("button", name="tag as the rule says").click()
    expect(cell.locator(".uk-state")).to_contain_text("not kept in a file")
    cell.get_by_role("tab", name="clusters").click()
    expect(cell.locator(".uk-view-clusters tbody tr")).to_have_count(8)
    assert cell.locator(".uk-view-clusters img").count() == 8
    shots(cell, "review_pictures_clusters")


def test_tags_that_models_answer_stay_text_in_every_panel(panel: Cell, shots: Callable[..., None]) -> None:
    review = panel("hostile_review")
    expect(review.locator(".uk-outputs option").first).to_have_text(f"○ original: {PAYLOAD}".replace(" ", "\xa0"))
    review.get_by_label("model", exact=True).select_option(index=2)
    expect(review.locator(".uk-card h4").nth(1)).to_have_text(f"▸ {PAYLOAD}")
    expect(review.locator(".uk-card p").first).to_have_text(PAYLOAD)
    review.get_by_label("note", exact=True).fill(PAYLOAD)
    review.get_by_label("note", exact=True).press("Enter")
    review.get_by_label("own tag", exact=True).fill(PAYLOAD)
    review.get_by_label("own tag", exact=True).press("Enter")
    expect(review.locator(".uk-state")).to_contain_text(f"tag '{PAYLOAD}' is not possible")
    for tab in ("clusters", "kinds"):
        review.get_by_role("tab", name=tab).click()
        expect(review.locator(f".uk-view-{tab}")).to_contain_text(PAYLOAD)
    shots(review, "hostile_review")

    pictures = panel("hostile_pictures")
    expect(pictures.locator("tbody th").first).to_have_text(f"{PAYLOAD} striped circle")
    expect(pictures.locator("thead th").nth(2)).to_have_text(f"unlearned: {PAYLOAD}")

    console = panel("hostile_console")
    console.get_by_label("attack", exact=True).select_option(label="Weight noise")
    expect(console.locator(".uk-view-curve b").first).to_have_text("Weight noise")  # its own budget has been filled in
    console.get_by_label("budget", exact=True).fill("0")
    console.get_by_label("budget", exact=True).press("Enter")
    console.get_by_role("button", name="run").click()
    expect(console.locator("thead th").nth(2)).to_have_text(f"unlearned: {PAYLOAD}")
    expect(console.locator("thead th")).to_have_count(5)
    expect(console.get_by_role("button", name="run")).to_be_enabled()  # while it runs, other panels compute nothing

    image = panel("image")
    for prompt in (PAYLOAD, "striped circle"):
        image.get_by_label("prompt", exact=True).fill(prompt)
        image.get_by_label("prompt", exact=True).press("Enter")
        shown = re.compile(f"^{re.escape(f'original: {prompt}, seed')} ")  # whichever noise was chosen before
        expect(image.locator(".uk-view-attention img").first).to_have_attribute("alt", shown)
