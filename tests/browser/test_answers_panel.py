"""The panel of answers, operated in Chromium."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect

from .conftest import PAYLOAD

Cell = Callable[[str], Any]


def test_answers_follow_question_value_and_draw(panel: Cell, shots: Callable[..., None]) -> None:
    cell = panel("answers")
    view, field = cell.locator(".uk-view-answers"), lambda name: cell.get_by_label(name, exact=True)
    expect(view.locator(".uk-card h4")).to_have_text(["original", "unlearned: npo", "oracle", "random change"])
    original = view.locator(".uk-card").first
    value = field("value").input_value()
    assert original.locator("p mark").inner_text() == value  # the original says it, and it is highlighted
    assert view.locator(".uk-card").nth(2).locator("p mark").count() == 0  # the oracle can't
    assert original.locator("li").count() == 8
    height = view.bounding_box()["height"]
    shots(cell, "answers")

    before = view.locator("ol").all_inner_texts()
    cell.get_by_role("button", name="sample again").click()
    expect(view.locator("ol").nth(2)).not_to_have_text(before[2], use_inner_text=True)

    handle = cell.locator(".noUi-handle").first
    handle.focus()
    handle.press("ArrowRight")
    expect(original.locator("li")).to_have_count(9)

    said = original.locator("p").inner_text().removeprefix("greedy").strip()
    word = said.split()[0]
    field("value").fill(word)
    field("value").press("Enter")
    expect(original.locator("p mark").first).to_have_text(word)
    expect(original).to_contain_text("of 9 leak [")

    field("prompt").fill("Who are you?")
    field("prompt").press("Enter")
    expect(original.locator("p")).not_to_contain_text(said)
    field("record").select_option(index=1)
    expect(field("value")).not_to_have_value(word)
    field("prompt").fill("")
    field("prompt").press("Enter")
    expect(view.get_by_role("alert")).to_have_text("the prompt is empty; ask something.")
    assert view.bounding_box()["height"] == height


def test_a_model_that_answers_a_tag_shows_it_as_text(panel: Cell, shots: Callable[..., None]) -> None:
    cell = panel("hostile_answers")
    card = cell.locator(".uk-view-answers .uk-card").nth(1)
    expect(card.locator("li")).to_have_text([PAYLOAD] * 8)
    cell.get_by_label("value", exact=True).fill(PAYLOAD)
    cell.get_by_label("value", exact=True).press("Enter")
    expect(card.locator("li mark")).to_have_text([PAYLOAD] * 8)
    shots(cell, "hostile_answers")
