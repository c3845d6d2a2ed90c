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
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from unlearnkit.bench.clock import about, clock, speed_up, unit, wait
from unlearnkit.evaluation import evaluate, measure
from unlearnkit.methods import Objectives, StepBatch
from unlearnkit.methods.image import ESD, esd_target
from unlearnkit.methods.image.base import parts, with_retain
from unlearnkit.metrics.measure_image import questions
from unlearnkit.models.diffusion import GUIDANCE, STEPS, Diffusion, ddim, join, noise_of, sample
from unlearnkit.models.image_recipe import ImageRecipe, new_pipeline
from unlearnkit.models.load import device_of, quiet
from unlearnkit.problem import load_problem
from unlearnkit.unlearning import configure_method, unlearn

TRIPLE = ("ua", "ira", "cra")
SETTINGS: dict[str, dict[str, float]] = {  # of ESD: what is compared
    "defaults": {},
    "no retain term, eta 1": {"alpha": 0.0, "eta": 1.0},
}
LIMIT = 36  # pictures a split
LEVEL = 2.0  # of 255: how far the pictures of two ways may differ on average
SIZES = (32, 64, 128)  # pixels
CONCEPTS = (1, 10, 100, 1000)


class FreshESD(ESD):
    """ESD as the authors' script has it: every iteration denoises anew, by the model in training, up to a random t.

    The frozen original, a second model in memory, is then asked for its two predictions there. Unlike the script's one
    state an iteration, this takes a batch, and guidance in one pass, as the other way does.
    """

    def prepare(self, model: nn.Module, data: Any) -> Any:
        frozen: Any = deepcopy(model).eval()
        return frozen, frozen.embed(data.problem.asked["forget"]), frozen.embed([""]), data.batch_size

    def objectives(self, model: nn.Module, batch: StepBatch) -> Objectives:
        frozen, prompts, null, count = batch.reference
        text = prompts.take(torch.randint(len(prompts.hidden), (count,)))
        both = join([null.repeat(count), text])
        scheduler = ddim(frozen, self.bank_steps)
        last = int(torch.randint(self.bank_steps, (1,)))
        with torch.no_grad():
            x = torch.randn(count, *frozen.latent_shape).to(text.device) * scheduler.init_noise_sigma
            for t in scheduler.timesteps[:last].to(text.device):
                without, asked = parts(model)(x.repeat(2, 1, 1, 1), t.expand(2 * count), both).chunk(2)
                x = scheduler.step(without + self.start_guidance * (asked - without), t, x).prev_sample
            t = scheduler.timesteps[last].to(text.device).expand(count)
            wanted = esd_target(frozen(x, t, null.repeat(count)), frozen(x, t, text), self.eta)
        (found,), retain = with_retain(model, batch.retain if self.alpha else None, (x, t, text))
        return Objectives(F.mse_loss(found, wanted), retain)


def timed_esd(problem: Any, method: ESD, steps: int) -> tuple[Any, float]:
    """(what `unlearn` returned, seconds an iteration); the first iteration warms up."""
    times: list[float] = []

    def watch(step: int, model: Any) -> None:
        wait(problem.device)
        times.append(clock())

    done = unlearn(problem, method, steps=steps, trace_every=0, progress=False, on_step=watch)
    return done, float(np.mean(np.diff(times)))


def preparation(problem: Any, method: ESD) -> float:
    """Seconds of what a way does once, before its first iteration."""
    model = problem.original.fresh()
    data = problem.training_data(method, model, configure_method("image", method, {})[1], 0)
    return _seconds(lambda: method.prepare(model, data))


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


def two_passes(model: Diffusion, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """Guided samples with a pass for the null prompt and one for the prompt, in batches of the same size."""
    null, scheduler = model.embed([""]), ddim(model, STEPS)
    out = []
    with torch.inference_mode():
        for begin in range(0, len(prompts), model.batch):
            text = model.embed(prompts[begin : begin + model.batch])
            x = noise_of(model, seeds[begin : begin + model.batch]) * scheduler.init_noise_sigma
            for t in scheduler.timesteps.to(model.device):
                at = t.expand(len(x))
                without, asked = model(x, at, null.repeat(len(x))), model(x, at, text)
                x = scheduler.step(without + GUIDANCE * (asked - without), t, x).prev_sample
            out.append(model.decode(x))
    return np.concatenate(out)


def one_call_each(model: Diffusion, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """A call of the plain diffusers pipeline for every picture, as scripts do; the starting noise is the same."""
    noise = noise_of(model, seeds)
    made = [
        model.pipe(
            prompt, latents=noise[k : k + 1], num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="np"
        ).images
        for k, prompt in enumerate(prompts)
    ]
    return (np.concatenate(made) * 255).round().astype(np.uint8)


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
    timed, made = _turns({name: lambda w=way: w(model, prompts, seeds) for name, way in ways.items()}, turns)  # type: ignore[misc]
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

    timed, made = _turns({"one pass": ours, "a picture at a time": script}, turns)
    first, second = made.values()
    differ = {d: float(np.mean(np.not_equal(first[d], second[d]))) for d in first}
    same = {"one pass": 0.0, "a picture at a time": max(differ.values())}
    return _against("one pass", "evaluation", timed, len(asked), same, "readings that differ", most=0.02)


def _turns(ways: dict[str, Callable[[], Any]], turns: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of every way, turn by turn in changing order, and what each made last."""
    timed: dict[str, list[float]] = {name: [] for name in ways}
    made: dict[str, Any] = {}
    for turn in tqdm(range(turns), desc=", ".join(ways), unit="turn"):
        for name in ways if turn % 2 else reversed(ways):
            begin = clock()
            made[name] = ways[name]()
            wait(device_of())
            timed[name].append(clock() - begin)
    return timed, made


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
            row["uce s"] = _seconds(lambda p=problem: unlearn(p, "uce"))  # type: ignore[misc]
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
        seconds = [_seconds(lambda p=problem: unlearn(p, "uce")) for _ in range(turns)]  # type: ignore[misc]
        rows.append({"concept prompts": count, "preserved prompts": len(kept), "uce s": float(np.median(seconds))})
    return pd.DataFrame(rows)


def _word(number: int) -> str:
    """A word of its own for every number."""
    letters = "abcdefghij"
    return "thing " + "".join(letters[int(digit)] for digit in str(number))


def _seconds(work: Callable[[], Any]) -> float:
    begin = clock()
    work()
    wait(device_of())
    return clock() - begin


def figure(esd: pd.DataFrame, resolution: pd.DataFrame, concepts: pd.DataFrame) -> Any:
    """An ESD iteration both ways, cost against resolution, and UCE against the number of concepts."""
    import matplotlib.pyplot as plt

    from unlearnkit.plots import COLORS, style

    style()
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.3), layout="constrained")
    ways = (("fresh", "fresh trajectory", COLORS["original"]), ("bank", "bank", COLORS["unlearned"]))
    for k, (way, name, color) in enumerate(ways):
        bars = left.barh(np.arange(len(esd)) + 0.4 * k, esd[f"{way} s/iteration"], 0.38, label=name, color=color)
        if way == "bank":
            left.bar_label(bars, [f"{x:.1f} times faster" for x in esd["speed-up"]], padding=3, fontsize=8)
        middle.loglog(resolution["pixels"], resolution[f"{way} s/iteration"], "o-", label=f"ESD, {name}", color=color)
    left.set(yticks=np.arange(len(esd)) + 0.2, yticklabels=esd["ESD"], xlabel=f"{unit()} an iteration", title="ESD")
    left.invert_yaxis()
    left.legend(frameon=False, loc="lower right", fontsize=8)
    middle.loglog(resolution["pixels"], resolution["picture s"], "s--", label="a picture, 20 steps", color="0.5")
    middle.loglog(resolution["pixels"], resolution["uce s"], "d-", label="UCE", color=COLORS["oracle"])
    middle.set(xlabel="side of a picture, pixels", ylabel=unit(), title="against resolution")
    middle.set_xticks(resolution["pixels"], [str(p) for p in resolution["pixels"]])
    middle.minorticks_off()
    middle.legend(frameon=False, fontsize=8)
    right.loglog(concepts["concept prompts"], concepts["uce s"], "d-", color=COLORS["oracle"])
    right.set(xlabel="concept prompts edited at once", ylabel=unit(), title="UCE")
    return fig


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
        drawn = figure(tables["esd"], tables["resolution"], tables["concepts"])
        drawn.savefig(json_file.with_suffix(".png"))
    return result
