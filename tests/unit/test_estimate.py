"""The memory that is foretold from a configuration is the memory that a run then takes, by torch's own tensors."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import tiny_pipelines
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

import unlearnkit as uk
from unlearnkit.estimate import estimate
from unlearnkit.memory import saved_bytes, size_of
from unlearnkit.models.recipe import corpus_of, train_tokenizer
from unlearnkit.worlds import authors

WORLD = authors(n_authors=4, facts=3, holdout=0)
SIZES: dict[str, dict[str, Any]] = {"tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
         "mid": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8}}  # fmt: skip


class Live(TorchDispatchMode):
    """Bytes of all storages that are alive, of those that operators made and those that were `add`ed."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, Any] = {}
        for tensor in [*module.parameters(), *module.buffers()]:
            self.add(tensor)

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        at, size = storage._cdata, storage.nbytes()
        if at not in self.known:
            self.now += size
            self.peak = max(self.peak, self.now)
            self.known[at] = weakref.ref(storage, lambda _: self.gone(at, size))

    def gone(self, at: int, size: int) -> None:
        self.now -= size
        self.known.pop(at, None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return out


@pytest.fixture(scope="module", params=SIZES)
def language(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A random Llama of 0.2 or 15 million parameters, and a file of questions."""
    home = tmp_path_factory.mktemp(request.param)
    tokenizer = train_tokenizer(corpus_of(WORLD.items), 600, 128)
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 128}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **heads, **SIZES[request.param])).save_pretrained(home)
    tokenizer.save_pretrained(home)
    return home, uk.write_jsonl([qa for qa in WORLD.items if qa.primary], home / "questions.jsonl")


@pytest.mark.parametrize("own", [{}, {"trace_every": 0}, {"lora": 4}], ids=["traced", "untraced", "lora"])
def test_a_language_model_takes_what_was_foretold(language: tuple[Path, Path], own: dict[str, Any]) -> None:
    folder, data = language
    problem = uk.load_problem(data, "forget10", model=folder, oracles=[], device="cpu")
    live = Live(problem.model)
    with live:
        uk.unlearn(problem, "npo", steps=2, batch_size=4, progress=False, **own)
    longest = max(len(problem.tokenizer(" ".join(pair))["input_ids"]) for pair in problem.pairs("forget"))
    told = estimate(folder, "npo", tokens=longest + 4, batch_size=4, gpu=False, **own)
    assert told.parameters == sum(p.numel() for p in problem.model.parameters())
    assert 0.8 < told.total * 1e9 / live.peak < 1.3, f"{told}; measured {live.peak / 1e9:.3g} GB"


@pytest.mark.parametrize("kind", ["sd1", "xl"])
def test_a_pipeline_takes_what_was_foretold(kind: str, tmp_path: Path) -> None:
    wide: dict[str, Any] = {"block_out_channels": (64, 128)}
    folder = tiny_pipelines.save(kind, tmp_path / kind, **wide)
    problem = uk.load_problem("stable-diffusion", "striped zebra", model=folder, anchor="horse",
                              preserve=["the grass"], device="cpu", prompts=["a striped zebra"])  # fmt: skip
    problem.pictures("forget"), problem.pictures("retain")  # sampled once, before
    live = Live(problem.model)
    with live:
        uk.unlearn(problem, "retain_finetune", steps=2, batch_size=4, progress=False)
    told = estimate(folder, "retain_finetune", batch_size=4, gpu=False)
    assert 0.8 < told.total * 1e9 / live.peak < 1.3, f"{told}; measured {live.peak / 1e9:.3g} GB"


def test_what_autograd_keeps_of_one_layer_by_hand() -> None:
    layer, x = nn.Linear(3, 5, bias=False), torch.ones(7, 3)  # keeps its input, 7 × 3 numbers; square: its, 7 × 5
    assert saved_bytes(layer, lambda: layer(x).square().sum()) == 4 * (7 * 3 + 7 * 5)
    assert size_of(layer) == 4 * 15


def test_a_real_size_is_counted_from_its_configuration_alone(tmp_path: Path) -> None:
    """Llama 3.2 1B has 1,235,814,400 parameters (its model card says 1.23B)."""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 2048,
        "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 64, "tie_word_embeddings": True,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    full, lora = (estimate(tmp_path, gpu=True, trace_every=0, lora=rank, batch_size=4) for rank in (0, 8))
    assert full.parameters == full.trained == 1_235_814_400
    assert full.weights == pytest.approx(4 * 1.2358144, rel=1e-3)
    assert full.optimizer == pytest.approx(8 * 1.2358144, rel=1e-3)
    assert lora.weights == pytest.approx(2 * 1.2358144, rel=0.02) and lora.trained < 0.01 * lora.parameters
    assert lora.total < 0.6 * full.total and full.original == lora.original == 0
    assert estimate(tmp_path, gpu=True, batch_size=4).gradients > full.gradients
    with pytest.raises(uk.UnlearnkitError, match="method 'npoo' is unknown"):
        estimate(tmp_path, "npoo")
    with pytest.raises(uk.UnlearnkitError, match="does not exist; give a folder or a hub id"):
        estimate(tmp_path / "none")
