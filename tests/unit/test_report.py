"""The report: strangers' text stays text, and the page needs nothing from outside."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from unlearnkit.runs.report import render

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
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [image["alt"] for image in images] == [f'"{EVIL}']  # whole, inside the attribute
    assert page.text.count(EVIL) >= 6  # scores, their header, config, versions, traceback
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


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
