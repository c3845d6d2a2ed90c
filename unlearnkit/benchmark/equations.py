"""Equations as pictures, for pages that must not fetch a script to set them."""

from __future__ import annotations

import re
from functools import lru_cache
from io import BytesIO

DPI = 192
GREYS = 8  # enough for smooth letters
SPELT = [  # what matplotlib's mathtext does not know, by what it does
    (r"\\tfrac", r"\\frac"),
    (r"\\frac\s*(\w)(\w)", r"\\frac{\1}{\2}"),
    (r"\\mathcal\s*(\w)", r"\\mathcal{\1}"),
    (r"\\dfrac", r"\\frac"),
    (r"\\text\{([^{}]*)\}", r"\\mathrm{\1}"),
    (r"\\operatorname\{([^{}]*)\}", r"\\mathrm{\1}"),
    (r"\\(lVert|rVert|Vert)\b", r"\\|"),
    (r"\\(lvert|rvert|vert)\b", r"|"),
    (r"\\(?:[bB]ig{1,2}[lr]?|!)(?![A-Za-z])", ""),
    (r"\\le\b", r"\\leq"),
    (r"\\ge\b", r"\\geq"),
    (r"\\lfloor", r"\\lfloor "),
    (r"\\mathbf\{1\}|\\mathbb\{1\}", "1"),
]


@lru_cache(maxsize=256)
def picture(equation: str) -> tuple[bytes, int] | None:
    """LaTeX as (PNG, width in CSS pixels), or None where it can't be set without LaTeX itself."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import math_to_image

    for found, instead in SPELT:
        equation = re.sub(found, instead, equation)
    out = BytesIO()
    try:
        math_to_image(f"${equation}$", out, prop=FontProperties(size=12, math_fontfamily="cm"), dpi=DPI, format="png")
    except (ValueError, RuntimeError):
        return None
    from PIL import Image

    out.seek(0)
    drawn, small = Image.open(out), BytesIO()
    white = Image.new("RGBA", drawn.size, "white")
    Image.alpha_composite(white, drawn.convert("RGBA")).convert("L").quantize(GREYS).save(small, "PNG", optimize=True)
    return small.getvalue(), round(drawn.width * 96 / DPI)
