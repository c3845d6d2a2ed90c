"""The controls of the front panel and where they stand; what they do is in `front`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import ipywidgets as widgets
import numpy as np

from unlearnkit.attribution import VIEWS
from unlearnkit.panels.frame import LABEL, WIDE, Panel
from unlearnkit.plots.front import SIZE
from unlearnkit.tradeoff import AXES, RULES

TOWARD = [("its distance from the oracle", False), ("beyond the oracle is more", True)]
BETTER = [("more is better", False), ("less is better (a loss)", True)]
NARROW = {"description_width": "104px"}
WIDTH, HEIGHT = (round(96 * inches) for inches in SIZE)  # of the figure, pixels
CSS = """<style>
.{m}{{position:relative;width:{w}px;height:{h}px;flex:none;overflow:visible;margin:0}}
.{m} .uk-view-front{{margin:0;overflow:visible}}.{m} .uk-panel{{padding:0}}.{m} img{{width:{w}px;max-width:none}}
.{m} .uk-points{{position:absolute;left:0;top:0;width:{w}px;height:{h}px;margin:0;pointer-events:none;overflow:visible}}
.{m} .uk-points button{{position:absolute;width:15px;height:15px;min-width:0;margin:-7.5px 0 0 -7.5px;padding:0;
 border:0;border-radius:50%;background:transparent;color:transparent;font-size:0;box-shadow:none;pointer-events:auto;
 cursor:pointer}}
.{m} .uk-points button:hover,.{m} .uk-points button:focus-visible{{outline:2px solid #222;outline-offset:1px}}
{places}</style>"""
_NUMBERS = count()


class FrontControls(Panel):
    """Controls: both axes with their direction, methods, seeds, step; constraint, preference, mixture, reference point;
    a point, picked in the figure or from the list; its attribution; export."""

    def build(self, axes: tuple[list[str], list[str]], asked: tuple[str, str], models: list[str], modality: str,
              folder: str) -> None:  # fmt: skip
        """Make the controls and arrange them.

        Args:
            axes: keys that each axis can show; asked: those it shows at first, if it can.
            models: names of the models that can be mixed.
        """
        own: dict[str, Any] = {"style": NARROW, "layout": widgets.Layout(width="316px")}
        slow = {**own, "continuous_update": False}
        for name, keys, wanted in zip(AXES, axes, asked, strict=True):
            value = wanted if wanted in keys else keys[0]
            self._axis(name, widgets.Dropdown(options=keys, value=value, description=name, **own))
        self._axis("beyond", widgets.Dropdown(options=TOWARD, description="counts", **own))
        self._axis("less", widgets.Dropdown(options=BETTER, description="direction", **own))
        many = {"style": NARROW, "layout": widgets.Layout(width="316px", height="84px")}
        self.control("methods", widgets.SelectMultiple(description="methods", **many))
        self.control("seeds", widgets.SelectMultiple(description="seeds", **many))
        self.control("step", widgets.Dropdown(description="step", **own))
        self.control("share", widgets.IntSlider(90, 0, 110, description="utility ≥ %", **slow))
        self.control("weight", widgets.FloatSlider(0.5, min=0, max=1, step=0.05, description="preference", **slow))
        self.control("rule", widgets.Dropdown(options=list(RULES), value="chebyshev", description="scalarised", **own))
        for axis in AXES:
            number = widgets.BoundedFloatText(0, min=-1, max=1, step=0.1, description=f"{axis} from", **own)
            self.control(f"reference_{axis}", number)
        self.control("model", widgets.Dropdown(options=models, description="mix", disabled=not models, **own))
        a = widgets.FloatSlider(1.0, min=0, max=1, step=0.05, description="a", disabled=not models, **slow)
        a.observe(lambda _: self.mix(), "value")
        self.controls["a"] = a
        self.control("run", widgets.Dropdown(description="run", style=LABEL, layout=widgets.Layout(width="470px")))
        views = sorted(VIEWS[modality])
        first = next(v for v in ("tokens", "attention") if v in views)
        self.control("view", widgets.Dropdown(options=views, value=first, description="attribution", style=LABEL))
        self._button("attribute", "search", self.attribute)
        self.controls["folder"] = widgets.Text(folder, description="folder", style=LABEL)
        self._button("export", "download", self.export)
        self._arrange()

    def _axis(self, name: str, widget: Any) -> None:
        self.controls[name] = widget
        widget.observe(lambda _: self.load(), "value")

    def _button(self, name: str, icon: str, act: Callable[[], None]) -> None:
        self.controls[name] = widgets.Button(description=name, icon=icon)
        self.controls[name].on_click(lambda _: act())

    def _arrange(self) -> None:
        c, self._mark = self.controls, f"uk-front-{next(_NUMBERS)}"
        self._points, self._css = widgets.ToggleButtons(options=[]), widgets.HTML(layout=widgets.Layout(display="none"))
        self._points.add_class("uk-points")
        self._points.observe(self._clicked, "value")
        figure = widgets.Box([self.view("front", HEIGHT), self._points, self._css])
        figure.add_class(self._mark)
        names = ("forgetting", "beyond", "utility", "less", "methods", "seeds", "step", "share", "weight", "rule",
                 "reference_forgetting", "reference_utility", "model", "a")  # fmt: skip
        layout = widgets.Layout(flex="0 0 330px")
        left = widgets.VBox([*(c[n] for n in names), self.view("mixture", 62)], layout=layout)
        top = widgets.HBox([left, widgets.VBox([figure, self.view("choice", 268)])])
        details = widgets.VBox([c["run"], self.view("details", 420)], layout=widgets.Layout(flex="0 0 480px"))
        asked = widgets.HBox([c["view"], c["attribute"]])
        said = widgets.VBox([self.view("samples", 224), asked, self.view("attribution", 190)], layout=WIDE)
        saved = widgets.HBox([c["folder"], c["export"], self.view("exported", 48)])
        self.box.children = (self.head, top, widgets.HBox([details, said]), saved)

    def offer(self, titles: list[tuple[str, Any]], places: np.ndarray, otherwise: Any) -> Any:
        """List the points, put a button on each in the figure, and give the one that is selected.

        Args:
            titles: (title, index) of each; places: where each lies in the figure, (n, 2), shares of its size.
            otherwise: the index to select when the one that was selected is not among them.
        """
        run, indices = self.controls["run"], [index for _, index in titles]
        chosen = run.value if run.value in indices else otherwise
        with self.together():
            if list(run.options) != titles:
                run.options = titles
                self._points.options = titles
                self._points.tooltips = [title for title, _ in titles]
            run.value = self._points.value = chosen
        self._css.value = self._styled(places)
        return chosen

    def _styled(self, places: np.ndarray) -> str:
        each = "\n".join(
            f".{self._mark} .uk-points button:nth-of-type({k}){{left:{x * WIDTH:.1f}px;top:{y * HEIGHT:.1f}px}}"
            for k, (x, y) in enumerate(places, 1)
        )
        return CSS.format(m=self._mark, w=WIDTH, h=HEIGHT, places=each)

    def _clicked(self, change: Any) -> None:
        if not self._quiet and change["new"] is not None:
            self.controls["run"].value = change["new"]

    def load(self) -> None:
        """The axes have changed."""

    def mix(self) -> None:
        """A mixture is asked for."""

    def attribute(self) -> None:
        """The attribution of the selected model is asked for."""

    def export(self) -> None:
        """Files are asked for."""
