"""What the front panel says: the choice in sentences, and parameters, samples and attribution of one point."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit import tradeoff
from unlearnkit.panels import html
from unlearnkit.panels.front.source import Choice, settings_of
from unlearnkit.runs.record import read_run
from unlearnkit.tradeoff import AXES, Target


def title_of(row: Mapping[str, Any]) -> str:
    """A model in one line: name, seed, step, settings."""
    step = "" if pd.isna(row["step"]) else f", step {row['step']:g}"
    own = "".join(f", {k} {v}" for k, v in settings_of(row).items() if not (k == "steps" and step))
    return f"{row['name']}, seed {row['seed']}{step}{own}"


def values_of(row: Mapping[str, Any]) -> str:
    return f"forgetting {row['forgetting']:.3f}, utility {row['utility']:.3f}".replace("-", "−")


def sentences(points: pd.DataFrame, choice: Choice, goal: Target | None, share: float, weight: float, rule: str,
              reference: Sequence[float]) -> dict[str, str]:  # fmt: skip
    """What the controls give, a sentence each, as text."""
    able = int((points["utility"] >= share).sum())
    said = f"{able} of {len(points)} models keep {share:.0%} of the original's utility"
    if choice.best is None:
        said += "; none is feasible, so the answer is the original: forgetting 0."
    else:
        said += f"; of these forgets most: {title_of(points.loc[choice.best])} ({values_of(points.loc[choice.best])})."
    liked = points.loc[choice.preferred]
    how = {"sum": "weighted sum", "chebyshev": "weighted Chebyshev distance"}[rule]
    if goal is None:
        oracle = "No retrained model is among the points: of the target only forgetting = 1 is known."
    elif not np.isfinite(goal.utility_noise):
        oracle = f"One retrained model (forgetting 1, utility {goal.utility:.2f}): its noise region needs another."
    else:
        oracle = (
            f"Retrained models lie at forgetting 1 ± {goal.forgetting_noise:.2f}, utility {goal.utility:.2f} ± "
            f"{goal.utility_noise:.2f}; {_inside_region(points, goal)} of {len(points)} models are in that region."
        )
    return {
        "utility": said,
        "preference": f"By {how}, {weight:.2f} on forgetting and {1 - weight:.2f} on utility: {title_of(liked)} "
        f"({values_of(liked)}).",
        "hypervolume": f"Hypervolume above ({reference[0]:g}, {reference[1]:g}): {choice.hypervolume:.3f}.",
        "oracle": oracle,
    }


def _inside_region(points: pd.DataFrame, goal: Target) -> int:
    near = (points["forgetting"] - goal.forgetting).abs() <= goal.forgetting_noise
    return int((near & ((points["utility"] - goal.utility).abs() <= goal.utility_noise)).sum())


def choice_html(points: pd.DataFrame, said: Mapping[str, str], share: float, reference: Sequence[float]) -> str:
    """The sentences, and a row a name: its own hypervolume and its best forgetting at the utility."""
    rows = []
    for name, part in points.groupby("name", sort=False):
        best = tradeoff.best_feasible(part, share)
        forgets = "none keeps it" if best is None else html.number(float(part.loc[best, "forgetting"]), sign=False)
        area = html.number(tradeoff.hypervolume(part, reference), sign=False)
        rows.append((str(name), *map(html.cell, (len(part), int(tradeoff.nondominated(part).sum()), area, forgets))))
    head = ["name", "points", "on its front", "hypervolume", f"best forgetting at utility ≥ {share:.0%}"]
    lines = "".join(f"<p data-says='{key}'>{escape(text)}</p>" for key, text in said.items())
    return lines + html.table(head, rows)


def point_html(row: Mapping[str, Any], points: pd.DataFrame) -> str:
    """Parameters, values with intervals where there are any, and run folder of one model."""
    same = points[np.isclose(points[AXES].astype(float), [row[a] for a in AXES]).all(axis=1)]
    rows = []
    for axis in AXES:
        low, high = (row.get(f"{axis}_{end}", np.nan) for end in ("low", "high"))
        interval = f" [{low:.3f}, {high:.3f}]" if pd.notna(low) and pd.notna(high) else ""
        rows.append((axis, html.cell(f"{row[axis]:.3f}{interval}".replace("-", "−"))))
    marks = {"method": row["method"], "balance": row["balance"], "seed": row["seed"]}
    if pd.notna(row["step"]):
        marks["step"] = f"{row['step']:g}"
    rows += [(k, html.cell(v, words=True)) for k, v in {**marks, **settings_of(row)}.items()]
    config = _config(row["run"])
    rows += [(k, html.cell(v, words=True)) for k, v in config.items() if k not in marks and k not in settings_of(row)]
    others = f"<p><small>{len(same) - 1} other models lie at the same place.</small></p>" if len(same) > 1 else ""
    folder = (
        f"<code>{escape(str(Path(row['run']).absolute()))}</code>"
        if row["run"]
        else "no run folder: the source is a frame in memory"
    )
    return f"<p data-says='run'><small>run folder:</small> {folder}</p>{others}" + html.table(["parameter", ""], rows)


def _config(run: str) -> dict[str, Any]:
    """Parameters of the run that were given, by its record."""
    if not run or not Path(run).is_dir():
        return {}
    return {k: v for k, v in read_run(Path(run)).config["values"].items() if v is not None}


def samples_html(rows: pd.DataFrame) -> str:
    """What a model says or draws, beside what was wanted."""
    if not len(rows):
        return html.sentence(
            "No samples were kept of this model: trace-samples.csv of its run has none. Notebook 07 keeps some; in "
            'a notebook of your own, run.trace(tradeoff.samples(problem, measured).assign(method=…), "samples").'
        )
    lines: list[tuple[str, ...]] = []
    for row in rows.to_dict("records"):
        picture = row.get("picture")
        shown = _thumbnail(picture, str(row["asked"])) if isinstance(picture, str) else ""
        right = {"True": "right", "False": "not"}.get(str(row["right"]), "")
        said = f"<td class='uk-text'>{shown}{escape(str(row['said']))}</td>"
        cells = (html.cell(row[c], words=True) for c in ("split", "asked", "wanted"))
        lines.append((str(len(lines) + 1), *cells, said, html.cell(right)))
    return html.table(["", "split", "asked", "wanted", "said or read", ""], lines)


def _thumbnail(data: str, alt: str) -> str:
    """A kept picture, decoded and drawn anew, so that nothing of the file itself reaches the page."""
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=["PNG"]).convert("RGB")
    except (binascii.Error, OSError, ValueError):
        return "<small>(unreadable picture)</small>"
    return html.picture(np.asarray(picture), alt)


def attribution_html(table: pd.DataFrame, title: str, most: int = 24) -> str:
    """A table of `attribute`: a row a measure and place, averaged over records, a column a model."""
    wide = table.pivot_table(index=["measure", "place", "label"], columns="who", values="value", sort=False)
    names = [w for w in ("original", "unlearned", "oracle", "random") if w in wide]
    rows = []
    for (measure, _, label), values in wide[names].head(most).iterrows():
        rows.append((f"{measure}: {html.piece(str(label))}", *(html.cell(html.number(v)) for v in values)))
    more = f"; {len(wide) - most} more rows in uk.attribute" if len(wide) > most else ""
    count = table["item"].nunique()
    caption = f"{title}, mean over {count} record{'s' * (count != 1)}{more}"
    return html.table(["measure", *names], rows, caption, ["currentColor", *map(html.color_of, names)])
