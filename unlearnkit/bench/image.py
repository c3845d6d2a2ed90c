"""`unlearnkit bench image`: ESD from a bank of trajectories against fresh ones, sampling, evaluation, and what grows.

Ways take turns, and a speed-up is the median of the ratios of turns next to each other (see `unlearnkit.bench.clock`).
Ways to draw or to read must come to the same pictures and readings, or there is no table; of the two ways of ESD, whose
states differ, the final accuracies stand beside the times.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from unlearnkit.bench.clock import about, clock, seconds_of, speed_up, take_turns, wait
from unlearnkit.bench.figures import image_figure
from unlearnkit.bench.image_ways import FreshESD, one_call_each, preparation, timed_esd, two_passes
from unlearnkit.evaluation import evaluate, measure
from unlearnkit.methods.image import ESD
from unlearnkit.metrics.measure_image import questions
from unlearnkit.models.diffusion import sample
from unlearnkit.models.image_recipe import ImageRecipe, new_pipeline
from unlearnkit.models.load import device_of, quiet
from unlearnkit.problem import load_problem
from unlearnkit.unlearning import unlearn

TRIPLE = ("ua", "ira", "cra")
SETTINGS: dict[str, dict[str, float]] = {  # of ESD: what is compared
    "defaults": {},
    "no retain term, eta 1": {"alpha": 0.0, "eta": 1.0},
}
LIMIT = 36  # pictures a split
LEVEL = 2.0  # of 255: how far the pictures of two ways may differ on average
SIZES = (32, 64, 128)  # pixels
CONCEPTS = (1, 10, 100, 1000)


def bench_esd(turns: int = 2, steps: int | None = None, limit: int = LIMIT) -> pd.DataFrame:
    """One row a setting: seconds an iteration from the bank and with fresh trajectories, and where both end."""
    problem = load_problem("canvas", oracles=0)
    steps = steps or int(ESD.loop["steps"])
    rows = []
    for name, settings in tqdm(SETTINGS.items(), desc="ESD", unit="setting"):
        ways: dict[str, type[ESD]] = {"bank": ESD, "fresh": FreshESD}
        timed: dict[str, list[float]] = {way: [] for way in ways}
        prepare: dict[str, list[float]] = {way: [] for way in ways}
        final: dict[str, Any] = {}
        for turn in range(turns):
            for way in ways if turn % 2 else reversed(ways):
                method = ways[way].model_validate(settings)
                final[way], seconds = timed_esd(problem, method, steps)
                timed[way].append(seconds)
                prepare[way].append(preparation(problem, method))
        whole = {w: [steps * s + p for s, p in zip(timed[w], prepare[w], strict=True)] for w in ways}
        row = {
            "ESD": name,
            "turns": turns,
            "iterations": steps,
            "fresh s/iteration": float(np.median(timed["fresh"])),
            "bank s/iteration": float(np.median(timed["bank"])),
            **speed_up(timed["fresh"], timed["bank"]),
            "bank once, s": float(np.median(prepare["bank"])),
            "whole run": speed_up(whole["fresh"], whole["bank"])["speed-up"],
        }
        for way, done in final.items():
            table = evaluate(problem, measure(problem, done.model, limit, progress=False), TRIPLE, limit=limit)
            row |= {f"{way} {metric.upper()}": float(table.loc[metric, "unlearned"]) for metric in TRIPLE}
        rows.append(row)
    return pd.DataFrame(rows)


def bench_sampling(turns: int = 2, limit: int = LIMIT) -> pd.DataFrame:
    """One row a way to draw the same guided pictures, after checking that they are the same."""
    problem = load_problem("canvas", oracles=0)
    model = problem.model
    asked = questions(problem, limit)
    prompts, seeds = [q.prompt for q in asked], [q.seed for q in asked]
    ways: dict[str, Callable[..., np.ndarray]] = {
        "one batch": sample,
        "two passes": two_passes,
        "one call a picture": one_call_each,
    }
    timed, made = take_turns({name: lambda w=way: w(model, prompts, seeds) for name, way in ways.items()}, turns)  # type: ignore[misc]
    return _against("one batch", "way", timed, len(prompts), {n: _apart(made["one batch"], m) for n, m in made.items()})


def bench_evaluation(turns: int = 2, limit: int = LIMIT) -> pd.DataFrame:
    """One row a way to evaluate the built-in pipeline, after checking that both read the same in the same pictures."""
    problem = load_problem("canvas", oracles=0)
    model, judge = problem.model, problem.judge
    asked = questions(problem, limit)

    def script() -> dict[str, list[str]]:
        read: dict[str, list[str]] = {d: [] for d in judge.domains}
        for q in asked:
            probabilities, _ = judge.read(one_call_each(model, [q.prompt], [q.seed]))
            for d, p in probabilities.items():
                read[d].append(judge.domains[d][int(p[0].argmax())])
        return read

    def ours() -> dict[str, list[str]]:
        items = measure(problem, model, limit, progress=False).items
        return {d: items[f"read_{d}"].tolist() for d in judge.domains}

    timed, made = take_turns({"one pass": ours, "a picture at a time": script}, turns)
    first, second = made.values()
    differ = {d: float(np.mean(np.not_equal(first[d], second[d]))) for d in first}
    same = {"one pass": 0.0, "a picture at a time": max(differ.values())}
    return _against("one pass", "evaluation", timed, len(asked), same, "readings that differ", most=0.02)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of two sets of pictures, in levels of 255."""
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


def _against(
    ours: str,
    title: str,
    timed: dict[str, list[float]],
    pictures: int,
    differ: dict[str, float],
    measure_of: str = "mean difference, levels of 255",
    most: float = LEVEL,
) -> pd.DataFrame:
    """One row a way; raises AssertionError when a way came to something else."""
    worst = max(differ, key=lambda name: differ[name])
    if differ[worst] > most:
        raise AssertionError(f"'{worst}' and '{ours}' differ by {differ[worst]:.2g}: the comparison would be void")
    return pd.DataFrame(
        {
            title: name,
            "pictures": pictures,
            "pictures/s": pictures / float(np.median(seconds)),
            **{"times slower": (found := speed_up(seconds, timed[ours])).pop("speed-up"), **found},
            measure_of: differ[name],
        }
        for name, seconds in timed.items()
    )


def problem_of(size: int, folder: Path) -> Any:
    """An untrained pipeline of the built-in one's make for pictures of `size` pixels, and two prompts to forget."""
    known = load_problem("canvas", oracles=0).model
    recipe = ImageRecipe(data="", codec="", prompts="", size=size)
    torch.manual_seed(0)
    made = new_pipeline(recipe, deepcopy(known.vae), known.pipe.tokenizer)
    made.set_progress_bar_config(disable=True)
    made.save_pretrained(folder)
    prompts, preserve = ["a striped circle", "a striped star"], ["a plain circle", "a dotted star"]
    own: dict[str, Any] = {"model": folder, "anchor": "plain", "prompts": prompts, "preserve": preserve}
    return load_problem("stable-diffusion", "striped", **own)


def bench_resolution(sizes: Sequence[int] = SIZES, steps: int = 3, pictures: int = 4) -> pd.DataFrame:
    """Cost against the side of a picture: drawing one, an ESD iteration both ways, and UCE."""
    rows = []
    for size in tqdm(sizes, desc="resolution", unit="size"):
        with tempfile.TemporaryDirectory() as folder:
            problem = problem_of(size, Path(folder))
            row: dict[str, float] = {"pixels": size}
            begin = clock()
            sample(problem.model, ["a striped circle"] * pictures, range(pictures))
            wait(problem.device)
            row["picture s"] = (clock() - begin) / pictures
            for way, cls in (("bank", ESD), ("fresh", FreshESD)):
                method = cls.model_validate({"seeds": 1, "alpha": 0.0})
                _, row[f"{way} s/iteration"] = timed_esd(problem, method, steps)
            row["bank once, s"] = preparation(problem, ESD.model_validate({"seeds": 1, "alpha": 0.0}))
            row["uce s"] = seconds_of(lambda p=problem: unlearn(p, "uce"))  # type: ignore[misc]
            rows.append(row)
    return pd.DataFrame(rows)


def bench_concepts(counts: Sequence[int] = CONCEPTS, turns: int = 3) -> pd.DataFrame:
    """Cost of UCE on the built-in pipeline against the number of concept prompts that are edited at once."""
    known = load_problem("canvas", oracles=0)
    rows = []
    for count in tqdm(counts, desc="concepts", unit="count"):
        prompts = [f"a striped {_word(k)}" for k in range(count)]
        kept = known.asked["retain"]
        own: dict[str, Any] = {"model": known.original.name, "anchor": "plain", "prompts": prompts, "preserve": kept}
        problem = load_problem("stable-diffusion", "striped", **own)
        problem.original.fresh()  # the folder is read before anything is timed
        seconds = [seconds_of(lambda p=problem: unlearn(p, "uce")) for _ in range(turns)]  # type: ignore[misc]
        rows.append({"concept prompts": count, "preserved prompts": len(kept), "uce s": float(np.median(seconds))})
    return pd.DataFrame(rows)


def _word(number: int) -> str:
    """A word of its own for every number."""
    letters = "abcdefghij"
    return "thing " + "".join(letters[int(digit)] for digit in str(number))


def main(json_file: Path | None = None, quick: bool = False) -> dict[str, Any]:
    """Run the benchmark, print its tables, and write them (and a figure beside them) when a file is given."""
    torch.set_num_threads(1)
    with quiet():
        tables = {
            "esd": bench_esd(1, 2, 12) if quick else bench_esd(),
            "sampling": bench_sampling(1, 6) if quick else bench_sampling(),
            "evaluation": bench_evaluation(1, 6) if quick else bench_evaluation(),
            "resolution": bench_resolution(SIZES[:1], 2, 1) if quick else bench_resolution(),
            "concepts": bench_concepts((1, 2), 1) if quick else bench_concepts(),
        }
    for table in tables.values():
        print(table.round(3).T.to_string(header=False), end="\n\n")
    result: dict[str, Any] = {"about": about(device_of())}
    result |= {name: table.to_dict("records") for name, table in tables.items()}
    if json_file:
        json_file.write_text(json.dumps(result, indent=1) + "\n")
        drawn = image_figure(tables["esd"], tables["resolution"], tables["concepts"])
        drawn.savefig(json_file.with_suffix(".png"))
    return result
