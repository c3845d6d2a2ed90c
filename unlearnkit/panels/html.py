"""Pieces of HTML that panels are made of; whatever comes from a model or a user is escaped here."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from unlearnkit.plots import COLORS

SIGNED, MAGNITUDE = "RdBu_r", "viridis"  # colour maps: of values with a sign, of values without
LARGEST = 256  # pixels of a picture's side; larger ones are scaled down
RANDOM = "the original moved at random by as much as the unlearned model: the control of the same size"
STYLE = """<style>
.uk-panel{font:14px/1.45 var(--jp-ui-font-family,system-ui,sans-serif);color:var(--jp-ui-font-color1,#1a1a1a);
 padding:2px 4px}
.uk-panel .uk-columns{display:grid;gap:10px;align-items:start;margin:4px 0 10px}
.uk-panel .uk-card{border:1px solid var(--jp-border-color2,#d0d0d0);border-top:4px solid;border-radius:4px;
 padding:6px 9px;min-width:0}
.uk-panel .uk-card h4{margin:0 0 2px;font-size:14px}
.uk-panel small,.uk-panel caption{color:var(--jp-ui-font-color2,#555);font-size:12.5px}
.uk-panel .uk-run{white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.9;margin-top:5px;font-size:14.5px}
.uk-panel .uk-run span{padding:2px 0;border-radius:2px}
.uk-panel table{border-collapse:collapse;margin:2px 0 10px;font-size:13px}
.uk-panel caption{text-align:left;padding:2px 0 4px}
.uk-panel th,.uk-panel td{padding:2px 10px;text-align:right;border:1px solid var(--jp-border-color2,#ddd);
 font-variant-numeric:tabular-nums;white-space:pre-wrap;overflow-wrap:anywhere}
.uk-panel th:first-child,.uk-panel td.uk-text{text-align:left}
.uk-panel td{min-width:72px}
.uk-panel thead th{border-bottom:3px solid;font-weight:600;position:sticky;top:0;
 background:var(--jp-layout-color1,#fff);z-index:1}
.uk-panel .uk-legend{display:flex;gap:8px;align-items:center;margin:2px 0 8px;font-size:12.5px}
.uk-panel .uk-legend i{display:inline-block;width:190px;height:13px;border:1px solid #8888;border-radius:2px}
.uk-panel .uk-error{border-left:4px solid #c0392b;padding:6px 10px;margin:8px 0}
.uk-panel img{max-width:100%;display:block}
.uk-panel img.uk-pixels{image-rendering:pixelated;width:100%;max-width:180px;margin:4px 0;border:1px solid #8884}
.uk-panel .uk-beside{display:flex;flex-wrap:wrap;gap:18px;align-items:flex-start}
.uk-panel p{margin:3px 0}.uk-panel ol{margin:3px 0;padding-left:26px}.uk-panel li{overflow-wrap:anywhere;margin:3px 0}
.uk-panel .uk-strip{display:flex;gap:4px}.uk-panel .uk-strip img.uk-pixels{width:84px;flex:0 1 auto;min-width:0}
.uk-panel mark{background:#ffd54d;color:#1a1a1a;padding:0 2px;border-radius:2px}
</style>"""


def page(*parts: str) -> str:
    """A whole view: style and parts, which must be HTML already."""
    return f"{STYLE}<div class='uk-panel'>{''.join(parts)}</div>"


def sentence(text: object) -> str:
    """One sentence that says why there is nothing to see."""
    return f"<p class='uk-error' role='alert'>{escape(str(text))}</p>"


def color_of(who: str) -> str:
    """The colour of a model's column: original, unlearned and oracle as in every figure, grey for the control."""
    return to_hex(COLORS.get(who.split()[0], "0.5"))


def shade(share: float, colors: str = SIGNED) -> str:
    """CSS of a cell: background at `share` of a colour map (signed: −1 … 1, else 0 … 1), ink that can be read on it."""
    if not np.isfinite(share):
        return ""
    at = (np.clip(share, -1, 1) + 1) / 2 if colors == SIGNED else np.clip(share, 0, 1)
    color = colormaps[colors](float(at))
    rgb = np.array(color[:3])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    return f"background:{to_hex(color)};color:{'#fff' if linear < 0.179 else '#000'}"  # whichever contrasts more


def legend(low: str, high: str, says: str, colors: str = SIGNED) -> str:
    """The colour scale with its ends and what it shows."""
    stops = ",".join(to_hex(colormaps[colors](x)) for x in np.linspace(0, 1, 9))
    bar = f"<i style='background:linear-gradient(to right,{stops})'></i>"
    return f"<div class='uk-legend'><span>{escape(low)}</span>{bar}<span>{escape(high)}</span><span>{says}</span></div>"


def columns(cards: Mapping[str, str], titles: Mapping[str, str]) -> str:
    """Cards side by side, one a model, under its title and in its colour; the cards are HTML already."""
    made = "".join(
        f"<div class='uk-card' data-who='{escape(who)}' style='border-top-color:{color_of(who)}'"
        f" title='{RANDOM if who == 'random' else ''}'><h4>{escape(titles.get(who, who))}</h4>{card}</div>"
        for who, card in cards.items()
    )
    return f"<div class='uk-columns' style='grid-template-columns:repeat({len(cards)},minmax(0,1fr))'>{made}</div>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", colors: Sequence[str] = ()) -> str:
    """A table; `head` and the first cell of each row are text, the other cells HTML that begins with `<td`."""
    lines = [*colors, *["currentColor"] * len(head)]
    heads = "".join(
        f"<th scope='col' style='border-bottom-color:{line}'>{escape(h)}</th>"
        for h, line in zip(head, lines, strict=False)
    )
    body = "".join(f"<tr><th scope='row'>{escape(first)}</th>{''.join(cells)}</tr>" for first, *cells in rows)
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{said}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def cell(text: object, style: str = "", title: str = "", words: bool = False) -> str:
    """One cell of a table."""
    kind = " class='uk-text'" if words else ""
    return f"<td{kind} style='{style}' title='{escape(title)}'>{escape(str(text))}</td>"


def piece(token: str) -> str:
    """A token as a table shows it: a space in front, which tells a new word from the rest of one, can be seen."""
    return "␣" + token[1:] if token.startswith(" ") else token


def marked(answer: str, value: str) -> str:
    """An answer as HTML with every occurrence of the value, as `says` finds it, highlighted."""
    if not answer:
        return "<small>(nothing)</small>"
    pieces = re.split(rf"(?<!\w)({re.escape(value)})(?!\w)", answer, flags=re.IGNORECASE) if value else [answer]
    return "".join(f"<mark>{escape(p)}</mark>" if k % 2 else escape(p) for k, p in enumerate(pieces))


def number(value: float, sign: bool = True) -> str:
    """A value as a cell shows it; a dash where there is none."""
    return "–" if not np.isfinite(value) else f"{value:{'+' if sign else ''}.3f}".replace("-", "−")


def picture(image: np.ndarray, alt: str) -> str:
    """A uint8 image (height, width, 3) as HTML, at most `LARGEST` pixels a side."""
    from PIL import Image

    drawn = Image.fromarray(image)
    drawn.thumbnail((LARGEST, LARGEST))
    data = io.BytesIO()
    drawn.save(data, "PNG")
    return f"<img class='uk-pixels' src='{_uri(data.getvalue(), 'png')}' alt='{escape(alt)}' title='{escape(alt)}'>"


def heat(values: np.ndarray, low: float, high: float, alt: str) -> str:
    """A map (height, width) as a picture between two values of the colour scale."""
    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    return picture((colormaps[MAGNITUDE](share)[..., :3] * 255).round().astype(np.uint8), alt)


def drawing(figure: Figure, alt: str, light: bool = False) -> str:
    """A matplotlib figure as HTML: an SVG behind an image tag, so that nothing in it is run.

    Args:
        light: its letters are drawn with the reader's fonts, which makes it half as large.
    """
    data = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none" if light else "path"}):
        figure.savefig(data, format="svg", metadata={"Date": None})
    return f"<img src='{_uri(data.getvalue(), 'svg+xml')}' alt='{escape(alt)}'>"


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def titles_of(who: Iterable[str], name: str) -> dict[str, Any]:
    """How the columns are called: the unlearned one by its method."""
    known = {"unlearned": f"unlearned: {name}", "random": "random change"}
    return {w: known.get(w, w) for w in who}
