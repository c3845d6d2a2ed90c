"""The attribution panel, operated in Chromium as a reader would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect

from .conftest import PAYLOAD

Cell = Callable[[str], Any]


def chosen(select: Any) -> str:
    """What a list shows as chosen (ipywidgets writes its spaces as non-breaking ones)."""
    return select.locator("option:checked").inner_text().replace("\xa0", " ")


def test_tokens_follow_method_prompt_target_and_model(panel: Cell, shots: Callable[..., None]) -> None:
    cell = panel("text")
    view, field = cell.locator(".uk-view-tokens"), lambda name: cell.get_by_label(name, exact=True)
    expect(view.locator(".uk-card h4")).to_have_text(["original", "unlearned: npo", "oracle", "random change"])
    question = field("prompt").input_value()
    for run in view.locator(".uk-run").all():
        assert run.inner_text().strip() == question
    assert question in chosen(field("record"))
    heads = view.locator("tbody th").all_inner_texts()
    assert "completeness gap" in heads and "moved from the oracle" in heads
    height = view.bounding_box()["height"]
    shots(cell, "text_tokens")

    first = view.locator("tbody tr").first.locator("td")
    before = first.all_inner_texts()
    field("method").select_option(label="feature ablation")
    expect(view.locator("tbody th", has_text="completeness gap")).to_have_count(0)
    assert first.all_inner_texts() != before
    assert "nats" in view.locator(".uk-run span").first.get_attribute("title")

    logp = view.locator(".uk-card small").first
    before = logp.inner_text()
    field("target").fill("Something else.")
    field("target").press("Enter")
    expect(logp).not_to_have_text(before)
    assert chosen(field("record")) == "a prompt of your own"

    field("prompt").fill("")
    field("prompt").press("Enter")
    expect(view.get_by_role("alert")).to_have_text("the prompt has no tokens of its own; give a question.")
    assert view.bounding_box()["height"] == height

    field("record").select_option(index=2)
    expect(view.get_by_role("alert")).to_have_count(0)
    expect(field("prompt")).not_to_have_value("")
    asked = field("prompt").input_value()
    assert asked != question and view.locator(".uk-run").first.inner_text().strip() == asked

    field("unlearned").select_option(label="nothing")
    expect(view.locator(".uk-card h4").nth(1)).to_have_text("unlearned: nothing")
    original, unlearned = view.locator(".uk-run").first, view.locator(".uk-run").nth(1)
    assert original.inner_html() == unlearned.inner_html()  # the same weights, the same attribution
    field("unlearned").select_option(label="npo")
    expect(view.locator(".uk-card h4").nth(1)).to_have_text("unlearned: npo")
    assert view.bounding_box()["height"] == height


def test_lens_and_probe_follow_the_layer(panel: Cell, shots: Callable[..., None]) -> None:
    cell = panel("text")
    watch = "node => { window.seen = []; new MutationObserver(() => window.seen.push(node.style.visibility)).observe("
    watch += "node, {attributes: true}) }"
    cell.locator(".uk-progress").evaluate(watch)
    cell.get_by_role("tab", name="layers").click()
    view = cell.locator(".uk-view-layers")
    captions = view.locator("caption")
    expect(captions.nth(1)).to_contain_text("Logit lens at layer 4")
    expect(captions.nth(0)).to_contain_text("Linear probe at layer 4: ")
    assert cell.page.evaluate("window.seen")[0] in ("visible", "") and not cell.locator(".uk-progress").is_visible()
    probe = view.locator("table").first.locator("tbody tr")
    assert [row.locator("th").inner_text() for row in probe.all()][:3] == ["original", "unlearned: npo", "oracle"]
    assert "%" in probe.first.locator("td").first.inner_text()
    assert view.locator("img").evaluate("image => image.naturalWidth") > 300  # the curves are drawn
    shots(cell, "text_layers")

    mean = view.locator("table").nth(1).locator("tbody tr").last.locator("td").first
    before = mean.inner_text()
    handle = cell.locator(".noUi-handle")
    handle.focus()
    for _ in range(2):
        handle.press("ArrowLeft")
    expect(captions.nth(1)).to_contain_text("Logit lens at layer 2")
    assert mean.inner_text() != before
    box = cell.locator(".noUi-base").bounding_box()
    cell.page.mouse.move(*(lambda b: (b["x"] + b["width"] / 2, b["y"] + b["height"] / 2))(handle.bounding_box()))
    cell.page.mouse.down()
    cell.page.mouse.move(box["x"] + 1, box["y"] + 2, steps=4)
    cell.page.mouse.up()
    expect(captions.nth(1)).to_contain_text("Logit lens at layer 0")


def test_what_a_model_a_name_or_a_reader_says_stays_text(panel: Cell, shots: Callable[..., None]) -> None:
    cell = panel("hostile")
    view = cell.locator(".uk-view-tokens")
    expect(view.locator(".uk-card h4").nth(1)).to_have_text(f"unlearned: {PAYLOAD}")
    assert view.locator(".uk-run span").first.inner_text() == PAYLOAD  # the tokenizer says it of every token
    cell.get_by_role("tab", name="layers").click()
    for name in ("prompt", "target"):
        cell.get_by_label(name, exact=True).fill(PAYLOAD)
        cell.get_by_label(name, exact=True).press("Enter")
    table = cell.locator(".uk-view-layers table").last
    expect(table.locator("tbody th").nth(8)).to_have_text(PAYLOAD)  # the target has become a long one
    shots(cell, "hostile")


def test_attention_maps_follow_token_noise_and_prompt(panel: Cell, shots: Callable[..., None]) -> None:
    cell = panel("image")
    view, field = cell.locator(".uk-view-attention"), lambda name: cell.get_by_label(name, exact=True)
    expect(view.locator(".uk-card h4")).to_have_text(["original", "unlearned: uce", "oracle", "random change"])
    assert chosen(field("token")).endswith(": striped")
    drawn = view.locator("img")
    assert drawn.count() == 8
    sources = lambda: [image.get_attribute("src") for image in drawn.all()]  # noqa: E731
    first, values = sources(), view.locator("tbody td").all_inner_texts()
    assert len(set(first)) == 8 and all(float(v) > 0 for v in values[:8])
    shots(cell, "image_attention")

    field("token").select_option(index=2)
    word = chosen(field("token")).split(": ")[1]
    expect(view.locator("caption")).to_contain_text(f"“{word}”")
    now = sources()
    assert now[::2] == first[::2] and not set(now[1::2]) & set(first[1::2])  # other maps of the same pictures

    handle = cell.locator(".noUi-handle")
    handle.focus()
    handle.press("ArrowRight")
    expect(view.locator("caption")).to_contain_text("(seed 1)")
    assert not set(sources()) & {*first, *now}

    field("prompt").fill("checkered square")
    field("prompt").press("Enter")
    expect(field("token").locator("option")).to_contain_text(["checkered", "square"])
    field("prompt").fill("")
    field("prompt").press("Enter")
    expect(view.get_by_role("alert")).to_have_text("the prompt is empty; say what is to be drawn.")
