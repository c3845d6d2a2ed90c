"""`unlearnkit bench text`: our NPO step and evaluation against the naive way, same model and data, same run.

Both ways train whole epochs over the same records, so that neither is timed on shorter texts; the first epoch warms up.
They take turns, and a speed-up is the median of the ratios of turns next to each other. On a CPU, what is counted are
CPU seconds of this process on one thread, which other work on the machine hardly changes; on a GPU, seconds.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from unlearnkit.bench.clock import about, speed_up, take_turns
from unlearnkit.bench.figures import text_figure
from unlearnkit.bench.naive import naive_measure
from unlearnkit.bench.text_ways import BATCH, live_bytes, naive_npo, our_npo, our_preparation
from unlearnkit.bench.text_ways import NaiveNPO as NaiveNPO
from unlearnkit.metrics.measure import measure, measured_items
from unlearnkit.models.load import device_of, load_model, quiet
from unlearnkit.models.source import ModelSource
from unlearnkit.problem import load_problem
from unlearnkit.text_problem import TextProblem
from unlearnkit.worlds.records import QA

# Llama-2 tokens of TOFU's forget10 questions and answers at the 0, 10, 25, 50, 75, 90 and 100th percentile; a
# synthetic word is one token.
QUESTION_WORDS = (8, 13, 17, 20, 23, 28, 65)
ANSWER_WORDS = (9, 24, 33, 42, 54, 65, 96)
SIZES = {  # name: (width, layers, vocabulary), Llama-shaped; 32,000 tokens are those the lengths above were counted in
    "1M": (128, 4, 1000),
    "10M": (192, 9, 32000),
    "100M": (768, 10, 32000),
}
RECORDS = {"1M": 160, "10M": 64, "100M": 32}  # forget records, and as many retain records: an epoch
TURNS = {"1M": 3, "10M": 2, "100M": 1}


def synthetic_problem(size: str, forget: int, retain: int, folder: Path, seed: int = 0) -> TextProblem:
    """A random model of a size on random words of TOFU's lengths; the original is not kept in memory."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    width, layers, vocabulary = SIZES[size]
    words = {f"w{i}": i for i in range(vocabulary - 3)} | {"<pad>": vocabulary - 3, "<end>": vocabulary - 2}
    plain = Tokenizer(models.WordLevel({**words, "<unk>": vocabulary - 1}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<end>")
    draw = random.Random(seed)

    def sentence(quantiles: Sequence[int]) -> str:
        length = int(np.interp(draw.random(), (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1), quantiles))
        return " ".join(f"w{draw.randrange(vocabulary - 3)}" for _ in range(length))

    items = [QA(f"q{i}", f"e{i}", sentence(QUESTION_WORDS), sentence(ANSWER_WORDS)) for i in range(forget + retain)]
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        intermediate_size=3 * width,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=words["<end>"],
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    source = ModelSource(lambda: load_model(folder, dtype=torch.float32), size, keep=False)
    splits = {"forget": items[:forget], "retain": items[forget:]}
    return TextProblem("synthetic", "forget", seed, splits, tokenizer, source, [])


def bench_steps(sizes: Sequence[str], turns: dict[str, int] = TURNS) -> pd.DataFrame:
    """One row a model size: seconds a step, tokens/s and training state of both ways and of LoRA (medians)."""
    rows = []
    for size in tqdm(sizes, desc="NPO step", unit="size"):
        with tempfile.TemporaryDirectory() as folder:
            problem = synthetic_problem(size, RECORDS[size], RECORDS[size], Path(folder))
            alone, epoch = live_bytes(), RECORDS[size] // BATCH
            timed: dict[str, list[float]] = {"naive": [], "ours": [], "lora": [], "prepare": []}
            for turn in range(turns[size]):
                for way in ("naive", "ours", "lora") if turn % 2 else ("lora", "ours", "naive"):
                    if way == "naive":
                        seconds, naive_bytes = naive_npo(problem, epoch, epoch)
                    elif way == "ours":
                        seconds, ours_bytes, tokens = our_npo(problem, epoch, epoch)
                        timed["prepare"].append(our_preparation(problem))
                    else:
                        seconds, lora_bytes, *_ = our_npo(problem, epoch, epoch, lora=8)
                    timed[way].append(seconds)
            middle = {way: float(np.median(seconds)) for way, seconds in timed.items()}
            rows.append(
                {
                    "model": size,
                    "turns": turns[size],
                    "steps a turn": epoch,
                    "naive s/step": middle["naive"],
                    "ours s/step": middle["ours"],
                    "LoRA s/step": middle["lora"],
                    **speed_up(timed["naive"], timed["ours"]),
                    "ours prepare s": middle["prepare"],
                    "ours tokens/s": tokens / middle["ours"],
                    "naive state MB": (naive_bytes - alone) / 1e6,
                    "state ratio": (ours_bytes - alone) / (naive_bytes - alone),
                    "LoRA state ratio": (lora_bytes - alone) / (naive_bytes - alone),
                }
            )
    return pd.DataFrame(rows)


def bench_forget_size(sizes: Sequence[int], turns: int = 3) -> pd.DataFrame:
    """Cost against the size of the forget set: the step does not depend on it, the preparation does."""
    timed: dict[int, list[tuple[float, float, int]]] = {forget: [] for forget in sizes}
    for _ in tqdm(range(turns), desc="forget-set size", unit="turn"):
        for forget in sizes:
            with tempfile.TemporaryDirectory() as folder:
                problem = synthetic_problem("1M", forget, 160, Path(folder))
                step, _, tokens = our_npo(problem, 24, 4)
                timed[forget].append((step, our_preparation(problem), tokens))
    rows = []
    for forget, found in timed.items():
        step, prepare, count = (float(np.median(column)) for column in zip(*found, strict=True))
        rows.append({"forget records": forget, "s/step": step, "tokens/s": count / step, "prepare s": prepare})
    return pd.DataFrame(rows)


def largest_difference(ours: pd.DataFrame, naive: pd.DataFrame) -> float:
    """Over all columns of both; refusals and wrong values count on the forget set, where metrics use them."""
    differences = []
    for column in naive.columns:
        a, b = ours[column].to_numpy(float), naive[column].to_numpy(float)
        if column in ("refused", "wrong_value"):
            a = np.where(ours.index.get_level_values(0) == "forget", a, np.nan)
        if (np.isnan(a) != np.isnan(b)).any():
            return float("inf")
        differences.append(np.nanmax(np.abs(a - b)))
    return float(max(differences))


def bench_evaluation(turns: int = 3) -> dict[str, float]:
    """Seconds of one full evaluation of the built-in model, ours and naive, after checking that both agree."""
    problem = load_problem("authors")
    model = problem.model
    chosen = measured_items(problem, 100)
    measure(problem, model, limit=2)  # warm-up
    timed, made = take_turns(
        {"ours": lambda: measure(problem, model), "naive": lambda: naive_measure(problem, model, chosen)}, turns
    )
    ours, naive = made["ours"].items, made["naive"]
    worst = largest_difference(ours, naive)
    if worst > 1e-3:
        raise AssertionError(f"the two evaluations disagree by {worst:.2g}: the comparison would be void")
    return {
        "ours s": float(np.median(timed["ours"])),
        "naive s": float(np.median(timed["naive"])),
        **speed_up(timed["naive"], timed["ours"]),
        "largest difference": worst,
        "items": len(chosen),
    }


def main(json_file: Path | None = None, quick: bool = False) -> dict[str, Any]:
    """Run the benchmark, print its tables, and write them (and a figure beside them) when a file is given."""
    sizes = ["1M"] if quick else list(SIZES)
    torch.set_num_threads(1)
    with quiet():
        steps = bench_steps(sizes, dict.fromkeys(sizes, 1) if quick else TURNS)
        forget = bench_forget_size((40, 80) if quick else (40, 160, 640, 2560), 1 if quick else 2)
        evaluation = bench_evaluation(1 if quick else 2)
    print(steps.round(3).to_string(index=False), forget.round(4).to_string(index=False), sep="\n\n")
    print("\nevaluation:", {k: round(v, 4) for k, v in evaluation.items()})
    result = {
        "about": about(device_of()),
        "npo_step": steps.to_dict("records"),
        "forget_size": forget.to_dict("records"),
        "evaluation": evaluation,
    }
    if json_file:
        json_file.write_text(json.dumps(result, indent=1) + "\n")
        text_figure(steps, forget).savefig(json_file.with_suffix(".png"))
    return result
