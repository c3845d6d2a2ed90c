"""Attribution of a language model's answer as panels show it: tables, and their pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure

from unlearnkit.attacks.text.inside import final_norm, hidden_states
from unlearnkit.attribution.text.tokens import Tokens, answer_log_probability, attribution_shift, question_of
from unlearnkit.errors import UnlearnkitError
from unlearnkit.panels import html
from unlearnkit.plots import COLORS
from unlearnkit.robustness import attack
from unlearnkit.text import collate, context_length, encode, pad_id

METHODS = {
    "integrated_gradients": "integrated gradients",
    "shapley": "Shapley sampling",
    "ablation": "feature ablation",
    "gradient_x_activation": "gradient × activation",
}
MARKERS = {"original": "o", "unlearned": "s", "oracle": "^", "random": "x"}


def _nothing() -> None:
    pass


def token_table(
    problem: Any,
    models: Mapping[str, Any],
    prompt: str,
    target: str,
    method: str = "integrated_gradients",
    seed: int = 0,
    step: Callable[[], None] = _nothing,
) -> pd.DataFrame:
    """The view `tokens` of each model, and `log_probability` of the whole answer (nats, at place −1)."""
    if not target.strip():
        raise UnlearnkitError("the target is empty; give the answer whose probability is explained.")
    settings: dict[str, Any] = {"method": method, "prompt": prompt, "target": target}
    view = Tokens(**settings)
    parts = []
    for who, model in models.items():
        asked = question_of(problem, model, prompt, target)
        with torch.no_grad():
            value = float(answer_log_probability(model, asked)(asked.question[None]))
        row = {"who": who, "item": prompt, "place": -1, "label": "", "measure": "log_probability", "value": value}
        parts += [view.rows(problem, {who: model}, seed), pd.DataFrame([row])]
        step()
    return pd.concat(parts, ignore_index=True)


@torch.no_grad()
def lens_table(
    problem: Any, models: Mapping[str, Any], prompt: str, target: str, step: Callable[[], None] = _nothing
) -> pd.DataFrame:
    """Logit lens of every answer token: what the output embedding reads off each layer (0: embeddings).

    Columns: `who`, `layer`, `place` and `label` of the answer token, `value` (its log-probability, nats), `top` (the
    likeliest token there) and `top_value`.
    """
    rows = []
    for who, model in models.items():
        (coded,) = encode(problem.tokenizer, problem.template, [(prompt, target)], context_length(model))
        answer = coded.ids[coded.start :]
        batch = collate([coded] * len(answer), range(len(answer)), pad_id(problem.tokenizer)).to(problem.device)
        positions = torch.arange(len(answer), device=problem.device) + coded.start - 1
        states = hidden_states(model, batch, positions)  # (layers + 1, answer tokens, width)
        norm, head = final_norm(model), model.get_output_embeddings()
        for layer, state in enumerate(states.to(head.weight.dtype)):
            last = layer == len(states) - 1  # the last one is normed already
            logp = head(state if last else norm(state)).float().log_softmax(-1)  # (answer tokens, vocabulary)
            best, top = logp.max(-1)
            rows += [
                (who, layer, k, problem.tokenizer.decode([i]), float(logp[k, i]), problem.tokenizer.decode([t]), b)
                for k, (i, t, b) in enumerate(zip(answer, top.tolist(), best.tolist(), strict=True))
            ]
        step()
    return pd.DataFrame(rows, columns=["who", "layer", "place", "label", "value", "top", "top_value"])


def probe_table(
    problem: Any, models: Mapping[str, Any], seed: int = 0, step: Callable[[], None] = _nothing
) -> pd.DataFrame:
    """The attack `probe` of each model: accuracy and shuffled-label control per layer, with 95% intervals.

    Raises:
        UnlearnkitError: too few facts to fit a probe on.
    """
    parts = []
    for who in ("unlearned", "random"):
        if who in models:
            found = attack(problem, models[who], "probe", seed=seed)
            parts.append(found[found["who"] == "unlearned"].assign(who=who))
            step()
    whole = pd.concat([found[found["who"].isin(["original", "oracle"])], *parts], ignore_index=True)
    return whole.rename(columns={"budget": "layer"}).astype({"layer": int})


def token_html(table: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """Heat maps side by side, their scale, and every value."""
    found = table[table["measure"] == "attribution"]
    limit = max(float(found["value"].abs().max()), 1e-12)
    said = table.pivot_table(index="measure", columns="who", values="value", aggfunc="sum", sort=False)
    cards = {}
    for who, mine in found.groupby("who", sort=False):
        run = "".join(
            f"<span style='{html.shade(v / limit)}' title='{escape(f'{label!r}: {html.number(v)} nats')}'>"
            f"{escape(label)}</span>"
            for label, v in zip(mine["label"], mine["value"], strict=True)
        )
        logp = said.loc["log_probability", who]
        cards[str(who)] = (
            f"<small title='p = {np.exp(logp):.3g}'>log p(target) = {html.number(logp)} nats</small>"
            f"<div class='uk-run'>{run}</div>"
        )
    names = list(cards)
    wide = found.pivot(index="place", columns="who", values="value")[names]
    labels = found.drop_duplicates("place").set_index("place")["label"]
    rows = [
        (html.piece(labels[place]), *(html.cell(html.number(v), html.shade(v / limit)) for v in values))
        for place, values in zip(wide.index, wide.to_numpy(), strict=True)
    ]
    rows.append(("sum", *(html.cell(html.number(v)) for v in wide.sum())))
    if "completeness" in said.index:
        gaps = said.loc["completeness", names]
        rows.append(("completeness gap", *(html.cell(f"{v:.1e}") for v in gaps)))
    shift = attribution_shift(table)
    for against in ("original", "oracle"):
        if against in names:
            moved = [shift["mass"].get((who, against), np.nan) for who in names]
            rows.append((f"moved from the {against}", *(html.cell(html.number(v, sign=False)) for v in moved)))
    ends = html.number(-limit), html.number(limit)
    return html.columns(cards, titles) + (
        html.legend(*ends, "nats: blue lowers the log-probability of the target, red raises it")
        + html.table(
            ["token of the prompt", *(titles.get(w, w) for w in names)],
            rows,
            "Attribution, nats. “Moved”: half the L1 distance of the shares, 0 the same, 1 nothing in common.",
            ["currentColor", *map(html.color_of, names)],
        )
    )


def layers_html(lens: pd.DataFrame, probe: pd.DataFrame | str, layer: int, titles: Mapping[str, str]) -> str:
    """Lens and probe of one layer, beside their curves over all of them; `probe` may be why there is none."""
    here = lens[lens["layer"] == layer]
    names = list(here["who"].unique())
    line = ["currentColor", *map(html.color_of, names)]
    head = [titles.get(w, w) for w in names]
    rows = []
    for _, token in here.groupby("place", sort=True):
        mine = token.set_index("who").loc[names]
        rows.append((
            html.piece(mine["label"].iloc[0]),
            *(
                html.cell(
                    f"{np.exp(r.value):.3f}  {html.piece(r.top)}", html.shade(np.exp(r.value), html.MAGNITUDE),
                    f"log p = {html.number(r.value)} nats; likeliest: {r.top!r}, p = {np.exp(r.top_value):.3f}",
                    words=True,
                )
                for r in mine.itertuples()
            ),
        ))  # fmt: skip
    means = here.groupby("who")["value"].mean()
    rows.append(("mean log p, nats", *(html.cell(html.number(means[w])) for w in names)))
    return (
        html.drawing(layer_figure(lens, probe, layer, titles), "Lens and probe over all layers")
        + f"<div class='uk-beside'><div>{_probe_html(probe, layer, names, titles)}</div><div>"
        + html.table(["token of the target", *head], rows, f"Logit lens at layer {layer} (0: embeddings)", line)
        + html.legend("0", "1", "probability of the target's token; beside it the likeliest token", html.MAGNITUDE)
        + "</div></div>"
    )


def _probe_html(probe: pd.DataFrame | str, layer: int, names: Sequence[str], titles: Mapping[str, str]) -> str:
    if isinstance(probe, str):
        return html.sentence(f"Probe not measurable: {probe}")
    at = probe[probe["layer"] == layer].set_index(["who", "measure"])
    rows = []
    for who in (w for w in names if (w, "accuracy") in at.index):
        pair = [at.loc[(who, measure)] for measure in ("accuracy", "control")]
        shares = [f"{x['value']:.0%} [{x['low']:.0%}, {x['high']:.0%}]" for x in pair]
        rows.append((titles.get(who, who), *map(html.cell, shares)))
    said = f"Linear probe at layer {layer}: {int(at['n'].max())} forgotten facts, 95% intervals"
    return html.table(["model", "values right", "labels shuffled"], rows, said)


def layer_figure(lens: pd.DataFrame, probe: pd.DataFrame | str, layer: int, titles: Mapping[str, str]) -> Figure:
    """Mean log-probability of the target by the lens, and accuracy of the probe, over all layers."""
    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=(8.8, 2.4), layout="constrained")
        draw_layers(figure.subplots(1, 2), lens, probe, layer, titles)
    return figure


def draw_layers(
    axes: Any, lens: pd.DataFrame, probe: pd.DataFrame | str, layer: int | None, titles: Mapping[str, str]
) -> None:
    """The two curves of `layer_figure` on two axes."""
    lines = [("lens: log p a token, nats", lens.groupby(["who", "layer"], sort=False)["value"].mean().reset_index())]
    if not isinstance(probe, str):
        lines.append(("probe: share right", probe[probe["measure"] == "accuracy"]))
    for ax, (label, table) in zip(axes, lines, strict=False):
        for who in (w for w in MARKERS if w in set(table["who"])):
            mine, color = table[table["who"] == who], COLORS.get(who, "0.5")
            at, line = mine["layer"], ":" if who == "random" else "-"  # the control often lies on the original
            ax.plot(at, mine["value"], MARKERS[who] + line, ms=6, lw=2, color=color, label=titles.get(who, who))
            if "low" in mine:
                ax.fill_between(at, mine["low"], mine["high"], color=color, alpha=0.13, lw=0)
        if layer is not None:
            ax.axvline(layer, color="0.3", lw=1.2, ls="--")
        ax.set(xlabel="layer (0: embeddings)", ylabel=label, xticks=sorted(table["layer"].unique()))
    if isinstance(probe, str):
        axes[1].text(0.5, 0.5, "probe not measurable", ha="center", va="center", transform=axes[1].transAxes)
        axes[1].set(xticks=[], yticks=[])
    handles, labels = axes[0].get_legend_handles_labels()
    axes[1].legend(handles, labels, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9)


def twin_figure(
    tokens: pd.DataFrame, lens: pd.DataFrame, probe: pd.DataFrame | str, titles: Mapping[str, str]
) -> Figure:
    """The panel as one still: heat map of the tokens with every value, lens and probe over all layers."""
    wide = tokens[tokens["measure"] == "attribution"].pivot(index="place", columns="who", values="value")
    labels = tokens.drop_duplicates("place").set_index("place")["label"]
    wide = wide[list(tokens["who"].unique())]
    limit = max(float(np.abs(wide.to_numpy()).max()), 1e-12)
    height = 0.25 * len(wide) + 1.3
    with sns.axes_style("white"):
        figure = Figure(figsize=(11, max(height, 4.6)), layout="constrained")
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.15, 1))[0]
        ax = left.subplots()
        image = ax.imshow(wide, cmap=html.SIGNED, vmin=-limit, vmax=limit, aspect="auto")
        for (row, column), value in np.ndenumerate(wide.to_numpy()):
            ink = "white" if abs(value) > 0.65 * limit else "black"
            ax.text(column, row, html.number(value), ha="center", va="center", fontsize=8, color=ink)
        ax.set_xticks(range(wide.shape[1]), [titles.get(w, w) for w in wide], fontsize=9, parse_math=False)
        ax.set_yticks(range(len(wide)), [labels[p] for p in wide.index], fontsize=9, parse_math=False)
        ax.xaxis.tick_top()
        left.colorbar(image, ax=ax, shrink=0.7, label="attribution, nats")
    with sns.axes_style("whitegrid"):
        draw_layers(right.subplots(2, 1), lens, probe, None, titles)
    return figure
