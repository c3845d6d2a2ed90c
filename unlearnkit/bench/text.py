"""`unlearnkit bench text`: our NPO step and evaluation against the naive way, same model and data, same run.

Both ways train whole epochs over the same records, so that neither is timed on shorter texts; the first epoch warms up.
They take turns, and a speed-up is the median of the ratios of turns next to each other. On a CPU, what is counted are
CPU seconds of this process on one thread, which other work on the machine hardly changes; on a GPU, seconds.
"""

from __future__ import annotations

import copy
import gc
import json
import random
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments

from unlearnkit.bench.clock import about, clock, speed_up, unit, wait
from unlearnkit.bench.naive import naive_measure
from unlearnkit.metrics.measure import measure, measured_items
from unlearnkit.models.load import device_of, load_model, quiet
from unlearnkit.models.source import ModelSource
from unlearnkit.problem import load_problem
from unlearnkit.text import Template, collate, encode
from unlearnkit.text_problem import TextProblem
from unlearnkit.unlearning import configure_method, unlearn
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
BATCH = 8  # forget sequences a step, and as many retain sequences
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


def live_bytes(*modules: torch.nn.Module) -> int:
    """Bytes of all tensors alive (every storage once): weights, gradients, optimizer state, references, caches."""
    gc.collect()
    with warnings.catch_warnings():  # asking an object for its class wakes deprecated aliases
        warnings.simplefilter("ignore")
        found = [o for o in gc.get_objects() if isinstance(o, torch.Tensor)]
    found += [p.grad for o in found if isinstance(o, torch.nn.Parameter) and (p := o).grad is not None]
    found += [p.grad for m in modules for p in m.parameters() if p.grad is not None]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in found}.values())


class NaiveNPO(Trainer):
    """NPO as it is often written: a live reference model, full logits, forget and retain one after the other."""

    reference: torch.nn.Module
    beta = 0.1

    @staticmethod
    def sequence_nll(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = model(input_ids=inputs["ids"], attention_mask=inputs["mask"]).logits[:, :-1]
        labels = inputs["labels"][:, 1:]
        return F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none").sum(-1)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        forget, retain = inputs["forget"], inputs["retain"]
        nll = self.sequence_nll(model, forget)
        with torch.no_grad():
            before = self.sequence_nll(self.reference, forget)
        loss = -2 / self.beta * F.logsigmoid(self.beta * (nll - before)).mean()
        tokens = (retain["labels"][:, 1:] != -100).sum()
        return loss + self.sequence_nll(model, retain).sum() / tokens


def naive_npo(problem: TextProblem, steps: int, warm: int) -> tuple[float, int]:
    """(seconds a step, live bytes after a step) of the naive way; `warm` steps before are not counted."""
    model = problem.original.fresh()
    encoded = {s: encode(problem.tokenizer, Template(), problem.pairs(s), 256) for s in ("forget", "retain")}
    device = problem.device

    class Pairs(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(encoded["forget"])

        def __getitem__(self, i: int) -> tuple[int, int]:
            return i, i

    def join(rows: list[tuple[int, int]]) -> dict[str, Any]:
        out = {}
        for split, ids in zip(("forget", "retain"), zip(*rows, strict=True), strict=True):
            batch = collate(encoded[split], ids, problem.tokenizer.pad_token_id)
            mask = (batch.ids != problem.tokenizer.pad_token_id).long()
            out[split] = {"ids": batch.ids.to(device), "labels": batch.labels.to(device), "mask": mask.to(device)}
        return out

    times: list[float] = []
    memory: list[int] = []

    from transformers import PrinterCallback, TrainerCallback

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            wait(device)
            times.append(clock())

        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            if len(times) == 1:  # gradients and optimizer state are both there
                memory.append(live_bytes(model))

    with tempfile.TemporaryDirectory() as folder:
        trainer = NaiveNPO(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=BATCH,
                max_steps=warm + steps,
                learning_rate=1e-5,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                remove_unused_columns=False,
                use_cpu=device.type == "cpu",
                bf16=device.type == "cuda",
                dataloader_pin_memory=False,
            ),
            train_dataset=Pairs(),
            data_collator=join,
            callbacks=[Watch()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.reference = copy.deepcopy(model).eval()
        trainer.train()
    return (times[-1] - times[warm - 1]) / steps, memory[0]


def our_npo(problem: TextProblem, steps: int, warm: int, lora: int = 0) -> tuple[float, int, int]:
    """(seconds a step, live bytes, tokens a step) of `unlearn` with its default tracing."""
    times: list[float] = []
    memory: list[int] = []

    def watch(step: int, model: Any) -> None:
        wait(problem.device)
        if step == 1:
            memory.append(live_bytes(model))
        times.append(clock())

    settings: dict[str, Any] = {"steps": warm + steps, "batch_size": BATCH, "lr": 1e-5, "lora": lora}
    done = unlearn(problem, "npo", on_step=watch, progress=False, **settings)
    seconds = (times[-1] - times[warm - 1]) / steps
    return seconds, memory[0], round(done.cost["tokens"] / (warm + steps))


def our_preparation(problem: TextProblem) -> float:
    """Seconds of what NPO computes once: the original's NLL of every forget answer."""
    method, loop = configure_method("text", "npo", {"batch_size": BATCH})
    model = problem.original.fresh().eval()
    data = problem.training_data(method, model, loop, 0)
    begin = clock()
    method.prepare(model, data)
    wait(problem.device)
    return clock() - begin


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
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: measure(problem, model),
        "naive": lambda: naive_measure(problem, model, chosen),
    }
    timed: dict[str, list[float]] = {name: [] for name in ways}
    made: dict[str, Any] = {}
    measure(problem, model, limit=2)  # warm-up
    for turn in tqdm(range(turns), desc="evaluation", unit="turn"):
        for name in ways if turn % 2 else reversed(ways):
            begin = clock()
            made[name] = ways[name]()
            wait(problem.device)
            timed[name].append(clock() - begin)
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


def figure(steps: pd.DataFrame, forget: pd.DataFrame) -> Any:
    """Step time against model size (both ways, LoRA) and against the size of the forget set."""
    import matplotlib.pyplot as plt

    from unlearnkit.plots import COLORS, style

    style()
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for column, name, color in (
        ("naive s/step", "naive", COLORS["original"]),
        ("ours s/step", "unlearnkit", COLORS["unlearned"]),
        ("LoRA s/step", "unlearnkit, LoRA", COLORS["oracle"]),
    ):
        left.loglog(
            [{"1M": 1e6, "10M": 1e7, "100M": 1e8}[m] for m in steps["model"]],
            steps[column],
            "o-",
            label=name,
            color=color,
        )
    left.set(xlabel="parameters", ylabel=f"{unit()} a step", title="NPO step, 8 + 8 sequences")
    left.legend(frameon=False)
    for column, name, color in (("s/step", "one step", COLORS["unlearned"]), ("prepare s", "preparation, once", "0.5")):
        right.loglog(forget["forget records"], forget[column], "o-", label=name, color=color)
    right.set(xlabel="forget records", ylabel=unit(), title="1M parameters, against the forget set")
    right.legend(frameon=False)
    return fig


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
        figure(steps, forget).savefig(json_file.with_suffix(".png"))
    return result
