"""The benchmark compares the same thing: same loss from the naive way and ours, same numbers of both evaluations."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from unlearnkit.bench import image
from unlearnkit.bench import text as bench
from unlearnkit.bench.naive import naive_measure
from unlearnkit.methods import METHODS, StepBatch
from unlearnkit.metrics.measure import measure, measured_items
from unlearnkit.models.diffusion import denoise, sample
from unlearnkit.paths import data_dir
from unlearnkit.problem import load_problem
from unlearnkit.text import Template, answer_tokens, collate, encode


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return bench.synthetic_problem("1M", 8, 8, tmp_path_factory.mktemp("model"))


def test_the_naive_trainer_and_our_step_have_one_loss_and_one_gradient(problem: Any) -> None:
    encoded = {s: encode(problem.tokenizer, Template(), problem.pairs(s), 256) for s in ("forget", "retain")}
    pad = problem.tokenizer.pad_token_id
    batches = {s: collate(encoded[s], range(8), pad) for s in encoded}
    reference = problem.original.fresh().eval()
    model = copy.deepcopy(reference)
    with torch.no_grad():  # away from the original, where the forget loss would be a constant
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))

    naive = bench.NaiveNPO.__new__(bench.NaiveNPO)
    naive.reference = reference
    inputs = {s: {"ids": b.ids, "labels": b.labels, "mask": (b.ids != pad).long()} for s, b in batches.items()}
    theirs = naive.compute_loss(model, inputs)

    from unlearnkit.methods.text.reference import Reference

    with torch.no_grad():
        (before,) = answer_tokens(reference, batches["forget"])
    method = METHODS["text"]["npo"](beta=bench.NaiveNPO.beta, gamma=1.0, alpha=1.0)
    ours = method.objectives(model, StepBatch(batches, {"forget": Reference(before.nll, None, None)}))
    total = ours.forget + ours.retain
    torch.testing.assert_close(total, theirs, rtol=1e-5, atol=1e-5)
    for a, b in zip(
        torch.autograd.grad(total, list(model.parameters())),
        torch.autograd.grad(theirs, list(model.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_texts_have_the_lengths_of_tofu(tmp_path: Path) -> None:
    items = bench.synthetic_problem("1M", 400, 1, tmp_path).splits["forget"]
    for texts, wanted in (
        ([i.question for i in items], bench.QUESTION_WORDS),
        ([i.answer for i in items], bench.ANSWER_WORDS),
    ):
        found = np.percentile([len(t.split()) for t in texts], (10, 25, 50, 75, 90))
        np.testing.assert_allclose(found, wanted[1:-1], atol=4)


def test_live_bytes_counts_weights_gradients_and_each_storage_once() -> None:
    before = bench.live_bytes()
    layer = torch.nn.Linear(100, 100, bias=False)
    view = layer.weight.view(10, 1000)
    assert bench.live_bytes(layer) - before == 40_000
    layer(torch.ones(1, 100)).sum().backward()
    assert bench.live_bytes(layer) - before == 80_000
    assert view.numel() == 10_000


def test_both_evaluations_give_the_same_numbers() -> None:
    problem = load_problem("authors")
    ours = measure(problem, problem.model, limit=3).items
    naive = naive_measure(problem, problem.model, measured_items(problem, 3))
    assert {"nll", "rouge", "grad_norm", "perturbed_nll_mean", "paraphrase_correct", "own_nll"} <= set(naive.columns)
    assert bench.largest_difference(ours, naive) < 1e-3
    assert bench.largest_difference(ours.assign(rouge=ours["rouge"] + 0.5), naive) == pytest.approx(0.5)
    assert bench.largest_difference(ours.assign(nll=np.nan), naive) == float("inf")


def test_one_pass_for_all_batches_equals_one_each(problem: Any) -> None:
    """On a CPU each batch has its own pass, elsewhere (and under a wrapper) all share one: the numbers are the same."""
    encoded = {s: encode(problem.tokenizer, Template(), problem.pairs(s), 256) for s in ("forget", "retain")}
    batches = [
        collate(encoded[s], rows, problem.tokenizer.pad_token_id)
        for s, rows in (("forget", [0, 1]), ("retain", [2, 3, 4]))
    ]
    model = problem.original.fresh()

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module, self.passes = model, 0

        def forward(self, **inputs: Any) -> Any:
            self.passes += 1
            return self.module(**inputs)

    wrapped = Wrapped()
    together, apart = answer_tokens(wrapped, *batches, layer=2), answer_tokens(model, *batches, layer=2)
    assert wrapped.passes == 1
    for a, b in zip(together, apart, strict=True):
        for name in ("logits", "labels", "sequence", "features", "rows", "hidden"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-4, atol=1e-5)


# --- images ----------------------------------------------------------------------------------------------------------


def test_fresh_esd_states_are_those_a_bank_would_hold_and_so_is_its_loss(small_image_problem: Any) -> None:
    model = small_image_problem.original.fresh()
    method = image.FreshESD(alpha=0.0, bank_steps=4, start_guidance=2.5, eta=1.5)
    loop = SimpleNamespace(batch_size=3)
    reference = method.prepare(model, small_image_problem.training_data(method, model, loop, 0))
    seen: list[Any] = []
    model.register_forward_hook(lambda _, given, found: seen.append((*given, found)))
    seeds = range(8)
    stages = set()
    for seed in seeds:
        seen.clear()
        torch.manual_seed(seed)
        loss = method.objectives(model, StepBatch({}, reference)).forget
        torch.manual_seed(seed)
        text = reference[1].take(torch.randint(len(reference[1].hidden), (3,)))
        last = int(torch.randint(4, (1,)))
        stages.add(last)
        path: list[Any] = []
        denoise(reference[0], text, range(3), 4, 2.5, start=torch.randn(3, *model.latent_shape), path=path)
        x, t, asked, found = seen[-1]
        assert len(seen) == last + 1 and t.tolist() == [int(path[last].t)] * 3
        torch.testing.assert_close(x, path[last].x, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(asked.hidden, text.hidden)
        wanted = path[last].null - 1.5 * (path[last].prompt - path[last].null)
        torch.testing.assert_close(loss, (found - wanted).square().mean(), rtol=1e-4, atol=1e-5)
    assert len(stages) > 1


def test_three_ways_draw_the_same_guided_pictures(small_image_problem: Any) -> None:
    model = small_image_problem.model
    prompts, seeds = ["a striped circle", "a plain star", "a dotted square"], [5, 6, 7]
    ours = sample(model, prompts, seeds)
    for way in (image.two_passes, image.one_call_each):
        assert image._apart(ours, way(model, prompts, seeds)) < 0.05
    assert image._apart(ours, sample(model, prompts, seeds, guidance=1.0)) > 0.05


def test_a_comparison_of_ways_that_differ_is_refused() -> None:
    timed = {"ours": [1.0, 2.0, 4.0], "naive": [3.0, 4.0, 20.0]}
    table = image._against("ours", "way", timed, 8, {"ours": 0.0, "naive": 1.0}).set_index("way")
    assert table.loc["naive", ["times slower", "lowest", "highest"]].tolist() == pytest.approx([3.0, 2.0, 5.0])
    assert table.loc["ours", "times slower"] == 1 and table["pictures/s"].tolist() == pytest.approx([4.0, 2.0])
    with pytest.raises(AssertionError, match="'naive' and 'ours' differ by 3"):
        image._against("ours", "way", timed, 8, {"ours": 0.0, "naive": 3.0})


def test_bench_image_writes_its_tables_and_a_figure(tmp_path: Path, capsys: Any) -> None:
    threads = torch.get_num_threads()
    try:
        found = image.main(tmp_path / "bench.json", quick=True)
    finally:
        torch.set_num_threads(threads)
    assert json.loads((tmp_path / "bench.json").read_text()) == found and (tmp_path / "bench.png").stat().st_size > 5000
    assert set(found) == {"about", "esd", "sampling", "evaluation", "resolution", "concepts"}
    assert {row["evaluation"] for row in found["evaluation"]} == {"one pass", "a picture at a time"}
    assert [row["concept prompts"] for row in found["concepts"]] == [1, 2] and "speed-up" in capsys.readouterr().out
    for row in found["esd"]:
        assert {f"{way} {metric}" for way in ("bank", "fresh") for metric in ("UA", "IRA", "CRA")} <= set(row)
        assert 0 <= row["bank UA"] <= 1 and row["bank s/iteration"] > 0


def test_in_the_measured_table_the_bank_is_not_paid_for_with_accuracy() -> None:
    """The committed figures, whatever a machine's speed: no accuracy of the bank's is clearly below the fresh one's."""
    found = json.loads((data_dir() / "measured" / "bench_image_cpu.json").read_text())
    assert {row["ESD"] for row in found["esd"]} == set(image.SETTINGS)
    for row in found["esd"]:
        for metric in ("UA", "IRA", "CRA"):
            assert row[f"bank {metric}"] > row[f"fresh {metric}"] - 0.05
