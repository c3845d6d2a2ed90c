"""The report: strangers' text stays text, and the page needs nothing from outside."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from unlearnkit.runs.report import SCRIPT, render

EVIL = "<script>alert(1)</script><img src=http://evil.example/x>"


def make_run(root: Path, digest: str, state: str = "complete", text: str = "plain", figure: bool = False) -> None:
    folder = root / "01_tiny" / digest
    folder.mkdir(parents=True)
    config: dict[str, Any] = {
        "profile": "quick",
        "seed": 0,
        "values": {"world": text},
        "versions": {text: text},
    }
    status = {"state": state, "started": "2026-01-01T00:00:00", "seconds": 1.5, "peak_memory_mb": 10.0}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "status.json").write_text(json.dumps({**status, "traceback": text if state == "failed" else None}))
    frame = pd.DataFrame({"method": [text, "b"], text: [0.123456, None]})
    frame.to_csv(folder / "scores.csv", index=False)
    if figure:
        from matplotlib.figure import Figure

        (folder / "figures").mkdir()
        Figure().savefig(folder / "figures" / "curve.png", metadata={"Description": f'"{text}'})


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_injection_shows_as_text(tmp_path: Path) -> None:
    make_run(tmp_path, "aaaa", text=EVIL, figure=True)
    make_run(tmp_path, "bbbb", state="failed", text=EVIL)
    page = Page(render(tmp_path))
    assert [tag for tag, _ in page.tags].count("script") == 1  # ours, which only sorts
    images = [a for tag, a in page.tags if tag == "img" and a.get("class") != "equation"]
    assert [image["alt"] for image in images] == [f'"{EVIL}']  # whole, inside the attribute
    assert page.text.count(EVIL) >= 6  # scores, their header, config, versions, traceback
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_the_one_script_is_ours_and_named_by_its_hash(tmp_path: Path) -> None:
    make_run(tmp_path, "aaaa", text="</script><script>alert(1)</script>")
    page = render(tmp_path)
    ours = SCRIPT.read_text()
    assert page.count("<script") == 1 == page.count("</script") and f"<script>{ours}</script>" in page
    (policy,) = (a["content"] for tag, a in Page(page).tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(ours.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in str(policy) and str(policy).startswith("default-src 'none'")
    assert "innerHTML" not in ours and "</" not in ours


def board_run(root: Path, methods: dict[str, tuple[float, float]], text: str = "") -> None:
    """A run of notebook 02 whose methods have a gap and a share of the original's utility."""
    make_run(root, "cccc")
    (root / "02_llm_unlearning").mkdir()
    folder = (root / "01_tiny" / "cccc").rename(root / "02_llm_unlearning" / "cccc")
    rows = []
    for method, (gap, share) in methods.items():
        whole = {"split": "forget", "method": method, "n": 40, "seeds": 1, "floor": 0.01, "why": text}
        rows.append(
            {"key": "forget_ks_statistic", "original": 1.0, "unlearned": gap, "oracle": 0.0, "gap": gap, **whole}
        )
        rows.append({"key": "retain_model_utility", "original": 1.0, "unlearned": share, "relative": share, **whole})
    pd.DataFrame(rows).to_csv(folder / "scores.csv", index=False)


METHODS = {"npo": (0.3, 0.95), "rmu": (0.05, 0.4), "undial": (0.2, 0.92), "grad_diff": (0.9, 0.99)}


def test_leaderboards_and_cards_stand_on_the_page(tmp_path: Path) -> None:
    board_run(tmp_path, METHODS | {EVIL: (0.5, 0.93)})
    page = Page(render(tmp_path))
    tables = [a for tag, a in page.tags if tag == "table" and a.get("class") == "sortable"]
    assert tables and "fails the bar" in page.text and page.text.count(EVIL) >= 2
    heads = [a for tag, a in page.tags if tag == "th"]
    assert all(a.get("scope") in ("col", "row") for a in heads)
    cards = {a["id"] for tag, a in page.tags if tag == "details" and a.get("class") == "card"}
    assert {"card-text-npo", "card-text-rmu"} <= cards
    assert "tests/conformance/test_text_by_hand.py::test_npo" in page.text and "arXiv 2404.05868" in page.text


@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no chromium on this machine")
def test_columns_sort_by_click_and_key_and_stand_without_scripts(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    board_run(tmp_path, METHODS, EVIL)
    (tmp_path / "page.html").write_text(render(tmp_path))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page, said = browser.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((tmp_path / "page.html").as_uri())
        table = page.locator("table.sortable").first

        def order() -> list[str]:
            return table.locator("tbody th").all_inner_texts()

        assert order() == ["undial", "npo", "grad_diff", "rmu"]  # by place; what fails the bar comes last
        head = table.locator("thead th", has_text="utility")
        head.locator("button").click()
        assert order() == ["grad_diff", "npo", "undial", "rmu"] and head.get_attribute("aria-sort") == "descending"
        head.locator("button").press("Enter")
        assert order() == ["rmu", "undial", "npo", "grad_diff"] and head.get_attribute("aria-sort") == "ascending"
        assert page.locator("[role=status]").first.inner_text() == "Sorted by utility, smallest first."
        table.locator("thead button", has_text="gap").click()
        assert order() == ["rmu", "undial", "npo", "grad_diff"] and head.get_attribute("aria-sort") is None
        assert said == []
        plain = browser.new_context(java_script_enabled=False).new_page()
        plain.goto((tmp_path / "page.html").as_uri())
        assert plain.locator("table.sortable").first.locator("tbody tr").count() == 4
        browser.close()


def test_self_contained_and_accessible(tmp_path: Path) -> None:
    make_run(tmp_path, "aaaa", figure=True)
    page = Page(render(tmp_path))
    for tag, attributes in page.tags:
        for name in ("src", "href", "data", "action", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,")), (
                tag,
                attributes,
            )
    assert "url(" not in render(tmp_path) and "@import" not in render(tmp_path)
    tags = [tag for tag, _ in page.tags]
    assert dict(page.tags)["html"]["lang"] == "en" and tags.count("h1") == 1 and "main" in tags
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {str(attributes["href"])[1:] for tag, attributes in page.tags if tag == "a"}
    assert links and links <= ids


def test_figures_of_both_states_and_the_numbers_of_the_files(tmp_path: Path) -> None:
    make_run(tmp_path, "aaaa")
    make_run(tmp_path, "bbbb", state="failed", text="Boom")
    text = Page(render(tmp_path)).text
    assert "1 complete, 1 failed" in text and "0.1235" in text and "–" in text and "Boom" in text


def test_no_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no finished run"):
        render(tmp_path / "nothing")
