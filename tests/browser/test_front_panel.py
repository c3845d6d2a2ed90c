"""The front panel, operated in Chromium: every control, what follows in the page, and the files it writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
from playwright.sync_api import expect

from .front_cell import PAYLOAD

Cell = Callable[[str], Any]


def test_the_front_follows_its_controls(panel: Cell, shots: Callable[..., None], server: Any) -> None:
    cell = panel("front")
    cell.page.set_viewport_size({"width": 1440, "height": 2300})  # the whole panel in one picture
    field = lambda name: cell.get_by_label(name, exact=True)  # noqa: E731
    view = lambda name: cell.locator(f".uk-view-{name}")  # noqa: E731
    says = lambda key: view("choice").locator(f"[data-says={key}]")  # noqa: E731
    cell.locator(".noUi-handle").nth(2).wait_for()
    slider = dict(zip(("share", "weight", "a"), cell.locator(".noUi-handle").all(), strict=True))
    drawn = lambda: view("front").locator("img").get_attribute("src")  # noqa: E731

    # at first: the best that keeps 90% is selected, the oracles are the target
    expect(says("utility")).to_contain_text("3 of 6 models keep 90%")
    expect(says("utility")).to_contain_text("npo, seed 0, step 4 (forgetting 0.600, utility 0.950)")
    expect(says("oracle")).to_contain_text("forgetting 1 ± 0.10, utility 1.01 ± 0.01; 0 of 6 models")
    expect(says("hypervolume")).to_have_text("Hypervolume above (0, 0): 0.849.")  # 0.95·0.7 + 0.8·0.1 + 0.6·0.15 + …
    expect(view("details")).to_contain_text("front_runs/07_tradeoff/one")
    expect(view("details")).to_contain_text("0.950 [0.897, 1.003]")
    expect(view("samples").locator("tbody tr")).to_have_count(7)
    expect(view("samples").locator("tbody tr").first).to_contain_text(PAYLOAD)  # as text
    assert cell.locator(".uk-points button").count() == 6
    shots(cell, "front")

    before = drawn()
    for _ in range(25):
        slider["share"].press("ArrowLeft")
    expect(says("utility")).to_contain_text("5 of 6 models keep 65%")
    expect(says("utility")).to_contain_text("npo, seed 1, step 4 (forgetting 0.950")
    assert drawn() != before

    # a click on a point in the figure, the list follows
    cell.locator(".uk-points button[title^='npo · mgda']").click()
    expect(field("run").locator("option:checked")).to_have_text("npo · mgda, seed 0, step 4")
    expect(view("details")).to_contain_text("mgda")
    expect(view("samples").get_by_role("alert")).to_contain_text("No samples were kept of this model")
    expect(view("attribution").get_by_role("alert")).to_contain_text("is not at hand (models given: npo)")
    # and the other way
    field("run").select_option(label="npo, seed 0, step 4")
    expect(cell.locator(".uk-points button.mod-active")).to_have_attribute("title", "npo, seed 0, step 4")

    expect(says("preference")).to_contain_text("By weighted Chebyshev distance, 0.50 on forgetting")
    for _ in range(10):
        slider["weight"].press("ArrowRight")
    expect(says("preference")).to_contain_text("1.00 on forgetting and 0.00 on utility: npo, seed 1, step 4")
    field("scalarised").select_option("sum")
    expect(says("preference")).to_contain_text("By weighted sum, 1.00 on forgetting")

    field("forgetting from").fill("0.5")
    field("forgetting from").press("Enter")
    expect(says("hypervolume")).to_contain_text("above (0.5, 0)")

    # direction: beyond the oracle counts as more, so that mgda is now ahead
    field("counts").select_option("beyond the oracle is more")
    expect(says("preference")).to_contain_text("npo · mgda, seed 0, step 4 (forgetting 1.200")
    field("counts").select_option("its distance from the oracle")
    expect(says("utility")).to_contain_text("forgets most: npo, seed 1, step 4")
    field("direction").select_option("less is better (a loss)")
    expect(says("utility")).to_contain_text("6 of 6 models keep 65%")
    expect(says("utility")).to_contain_text("utility 1.429")  # 1 / 0.7
    field("direction").select_option("more is better")
    expect(says("utility")).not_to_contain_text("utility 1.429")
    field("utility").select_option("forget_answer_nll")
    expect(says("utility")).to_contain_text("utility 2.900")
    field("utility").select_option("retain_probability")
    expect(says("utility")).not_to_contain_text("utility 2.900")

    field("step").select_option("2")
    expect(cell.locator(".uk-points button")).to_have_count(2)
    field("step").select_option("where each run ended")
    expect(cell.locator(".uk-points button")).to_have_count(4)
    field("methods").select_option("npo · mgda")
    expect(cell.locator(".uk-points button")).to_have_count(1)
    field("methods").select_option(["npo", "npo · mgda", PAYLOAD])
    expect(cell.locator(".uk-points button")).to_have_count(4)
    field("seeds").select_option("1")
    expect(cell.locator(".uk-points button")).to_have_count(1)
    field("seeds").select_option(["0", "1"])
    expect(cell.locator(".uk-points button")).to_have_count(4)
    field("step").select_option("every look")
    expect(cell.locator(".uk-points button")).to_have_count(6)

    # mixing measures the mixture, with a bar, and draws its way
    before = drawn()
    slider["a"].press("Home")
    expect(view("mixture")).to_contain_text("0.00 of npo: forgetting 0.000, utility 1.000; keeps the utility")
    slider["a"].press("PageUp")
    expect(view("mixture")).to_contain_text("0.25 of npo: forgetting 0.")
    expect(cell.locator(".uk-progress")).not_to_be_visible()
    assert drawn() != before

    field("run").select_option(label="npo, seed 0, step 4")
    expect(view("attribution")).to_contain_text("Press attribute")
    cell.get_by_role("button", name="attribute").click()
    expect(view("attribution").locator("thead th")).to_have_text(
        ["measure", "original", "unlearned", "oracle", "random"]
    )
    shots(cell, "front_played")

    field("folder").fill("exported")
    field("folder").press("Enter")
    cell.get_by_role("button", name="export").click()
    expect(view("exported")).to_contain_text("front.csv, front.png, front.svg")
    written = server.folder / "exported"
    table = pd.read_csv(written / "front.csv")
    assert len(table) == 6 and table.loc[table["marked"].str.contains("best", na=False), "utility"].tolist() == [0.7]
    assert (written / "front.png").read_bytes()[:4] == b"\x89PNG" and b"<svg" in (written / "front.svg").read_bytes()
    cell.page.set_viewport_size({"width": 1440, "height": 1000})
