"""Models and adapters by folder or hub id: what loads, what is refused, and what the refusal says."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

import unlearnkit as uk
from unlearnkit import hub
from unlearnkit.errors import UnlearnkitError
from unlearnkit.estimate import estimate
from unlearnkit.models import store
from unlearnkit.models.builtin import builtin_recipes, text_checkpoint, text_recipes
from unlearnkit.models.checks import reach
from unlearnkit.models.load import check_source, device_of, load_model, load_tokenizer
from unlearnkit.models.recipe import corpus_of
from unlearnkit.text import answer_tokens, collate, encode, template_of
from unlearnkit.worlds import authors, split

WORLD = authors(n_authors=4, facts=3, holdout=0)
CORPUS = corpus_of(WORLD.items)


@pytest.fixture(scope="module", params=tiny_models.KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(request.param, tmp_path_factory.mktemp("models") / request.param, CORPUS)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return tiny_models.save("llama", tmp_path / "llama", CORPUS)


def said(model: Any, tokenizer: Any) -> torch.Tensor:
    pairs = [(qa.question, qa.answer) for qa in WORLD.items[:4]]
    rows = encode(tokenizer, template_of(tokenizer), pairs, 128)
    with torch.no_grad():
        return answer_tokens(model, collate(rows, range(4), 0))[0].logits


def test_a_saved_model_loads_as_it_was(folder: Path) -> None:
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    made = tiny_models.model_of(folder.name, tokenizer)
    assert not model.training and model.dtype == torch.float32 and type(model) is type(made)
    wanted = load_file(folder / "model.safetensors")
    assert wanted and all(torch.equal(model.state_dict()[name], value) for name, value in wanted.items())
    assert bool(tokenizer.chat_template) == template_of(tokenizer).chat == (folder.name == "qwen2")


def test_an_adapter_is_merged_into_its_base(folder: Path, tmp_path: Path) -> None:
    base, tokenizer = load_model(folder), load_tokenizer(folder)
    before = said(base, tokenizer)
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear"))
    torch.manual_seed(0)
    for name, p in adapted.named_parameters():
        if "lora_B" in name:
            p.data.normal_(0, 0.3)
    adapted.eval().save_pretrained(tmp_path / "adapter")
    loaded = load_model(tmp_path / "adapter")
    assert not any("lora" in name for name, _ in loaded.named_parameters())
    torch.testing.assert_close(said(loaded, tokenizer), said(adapted, tokenizer), rtol=1e-4, atol=1e-4)
    assert (said(loaded, tokenizer) - before).abs().max() > 0.1
    # no tokenizer of its own: the base's
    assert load_tokenizer(tmp_path / "adapter").get_vocab() == tokenizer.get_vocab()
    # an adapter trained on top of the merged model belongs to that, not to the base
    second = get_peft_model(loaded, LoraConfig(r=2, target_modules="all-linear"))
    for name, p in second.named_parameters():
        if "lora_B" in name:
            p.data.normal_(0, 0.3)
    second.eval().save_pretrained(tmp_path / "second")
    torch.testing.assert_close(
        said(load_model(tmp_path / "second"), tokenizer), said(second, tokenizer), rtol=1e-4, atol=1e-4
    )


def refused(message: str, call: Any, *args: Any) -> None:
    with pytest.raises(UnlearnkitError, match=message) as caught:
        call(*args)
    assert "\n" not in str(caught.value)


def test_no_such_folder(tmp_path: Path) -> None:
    for call in (load_model, check_source):
        refused(f"model folder {tmp_path}/none does not exist; give a folder or a hub id", call, f"{tmp_path}/none")
        refused("model folder ./none does not exist", call, "./none")


def test_pickle_weights_are_refused(llama: Path) -> None:
    state = load_file(llama / "model.safetensors")
    (llama / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "model.pt", "consolidated.00.pth"):
        torch.save(state, llama / name)
        refused("has pickle weights only .* can run code when loaded; convert them to safetensors", load_model, llama)
        (llama / name).unlink()
    refused("has no weights; expected model.safetensors", load_model, llama)
    (llama / "config.json").unlink()
    refused("has no config.json; give a folder saved with save_pretrained", load_model, llama)


def test_a_pickled_adapter_is_refused(llama: Path, tmp_path: Path) -> None:
    adapted = get_peft_model(load_model(llama), LoraConfig(r=2, target_modules="all-linear"))
    adapted.save_pretrained(tmp_path / "adapter")
    state = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    torch.save(state, tmp_path / "adapter" / "adapter_model.bin")
    save_file({"x": torch.zeros(1)}, tmp_path / "adapter" / "other.safetensors")  # not what would be loaded
    refused("pickle weights only .*adapter_model.bin", load_model, tmp_path / "adapter")


def test_damaged_and_partial_weights_are_not_taken_for_whole(llama: Path) -> None:
    file = llama / "model.safetensors"
    whole = file.read_bytes()
    for size in (len(whole) - 1, len(whole) // 2, 100, 0):
        file.write_bytes(whole[:size])
        refused(f"the model in {llama} can't be loaded: ", load_model, llama)
    file.write_bytes(whole)
    state = load_file(file)
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({k: v for k, v in state.items() if k != name}, file, metadata={"format": "pt"})
    refused(f"lack 1 tensors of LlamaForCausalLM, the first is '{name}'", load_model, llama)
    (llama / "config.json").write_text("{broken")
    refused(f"the model in {llama} can't be loaded: ", load_model, llama)


def test_a_model_that_is_no_language_model_is_refused(llama: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps(config | {"model_type": "vit", "architectures": ["ViTModel"]}))
    refused(f"the model in {llama} can't be loaded: ", load_model, llama)


def test_remote_code_is_never_run(llama: Path, tmp_path: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    config |= {
        "model_type": "unheard_of",
        "auto_map": {"AutoModelForCausalLM": "code.Model", "AutoConfig": "code.Config"},
    }
    (llama / "config.json").write_text(json.dumps(config))
    (llama / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    refused(f"the model in {llama} can't be loaded: ", load_model, llama)
    assert not (tmp_path / "ran").exists()


def test_the_tokenizer_must_fit_the_model(llama: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(llama)
    tokenizer.add_tokens([f"<extra{k}>" for k in range(5)])
    tokenizer.save_pretrained(llama)
    data = uk.write_jsonl([qa for qa in WORLD.items if qa.primary], tmp_path / "data.jsonl")
    with pytest.raises(UnlearnkitError, match="has 405 tokens, the model embeds 400; give the tokenizer that belongs"):
        uk.load_problem(data, "forget10", model=llama)
    for file in llama.glob("tokenizer*"):
        file.unlink()
    refused("has no tokenizer; save it there with tokenizer.save_pretrained", load_tokenizer, llama)


def test_a_tokenizer_without_an_end_token(llama: Path) -> None:
    tokenizer = load_tokenizer(llama)
    tokenizer.eos_token = None
    refused("has no end-of-sequence token", encode, tokenizer, template_of(tokenizer), [("a", "b")], 128)


def test_without_a_network_the_message_says_what_to_download_and_how(tmp_path: Path) -> None:
    script = """
import unlearnkit as uk
for model, revision in (("org/name", None), ("org/name", "v2"), ("gpt2", None)):
    try:
        uk.load_problem("authors", model=model, revision=revision)
    except uk.UnlearnkitError as error:
        print(error)
try:
    uk.load_problem("tofu")
except uk.UnlearnkitError as error:
    print(error)
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", script]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    first, second, third, dataset = out.stdout.splitlines()
    assert "model 'org/name' is neither a folder here nor reachable on the hub (HF_HUB_OFFLINE is set)" in first
    assert "`hf download org/name --local-dir FOLDER`" in first and "give FOLDER instead of the name" in first
    assert "`hf download org/name --revision v2 --local-dir FOLDER`" in second and "at revision v2" in second
    assert "`hf download gpt2 --local-dir FOLDER`" in third
    assert "dataset 'locuslab/TOFU' is neither a folder here nor reachable (HF_HUB_OFFLINE is set)" in dataset
    assert "`hf download locuslab/TOFU --repo-type dataset --local-dir FOLDER`" in dataset


def test_a_hub_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a connection only what was downloaded before is loaded; its library is not asked for anything else."""

    def refused(*_: Any, **__: Any) -> Any:
        raise TimeoutError

    monkeypatch.setattr(hub.socket, "create_connection", refused)
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    asked: list[str] = []
    with pytest.raises(UnlearnkitError, match="'org/name' is neither a folder here nor reachable on the hub; download"):
        reach(lambda name, **_: asked.append(name), "model", "org/name", None)
    with pytest.raises(UnlearnkitError, match="dataset 'locuslab/TOFU' is neither a folder here nor reachable;"):
        uk.load_problem("tofu")
    monkeypatch.setattr("transformers.utils.cached_file", lambda name, *_, **__: asked.append(name))
    with pytest.raises(UnlearnkitError, match="'org/name' is neither a folder here nor reachable on the hub; download"):
        estimate("org/name")
    assert not asked
    known = tmp_path / "models--org--name"
    (known / "snapshots" / "abc").mkdir(parents=True)
    (known / "refs").mkdir()
    (known / "refs" / "main").write_text("abc")
    (known / "snapshots" / "abc" / "config.json").write_text("{}")
    reach(lambda name, **_: asked.append(name), "model", "org/name", None)
    monkeypatch.setattr(hub, "getproxies", lambda: {"https": "proxy"})
    reach(lambda name, **_: asked.append(name), "model", "org/other", None)
    assert asked == ["org/name", "org/other"]


def test_oracles_are_looked_at_before_any_work(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UnlearnkitError, match="model folder .*/gone does not exist"):
        uk.load_problem("authors", model=llama, oracles=[llama, tmp_path / "gone"])
    with pytest.raises(UnlearnkitError, match="give oracles by name"):
        uk.load_problem("authors", model=llama, oracles=2)
    with pytest.raises(UnlearnkitError, match="no model; give both"):
        uk.load_problem("authors", oracles=[llama])
    with pytest.raises(UnlearnkitError, match="option 'steps' is not one of this world's"):
        uk.load_problem("authors", model=llama, steps=3)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_of("cpu") == torch.device("cpu")
    monkeypatch.setenv("UNLEARNKIT_DEVICE", "cpu")
    assert device_of() == torch.device("cpu")
    refused("device 'gpu' is unknown; use auto, cpu, cuda", device_of, "gpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert device_of("cuda:0").type == "cuda"
    refused("device 'cuda:1' was asked for, but 1 GPUs can be seen", device_of, "cuda:1")


# The store: a folder a recipe, whole or not there.


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNLEARNKIT_HOME", str(tmp_path))
    return tmp_path / "models"


SIZE: dict[str, Any] = {
    "width": 16,
    "layers": 1,
    "heads": 1,
    "inner": 16,
    "vocabulary": 300,
    "context": 128,
    "steps": 2,
}
((RECIPE, ITEMS),) = text_recipes(WORLD, split(WORLD, "forget10"), "forget10", 0, 0, **SIZE)


def test_a_checkpoint_is_built_once_and_found_again(home: Path) -> None:
    first = text_checkpoint(RECIPE, WORLD, ITEMS)
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    again = text_checkpoint(RECIPE, WORLD, ITEMS)
    assert first == again == home / RECIPE.digest and (again / "model.safetensors").stat().st_mtime_ns == stamp
    assert load_model(first).dtype == torch.float32
    tensors = load_file(first / "model.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    rebuilt = text_checkpoint(RECIPE, WORLD, ITEMS, force=True)
    assert (rebuilt / "model.safetensors").stat().st_mtime_ns != stamp
    assert all(torch.equal(t, tensors[n]) for n, t in load_file(rebuilt / "model.safetensors").items())
    assert sorted(p.name for p in home.iterdir() if p.is_dir()) == [RECIPE.digest]


def test_recipes_have_their_own_address() -> None:
    assert len({r.digest for r, _ in text_recipes(WORLD, split(WORLD, "forget10"), "x", 0, 2, **SIZE)}) == 3
    other = RECIPE.model_copy(update={"lr": 1e-4})
    assert other.digest != RECIPE.digest and RECIPE.model_copy(update={"note": "y"}).digest == RECIPE.digest
    with pytest.raises(UnlearnkitError, match="the training records are not those of recipe"):
        from unlearnkit.models.recipe import train_text

        train_text(RECIPE, [("a", "b")], tiny_models.tokenizer_of("gpt2", CORPUS))


def test_half_a_checkpoint_is_not_taken_for_whole(home: Path) -> None:
    """A folder without its manifest, and what a killed build left behind, are built over and cleared away."""
    (home / RECIPE.digest).mkdir(parents=True)
    (home / RECIPE.digest / "model.safetensors").write_bytes(b"half")
    (home / f".{RECIPE.digest}-killed").mkdir()
    assert store.find(RECIPE.digest) is None
    folder = text_checkpoint(RECIPE, WORLD, ITEMS)
    load_model(folder)
    assert [p.name for p in home.iterdir() if p.is_dir()] == [RECIPE.digest]


def test_a_build_that_fails_leaves_nothing(home: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.fetch(RECIPE, build)
    assert store.find(RECIPE.digest) is None and not [p for p in home.iterdir() if p.is_dir()]


def test_a_failed_rebuild_keeps_the_old_one(home: Path) -> None:
    folder = text_checkpoint(RECIPE, WORLD, ITEMS)
    before = (folder / "model.safetensors").read_bytes()

    def build(work: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UnlearnkitError, match="could not be written to .*: No space left on device; free some space"):
        store.fetch(RECIPE, build, force=True)
    assert (folder / "model.safetensors").read_bytes() == before and store.find(RECIPE.digest) == folder


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 5 kB: what a full disk looks like to every library below."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limit[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_a_full_disk_while_a_checkpoint_is_written(home: Path, full_disk: None) -> None:
    with pytest.raises(UnlearnkitError, match="could not be written to .*free some space") as caught:
        text_checkpoint(RECIPE, WORLD, ITEMS)
    assert "\n" not in str(caught.value)
    assert store.find(RECIPE.digest) is None and not [p for p in home.iterdir() if p.is_dir()]


def test_a_full_disk_while_an_unlearned_model_is_saved(small_problem: Any, tmp_path: Path, full_disk: None) -> None:
    unlearned = uk.unlearn(small_problem, "npo", steps=1, batch_size=2, progress=False)
    with pytest.raises(UnlearnkitError, match="could not be written: .*free some space"):
        unlearned.save(tmp_path / "saved", small_problem.tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_saving_over_an_older_one_replaces_it(small_problem: Any, tmp_path: Path) -> None:
    for steps in (1, 2):
        unlearned = uk.unlearn(small_problem, "npo", steps=steps, batch_size=2, progress=False)
        folder = unlearned.save(tmp_path / "a" / "saved", small_problem.tokenizer)
    about = json.loads((folder / "unlearnkit.json").read_text())
    assert about["method"] == "npo" and about["settings"]["steps"] == 2 and about["cost"]["steps"] == 2
    assert len((folder / "trace.csv").read_text().splitlines()) == 3
    ids = torch.arange(10)[None]
    assert torch.equal(load_model(folder)(ids).logits, unlearned.model(ids).logits)


def test_other_files_are_not_written_among(small_problem: Any, tmp_path: Path) -> None:
    unlearned = uk.unlearn(small_problem, "npo", steps=0, progress=False)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.json").write_text("{}")
    with pytest.raises(UnlearnkitError, match="theirs holds other files; give a new or empty folder"):
        unlearned.save(tmp_path / "theirs")
    with pytest.raises(UnlearnkitError, match="config.json is a file; give a folder"):
        unlearned.save(tmp_path / "theirs" / "config.json")
    assert [p.name for p in tmp_path.rglob("*")] == ["theirs", "config.json"]


def test_shipped_text_checkpoints_are_those_of_the_recipes() -> None:
    """Every recipe is there, every file as it was built, every address that of its recipe; together a few megabytes."""
    size = 0
    for recipe, _ in builtin_recipes():
        folder = store.shipped_dir() / recipe.digest
        manifest = json.loads((folder / "recipe.json").read_text())
        assert manifest["digest"] == recipe.digest == type(recipe)(**manifest["recipe"]).digest
        assert manifest["files"] == store._hashes(folder)
        size += sum(f.stat().st_size for f in folder.iterdir())
    assert size < 12e6
    assert not [f for f in store.shipped_dir().rglob("*") if f.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt")]


def test_verify_finds_what_was_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNLEARNKIT_HOME", str(tmp_path))
    monkeypatch.setattr(store, "shipped_dir", lambda: tmp_path / "shipped")
    monkeypatch.setattr(store, "shipped_recipes", lambda: [])
    folder = text_checkpoint(RECIPE, WORLD, ITEMS)
    assert store.verify() == []
    other = folder.parent / "0123456789abcdef"
    shutil.copytree(folder, other)
    (folder / "tokenizer.json").write_text("{}")
    found = store.verify()
    assert len(found) == 2 and [row["where"] for row in store.listing()] == ["cache", "cache"]
    assert any(f"{RECIPE.digest}: files are not those that were built" in line for line in found)
    assert any("0123456789abcdef: its recipe's digest is" in line for line in found)
    monkeypatch.setattr(store, "shipped_recipes", lambda: [(RECIPE, None)])
    assert f"{RECIPE.digest} ({RECIPE.note}) is not shipped" in store.verify()[-1]
