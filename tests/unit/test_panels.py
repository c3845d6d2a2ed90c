"""Panels without a browser: what they compute, what they draw, and that controls lead to it."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

import unlearnkit as uk
from unlearnkit.attacks.text.inside import LogitLens, layers
from unlearnkit.attribution.image.attention import map_entropy
from unlearnkit.attribution.text.tokens import answer_log_probability, question_of
from unlearnkit.models.attention import attention_maps
from unlearnkit.panels import html
from unlearnkit.panels.frame import side_by_side
from unlearnkit.panels.image_attribution import attention_html, attention_measures, attention_of
from unlearnkit.panels.text_attribution import layers_html, lens_table, probe_table, token_html, token_table

PAYLOAD = "<img src=x onerror=alert(1)>'\"&"
TITLES = {"unlearned": f"unlearned: {PAYLOAD}"}


class Page(HTMLParser):
    """Tags with their attributes, and the text, as a browser would see them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def harmless(self) -> bool:
        """No event handler, no script, no picture from elsewhere."""
        handlers = [name for _, attributes in self.tags for name in attributes if name.startswith("on")]
        sources = [attributes["src"] or "" for _, attributes in self.tags if "src" in attributes]
        scripts = [tag for tag, _ in self.tags if tag == "script"]
        return not (handlers or scripts or [s for s in sources if not s.startswith("data:image/")])


@pytest.fixture(scope="module")
def unlearned(small_problem: Any) -> Any:
    return uk.unlearn(small_problem, "grad_diff", steps=4, lr=3e-3, batch_size=4, progress=False)


@pytest.fixture(scope="module")
def models(small_problem: Any, unlearned: Any) -> dict[str, Any]:
    return side_by_side(small_problem, unlearned.model)


@pytest.fixture(scope="module")
def asked(small_problem: Any) -> tuple[str, str]:
    record = small_problem.direct("forget")[0]
    return record.question, record.answer


def test_token_table_is_the_view_of_each_model_and_the_answer_s_probability(
    small_problem: Any, unlearned: Any, models: dict[str, Any], asked: tuple[str, str]
) -> None:
    steps: list[int] = []
    table = token_table(small_problem, models, *asked, "ablation", step=lambda: steps.append(1))
    assert len(steps) == len(models) == 4
    view = uk.attribute(small_problem, unlearned, "tokens", method="ablation")
    mine = table[table["measure"] == "attribution"].set_index(["who", "place"])["value"]
    assert mine.to_numpy() == pytest.approx(view.set_index(["who", "place"])["value"].loc[mine.index].to_numpy())
    said = table[table["measure"] == "log_probability"].set_index("who")["value"]
    for who, model in models.items():
        question = question_of(small_problem, model, *asked)
        assert said[who] == pytest.approx(
            float(answer_log_probability(model, question)(question.question[None]).detach())
        )
    with pytest.raises(uk.UnlearnkitError, match="target is empty"):
        token_table(small_problem, models, asked[0], " ")


def test_lens_ends_in_what_the_model_says_and_agrees_with_the_attack(
    small_problem: Any, models: dict[str, Any], asked: tuple[str, str]
) -> None:
    table = lens_table(small_problem, models, *asked)
    depth = layers(small_problem.model)
    assert sorted(table["layer"].unique()) == list(range(depth + 1))
    last = table[table["layer"] == depth].groupby("who")["value"].sum()
    for who, model in models.items():
        question = question_of(small_problem, model, *asked)
        whole = float(answer_log_probability(model, question)(question.question[None]).detach())
        assert last[who] == pytest.approx(whole, abs=1e-3)  # the last layer's lens is the model's own prediction
    record = small_problem.direct("forget")[0]
    nll = dict(LogitLens().curve(small_problem, small_problem.model, (1.0,), 0))[1.0].loc[record.id, "nll"]
    first = table[(table["who"] == "original") & (table["layer"] == 1)]["value"]
    assert np.abs(first + nll).min() < 1e-3  # the value's first token is one of the answer's
    assert (table["top_value"] >= table["value"] - 1e-6).all()


def test_the_lens_reads_through_an_adapter(small_problem: Any, asked: tuple[str, str]) -> None:
    adapted = uk.unlearn(small_problem, "grad_diff", steps=2, lora=2, progress=False).model
    table = lens_table(small_problem, {"unlearned": adapted}, *asked)
    question = question_of(small_problem, adapted, *asked)
    whole = float(answer_log_probability(adapted, question)(question.question[None]).detach())
    assert table[table["layer"] == table["layer"].max()]["value"].sum() == pytest.approx(whole, abs=1e-3)
    assert table["value"].max() <= 0 and table["layer"].nunique() == layers(small_problem.model) + 1


def test_probe_table_is_the_attack_s_or_says_why_not(small_problem: Any, models: dict[str, Any]) -> None:
    few = dataclasses.replace(small_problem, measured={}, splits={**small_problem.splits})
    few.splits["forget"] = few.splits["forget"][:3]
    with pytest.raises(uk.UnlearnkitError, match="a probe needs 10"):
        probe_table(few, models)
    panel = uk.attribution_panel(few, {"x": models["unlearned"]})
    panel.tabs.selected_index = 1
    assert "Probe not measurable" in Page(panel.views["layers"].value).text


def test_html_shows_every_value_and_one_scale(
    small_problem: Any, models: dict[str, Any], asked: tuple[str, str]
) -> None:
    table = token_table(small_problem, models, *asked, "gradient_x_activation")
    page = Page(token_html(table, TITLES))
    found = table[table["measure"] == "attribution"]
    assert not [v for v in found["value"] if html.number(v) not in page.text]
    assert html.number(found["value"].abs().max()) in page.text and "nats" in page.text
    cards = [a["data-who"] for tag, a in page.tags if a.get("class") == "uk-card"]
    assert cards == ["original", "unlearned", "oracle", "random"]
    assert page.harmless() and TITLES["unlearned"] in page.text


def test_shades_are_symmetric_ends_of_one_map_and_readable() -> None:
    low, none, high = (html.shade(v) for v in (-1.0, 0.0, 1.0))
    assert low == html.shade(-7.0) and len({low, none, high}) == 3 and html.shade(float("nan")) == ""

    def luminance(code: str) -> float:
        rgb = np.array([int(code[k : k + 2], 16) for k in (1, 3, 5)]) / 255
        return float(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])

    for colors in (html.SIGNED, html.MAGNITUDE):
        for share in np.linspace(-1, 1, 41):
            back, ink = re.findall(r"#[0-9a-f]{3,6}", html.shade(share, colors))
            ends = sorted((luminance(back), 1.0 if ink == "#fff" else 0.0))
            assert (ends[1] + 0.05) / (ends[0] + 0.05) >= 4.5  # WCAG 2, text


def test_whatever_a_model_or_reader_says_stays_text(models: dict[str, Any]) -> None:
    who = ["original", "unlearned"]
    tokens = pd.DataFrame(
        [(w, PAYLOAD, k, PAYLOAD, "attribution", float(k - 1)) for w in who for k in range(3)]
        + [(w, PAYLOAD, -1, "", "log_probability", -1.0) for w in who],
        columns=["who", "item", "place", "label", "measure", "value"],
    )
    lens = pd.DataFrame(
        [(w, layer, k, PAYLOAD, -1.0, PAYLOAD, -0.5) for w in who for layer in (0, 1) for k in range(2)],
        columns=["who", "layer", "place", "label", "value", "top", "top_value"],
    )
    for source in (
        token_html(tokens, TITLES),
        layers_html(lens, PAYLOAD, 1, TITLES),
        html.sentence(PAYLOAD),
        html.columns({"original": ""}, {"original": PAYLOAD}),
        html.table([PAYLOAD], [(PAYLOAD, html.cell(PAYLOAD, title=PAYLOAD))], PAYLOAD),
        html.picture(np.zeros((4, 4, 3), np.uint8), PAYLOAD),
    ):
        page = Page(source)
        assert page.harmless() and PAYLOAD in page.text + "".join(a.get("alt") or "" for _, a in page.tags)


def test_text_panel_follows_its_controls(small_problem: Any, unlearned: Any, asked: tuple[str, str]) -> None:
    panel = uk.attribution_panel(small_problem, {"a": unlearned, "b": small_problem.oracle(0)})
    assert not panel.views["tokens"].value  # nothing is computed before it is shown
    panel.update()

    def text(view: str = "tokens") -> str:
        return Page(panel.views[view].value).text

    controls = panel.controls
    assert (controls["prompt"].value, controls["target"].value) == asked and "unlearned: a" in text()
    assert not [c for c in controls.values() if getattr(c, "continuous_update", False)]
    before = text()
    controls["method"].value = "ablation"
    assert text() != before and "completeness" not in text()
    controls["record"].value = 1
    record = small_problem.direct("forget")[1]
    assert controls["prompt"].value == record.question and record.question in text()
    controls["target"].value = "Something else."
    assert controls["record"].value == -1
    controls["target"].value = ""
    assert "the target is empty" in text() and panel.progress.layout.visibility == "hidden"
    controls["prompt"].value = "word " * 300
    assert len(re.findall(r"role='alert'", panel.views["tokens"].value)) == 1
    controls["record"].value = 0
    controls["unlearned"].value = "b"
    assert "unlearned: b" in text()
    panel.tabs.selected_index = 1
    controls["layer"].value = 1
    assert "Logit lens at layer 1" in text("layers")
    assert panel.views["layers"].layout.height == panel.views["tokens"].layout.height == "470px"


def test_a_failure_is_one_sentence_and_the_bar_goes(small_problem: Any, unlearned: Any) -> None:
    panel = uk.attribution_panel(small_problem, unlearned)
    seen = []
    panel.bar.observe(lambda change: seen.append(panel.progress.layout.visibility), "value")

    def broken() -> str:
        def make(step: Any) -> str:
            step()
            raise RuntimeError(f"{PAYLOAD}\nsecond line")

        return panel.once("key", "working", 2, make)

    panel.fill("tokens", broken)
    page = Page(panel.views["tokens"].value)
    assert page.harmless() and f"RuntimeError: {PAYLOAD}" in page.text and "second line" not in page.text
    assert "visible" in seen and panel.progress.layout.visibility == "hidden"
    for wrong in ({}, 3, {"x": "y"}):
        with pytest.raises(uk.UnlearnkitError, match="no model to show|is not a model"):
            uk.attribution_panel(small_problem, wrong)


def test_attention_is_that_of_the_same_noise_and_its_measures_hold(small_image_problem: Any) -> None:
    changed = uk.unlearn(small_image_problem, "uce", progress=False)
    models = side_by_side(small_image_problem, changed.model)
    found = attention_of(small_image_problem, models, "striped circle", 3)
    assert found.tokens[1] == "striped" and list(found.maps) == ["original", "unlearned", "oracle", "random"]
    picture, maps = attention_maps(changed.model, "striped circle", [3])
    assert np.array_equal(found.pictures["unlearned"], picture[0])
    assert found.maps["unlearned"] == pytest.approx(maps[0, : len(found.tokens)].numpy())
    measures = attention_measures(found, 1)
    assert measures.loc["original", "iou"] == 1 and measures["iou"].between(0, 1).all()
    assert measures.loc["oracle", "mass"] == pytest.approx(found.maps["oracle"][1].mean())
    assert measures.loc["oracle", "entropy"] == pytest.approx(map_entropy(found.maps["oracle"][1]))
    page = Page(attention_html(dataclasses.replace(found, prompt=PAYLOAD, tokens=[PAYLOAD] * 9), 1, TITLES))
    assert page.harmless() and len([tag for tag, _ in page.tags if tag == "img"]) == 8


def test_image_panel_follows_its_controls(small_image_problem: Any) -> None:
    changed = uk.unlearn(small_image_problem, "uce", progress=False)
    panel = uk.attribution_panel(small_image_problem, {"uce": changed})
    panel.update()
    view, controls = panel.views["attention"], panel.controls
    assert controls["token"].label.endswith(": striped") and "(seed 0)" in view.value
    before = view.value
    controls["token"].value = 0
    assert view.value != before
    controls["noise"].value = 2
    assert "(seed 2)" in view.value
    controls["prompt"].value = " "
    assert "the prompt is empty" in view.value


def test_twins_are_figures_with_every_model_and_value(
    small_problem: Any, small_image_problem: Any, unlearned: Any
) -> None:
    figure = uk.attribution_twin(small_problem, {"a$b$": unlearned}, method="gradient_x_activation")
    left, right = figure.subfigs
    shown = {t.get_text() for t in left.axes[0].texts}
    table = uk.attribute(small_problem, unlearned, "tokens", method="gradient_x_activation")
    assert {html.number(v) for v in table["value"]} == shown
    names = [t.get_text() for t in left.axes[0].get_xticklabels()]
    assert names == ["original", "unlearned: a$b$", "oracle", "random change"]
    assert right.axes[0].get_ylabel() == "lens: log p a token, nats"
    with pytest.raises(uk.UnlearnkitError, match="needs a target"):
        uk.attribution_twin(small_problem, unlearned, prompt="Who?")
    changed = uk.unlearn(small_image_problem, "uce", progress=False)
    figure = uk.attribution_twin(small_image_problem, changed, token="circle")
    assert len(figure.axes) == 9 and "circle" in figure.axes[4].get_ylabel()
    with pytest.raises(uk.UnlearnkitError, match="token 'square' is not in the prompt"):
        uk.attribution_twin(small_image_problem, changed, token="square")
