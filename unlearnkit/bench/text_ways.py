"""The ways of an NPO step that `unlearnkit bench text` compares: as it is often written, and ours."""

from __future__ import annotations

import copy
import gc
import tempfile
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from unlearnkit.bench.clock import clock, wait
from unlearnkit.text import Template, collate, encode
from unlearnkit.text_problem import TextProblem
from unlearnkit.unlearning import configure_method, unlearn

BATCH = 8  # forget sequences a step, and as many retain sequences


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
