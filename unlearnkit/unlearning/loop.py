"""The verb `unlearn`: one loop for every gradient method, batch → objectives → step → trace."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from tqdm.auto import tqdm

from unlearnkit.balances import balance
from unlearnkit.errors import UnlearnkitError, whole_number
from unlearnkit.gradients import Gradients, check_losses
from unlearnkit.masks import MASKS
from unlearnkit.memory import peak_memory, reset_peak_memory
from unlearnkit.methods import METHODS, Method, Objectives, StepBatch
from unlearnkit.stopping import StopRule, stop_rules
from unlearnkit.unlearning import sharding
from unlearnkit.unlearning.configuration import Loop, configure_method
from unlearnkit.unlearning.result import DivergedError, Unlearned, check_problem


def unlearn(
    problem: Any,
    method: str | Method = "npo",
    *,
    seed: int = 0,
    stop: Sequence[str | StopRule] = (),
    progress: bool = True,
    on_step: Callable[[int, Any], None] | None = None,
    **settings: Any,
) -> Unlearned:
    """Make a model forget `problem`'s request with a registered method; the original is left as it is.

    Under `accelerate launch` every process takes its share of a step's batches: N of them with `accumulation` k make
    the step that one makes with N·k. With `shard` (or `--use_fsdp`) each keeps its share of the model as well.

    Args:
        stop: "utility_guard", "oracle_level" or `StopRule`s of your own, asked every few steps.
        on_step: called with (step, model) after every step, for trajectories.
        settings: fields of the method and of `Loop`; the rest are the method's defaults for the built-in world.

    Raises:
        UnlearnkitError: unknown method or setting, or one of a wrong type; objectives that are no losses.
        DivergedError: a loss that is not finite; says at which step and keeps the trace.
    """
    check_problem(problem)
    whole_number("seed", seed)
    chosen, loop = configure_method(problem.modality, method, settings)
    name = (
        method
        if isinstance(method, str)
        else next((n for n, c in METHODS[problem.modality].items() if c is type(method)), type(method).__name__)
    )
    used = {**chosen.model_dump(), **loop.model_dump()}
    if hasattr(chosen, "apply"):
        reset_peak_memory(problem.device)
        begin = time.perf_counter()
        model: Any = chosen.apply(problem, seed)
        cost = {"seconds": time.perf_counter() - begin, "steps": 0, "peak_memory_mb": peak_memory(problem.device)}
        cost |= _changed(problem.original.kept, model)
        return Unlearned(model.eval(), name, chosen.model_dump(), seed, pd.DataFrame(), cost)

    rules = stop_rules(stop, problem)
    shard = sharding.wanted(loop)
    if shard:
        sharding.check_shardable(problem.modality, chosen, loop, bool(rules or on_step))
    model = problem.original.fresh()
    if hasattr(model, "peft_config"):  # the result of an earlier request: a second adapter would replace the first
        model = model.merge_and_unload()
    dtype = next(model.parameters()).dtype
    if not loop.lora:
        model.float()  # before anything is computed for the steps in another precision than theirs
    data = problem.training_data(chosen, model, loop, seed)
    steps = loop.steps
    if loop.epochs is not None:
        drawn = loop.batch_size * loop.accumulation * int(os.environ.get("WORLD_SIZE", 1))
        steps = math.ceil(loop.epochs * data.size("forget") / drawn)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, parameters = choose_parameters(model, chosen, loop)
        reset_peak_memory(problem.device)
        begin = time.perf_counter()
        model.eval()
        accelerator = _accelerator(problem.device, loop)
        with accelerator.autocast():  # in the precision of the steps, so that nothing differs before the first one
            reference = chosen.prepare(model, data)
        prepared = time.perf_counter()
        mask = MASKS[loop.mask](model, parameters, data, loop.mask_share, seed) if loop.mask else None
        start = {n: p.detach().clone() for n, p in parameters.items()} if chosen.needs_start or mask else {}

        if shard:
            sharding.share_out(model, problem.device, accelerator.mixed_precision == "bf16")
            parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        optimizer: Any = torch.optim.AdamW(
            list(parameters.values()), lr=loop.lr, weight_decay=loop.weight_decay, fused=problem.device.type != "mps"
        )
        trained: Any = model
        if not shard:
            trained, optimizer = accelerator.prepare(model, optimizer)
        trained.train()
        combined = balance(loop.balance, loop.match_norm)
        gradients = Gradients(accelerator, chosen, parameters, combined, mask, loop.accumulation)
        rows: list[dict[str, Any]] = []
        seen, stopped = 0, ""
        bar = tqdm(range(steps), desc=name, unit="step", leave=False, disable=not progress)
        for step in bar:
            for group in optimizer.param_groups:
                group["lr"] = loop.lr * _schedule(loop, step, steps)
            traced = bool(loop.trace_every) and (step % loop.trace_every == 0 or step == steps - 1)
            row: dict[str, Any] = {"step": step, "lr": optimizer.param_groups[0]["lr"]}
            optimizer.zero_grad(set_to_none=True)
            for _ in range(loop.accumulation):
                # every process draws for all and keeps its own, so that no record is seen twice
                drawn_now = [data.draw() for _ in range(accelerator.num_processes)]
                batch = StepBatch(drawn_now[accelerator.process_index], reference, step)
                losses = chosen.objectives(trained, batch)
                check_losses(losses, type(chosen).__name__)
                _check_finite(losses, name, step, loop, rows)
                gradients.add(losses, traced, row)
                seen += sum(b.count for b in batch.views.values())
            gradients.finish(traced, row)
            _average_losses(accelerator, row)
            norm = accelerator.clip_grad_norm_(parameters.values(), loop.clip or math.inf)
            row["grad_norm"] = sharding.number(norm)  # of the combined gradient, before clipping
            if not math.isfinite(row["grad_norm"]):
                raise _diverged(name, "gradient", step, loop, rows)
            optimizer.step()
            if mask:
                _restore(parameters, start, mask)
            row["seconds"] = time.perf_counter() - prepared
            rows.append(row)
            bar.set_postfix({k.removesuffix("_loss"): f"{row[k]:.3f}" for k in row if k.endswith("_loss")})
            if on_step:
                on_step(step, model)
            stopped = next((reason for r in rules if (reason := r.ask(step, model))), "")
            if stopped:
                break
        bar.close()
        chosen.finish(model, start)

    seconds = time.perf_counter() - prepared
    model = sharding.put_together(trained, problem.original.fresh()) if shard else accelerator.unwrap_model(trained)
    if loop.lora and problem.modality == "image":  # a pipeline has no place for an adapter of ours: it is merged
        model = model.merge_and_unload()
    model = model.eval().to(dtype)
    for wrapper in ("forward", "_original_forward"):  # Accelerate's autocast: the original is measured without it
        model.__dict__.pop(wrapper, None)
    for parameter in model.parameters():
        parameter.requires_grad_(not loop.lora)
    model.zero_grad(set_to_none=True)
    cost = {
        "seconds": seconds,
        "prepare_seconds": prepared - begin,
        "steps": len(rows),
        data.unit: seen,
        "peak_memory_mb": peak_memory(problem.device),
        "parameters_touched": sum(p.numel() for p in parameters.values()),
    }
    if shard:
        cost["parameters_held"] = sharding.held(parameters.values())
        used["shard"] = True
    return Unlearned(model, name, used, seed, pd.DataFrame(rows), cost, stopped)


def _changed(original: nn.Module | None, model: nn.Module) -> dict[str, float]:
    """Parameters in the tensors that differ from the original's; nothing when it isn't in memory or of another make."""
    before = dict(original.named_parameters()) if original is not None else {}
    after = dict(model.named_parameters())
    if list(before) != list(after):
        return {}
    return {"parameters_touched": sum(p.numel() for n, p in after.items() if not torch.equal(p, before[n]))}


def choose_parameters(model: nn.Module, method: Method, loop: Loop) -> tuple[nn.Module, dict[str, Tensor]]:
    """Freeze what is not trained; with LoRA, everything but the adapter."""
    names = method.trainable(model)
    if loop.lora:
        from peft import LoraConfig, get_peft_model

        targets = method.lora_targets(model, names)
        most = max(min(p.shape) for p in model.parameters() if p.ndim == 2)
        if loop.lora > most:
            raise UnlearnkitError(
                f"lora = {loop.lora} is not possible: no matrix of this model has a rank above {most}; give a smaller "
                "one, or 0 to train the weights themselves."
            )
        adapter = LoraConfig(r=loop.lora, lora_alpha=2 * loop.lora, target_modules=targets)
        with warnings.catch_warnings():  # peft asks for an attribute that transformers has renamed
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            model = get_peft_model(model, adapter)
        return model, {n: p for n, p in model.named_parameters() if p.requires_grad}
    model.float()  # steps of 1e-5 vanish in bfloat16 weights; the arithmetic itself runs in `precision`
    for n, p in model.named_parameters():
        p.requires_grad_(names is None or n in names)
    return model, {n: p for n, p in model.named_parameters() if p.requires_grad}


def _accelerator(device: torch.device, loop: Loop) -> Accelerator:
    os.environ.pop("ACCELERATE_USE_FSDP", None)  # `sharding` does it, on a CPU too
    alone = int(os.environ.get("WORLD_SIZE", 1)) == 1
    AcceleratorState._reset_state(alone)  # one problem may ask for the CPU after another asked for the GPU
    if alone and device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # Accelerate takes the current one
    precision = loop.precision
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "no"
    return Accelerator(cpu=device.type == "cpu", mixed_precision=precision)


def _schedule(loop: Loop, step: int, steps: int) -> float:
    """Share of the peak learning rate at a step."""
    ramp = loop.warmup * steps
    if step < ramp:
        return (step + 1) / (ramp + 1)
    done = (step - ramp) / max(1.0, steps - ramp)
    return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[loop.schedule]


def _average_losses(accelerator: Accelerator, row: dict[str, Any]) -> None:
    """The losses of a step over all processes; each has seen its own batches."""
    if accelerator.num_processes > 1:
        names = sorted(key for key in row if key.endswith("_loss"))
        mean = accelerator.reduce(torch.tensor([row[n] for n in names], device=accelerator.device), reduction="mean")
        row.update(zip(names, mean.tolist(), strict=True))


@torch.no_grad()
def _restore(parameters: dict[str, Tensor], start: dict[str, Tensor], mask: dict[str, Tensor]) -> None:
    """Masked-out weights as they were: weight decay does not respect a gradient of zero."""
    for name, parameter in parameters.items():
        parameter.copy_(torch.where(mask[name] > 0, parameter, start[name]))


def _check_finite(losses: Objectives, name: str, step: int, loop: Loop, rows: list[dict[str, Any]]) -> None:
    for kind in ("forget", "retain"):
        loss = getattr(losses, kind)
        if loss is not None and not torch.isfinite(loss.detach()):
            raise _diverged(name, f"{kind} loss", step, loop, rows)


def _diverged(name: str, what: str, step: int, loop: Loop, rows: list[dict[str, Any]]) -> DivergedError:
    return DivergedError(
        f"{name} diverged: the {what} was not finite at step {step}; lower lr (now {loop.lr:g}) or the steps. "
        "The trace up to there is in the error's .trace.",
        pd.DataFrame(rows),
    )
