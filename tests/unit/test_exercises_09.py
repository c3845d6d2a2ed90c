"""Notebook 09's exercises; every command it shows is one that its program takes, with settings that exist."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from solved import NOTEBOOKS, solved

import unlearnkit as uk
from unlearnkit.cli import _paired, app
from unlearnkit.estimate import estimate
from unlearnkit.runs.plan import find_notebook, plan
from unlearnkit.unlearning import configure_method

SOLVED = solved("09")
WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("09.1", lambda p, a, b: 1e9 * SOLVED["09.1"](p, a, b), "divide by 10⁹"),
    ("09.1", lambda p, a, b: (b * p + 16 * a if a else (b + 12) * p) / 1e9, "float32 whatever they were loaded as"),
    ("09.1", lambda p, a, b: (b * p + 12 * a if a else 16 * p) / 1e9, "weights of its own"),
    ("09.1", lambda p, a, b: 16 * (p + a) / 1e9, "no gradient and no moments"),
    ("09.1", lambda p, a, b: 1.0, "16 GB, not 1.0"),
    ("09.2", lambda n, b, low, o: "maybe", "one of the three words"),
    ("09.2", lambda n, b, low, o: "present" if low > (o or b) else "nothing found", "found or taught it"),
    ("09.2", lambda n, b, low, o: "not measurable" if o is None else "present", "beyond 0 was in it"),
    ("09.2", lambda n, b, low, o: SOLVED["09.2"](n, b, low, None), "without an oracle nobody knows|lies above it"),
    ("09.3", lambda rows: 3, "return the text of the file"),
    ("09.3", lambda rows: "".join(f'{{"question": "{q}", "answer": "{a}"}}\n' for _, q, a in rows), "lines|be read"),
    ("09.3", lambda rows: "".join(json.dumps({"question": q, "answer": a}) + "\n" for _, q, a in rows), "'subject'"),
    (
        "09.3",
        lambda rows: "".join(json.dumps({"subject": s, "question": q, "answer": a[:5]}) + "\n" for s, q, a in rows),
        "come back changed",
    ),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_a_mistake_is_named(number: str, answer: Callable[..., Any], hint: str, capsys: Any) -> None:
    assert not uk.check(number, answer)
    assert re.search(hint, capsys.readouterr().out)


def blocks(kind: str) -> list[str]:
    """The fenced blocks of a language, of notebooks 00 and 09."""
    found = []
    for path in (NOTEBOOKS / "00_start_here.ipynb", NOTEBOOKS / "09_your_model.ipynb"):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            if cell["cell_type"] == "markdown" and "<details>" not in "".join(cell["source"]):
                found += re.findall(rf"^```{kind}\n(.*?)^```", "".join(cell["source"]), re.DOTALL | re.MULTILINE)
    return found


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]
CLI: Any = typer.main.get_command(app)


def ours(words: list[str]) -> None:
    """A command of this package: its options exist, and what they set exists too."""
    name, *rest = _paired(words)
    context = CLI.commands[name].make_context(name, rest)  # an unknown option or a missing argument raises
    given = dict(pair.split("=", 1) for pair in context.params.get("parameter") or [])
    settings = {key: yaml.safe_load(value) for key, value in given.items()}
    if name == "run":
        for notebook in context.params["notebooks"]:
            plan(find_notebook(notebook), given | {"profile": context.params["profile"] or "quick"})
    elif name == "unlearn":
        image = context.params["world"] in ("stable-diffusion", "path/to/album")
        configure_method("image" if image else "text", context.params["method"], settings)
    elif name == "doctor" and context.params["model"]:
        known = set(estimate.__kwdefaults__ or {})
        own = {key: value for key, value in settings.items() if key not in known}
        image = context.params["method"] == "esd"
        configure_method("image" if image else "text", context.params["method"] or "npo", own)
    else:
        assert name in ("report", "doctor")


@cache
def hub_help(name: str) -> str:
    program = shutil.which("hf", path=str(Path(sys.executable).parent)) or "hf"
    return subprocess.check_output([program, name, "--help"], text=True, timeout=120)


def hub(words: list[str]) -> None:
    """A command of the hub's own program: its help knows the options, and one repository is named."""
    name, *rest = words
    options = [word for word in rest if word.startswith("--")]
    assert all(re.search(rf"(^|[ ,]){option}\b", hub_help(name)) for option in options)
    assert len(rest) == 1 + 2 * len(options) and not rest[0].startswith("-")


def launched(words: list[str]) -> None:
    """`accelerate launch … -m unlearnkit.cli …`: both parsers take it."""
    from accelerate.commands.launch import launch_command_parser

    assert words[0] == "launch"
    taken = launch_command_parser().parse_args(words[1:])
    assert taken.module and taken.training_script == "unlearnkit.cli"
    ours(taken.training_script_args)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_taken_by_its_program(line: str) -> None:
    words = shlex.split(line, comments=True)
    while "=" in words[0]:
        assert words.pop(0) == "HF_HUB_OFFLINE=1"
    program, *rest = words
    if program == "papermill":
        given = {rest[i + 1]: rest[i + 2] for i, word in enumerate(rest) if word == "-p"}
        plan(find_notebook(rest[0].removeprefix("notebooks/").removesuffix(".ipynb")), given)
    else:
        {"unlearnkit": ours, "hf": hub, "accelerate": launched}[program](rest)


def test_there_are_commands_for_all_that_is_shown() -> None:
    programs = {shlex.split(line)[0] for line in COMMANDS}
    assert {"unlearnkit", "papermill", "hf", "accelerate", "HF_HUB_OFFLINE=1"} <= programs and len(COMMANDS) > 15


@pytest.mark.parametrize("block", blocks("python"))
def test_python_beside_it_calls_what_exists(block: str) -> None:
    """What can't run here (hub models) names verbs, methods and options that exist."""
    import inspect

    for call in (node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)):
        verb = getattr(uk, ast.unparse(call.func).removeprefix("uk."))
        options = {keyword.arg: keyword.value for keyword in call.keywords}
        if verb is uk.unlearn:
            method = ast.literal_eval(call.args[1])
            modality = "text" if method in uk.METHODS["text"] else "image"
            configure_method(modality, method, {k: ast.literal_eval(v) for k, v in options.items() if k})
        elif verb is uk.load_problem:
            known = {*inspect.signature(verb).parameters, "data", "anchor", "preserve", "judge"}
            assert set(options) <= known
        else:
            assert set(options) <= set(inspect.signature(verb).parameters)
