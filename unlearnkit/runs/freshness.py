"""Notebooks are committed with outputs; a stamp in their metadata tells whether the code has changed since.

Outputs are fresh while everything they came from is unchanged: the notebook's code, the quick profile's values, the
files of the package that were loaded when the notebook ran (code that wasn't loaded can't have made an output; code
that would load more is itself loaded), and the data that this code names. Prose may change freely.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlearnkit.errors import UnlearnkitError
from unlearnkit.runs.files import write
from unlearnkit.runs.plan import PACKAGE, Plan, covered, digest_of, parameters_cell, plan, read_notebook

__all__ = ["is_fresh", "parameters_cell", "stamp"]

PROFILE = "quick"
PLAIN = 300  # characters
WIDGET = {"application/vnd.jupyter.widget-view+json"}
# Executed last, and not kept: which files of the package this kernel has loaded.
LOADED = """import json, sys
print(json.dumps([m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "unlearnkit" and m.__file__]))"""


def is_fresh(path: Path) -> bool:
    """Whether the outputs of a notebook are what its code would make with the quick profile.

    Raises:
        UnlearnkitError: the notebook is broken, or has another default profile.
    """
    planned, notebook = _quick(path), read_notebook(path)
    stamped = notebook.get("metadata", {}).get("unlearnkit")
    if not isinstance(stamped, dict) or not isinstance(stamped.get("modules"), list):
        return False
    return stamped.get("digest") == _digest(notebook, planned, stamped["modules"])


def stamp(path: Path, runs: Path | str = "runs") -> float:
    """Execute a notebook in place with the quick profile and stamp it; returns the seconds it took.

    The execution is kept as a run, too.

    Raises:
        UnlearnkitError: a cell failed (the file is left as it was), or the notebook is broken.
    """
    from unlearnkit.runs.execute import run_notebook

    planned, notebook = _quick(path), read_notebook(path)
    probed = copy.deepcopy(notebook)
    probe: dict[str, Any] = {
        "cell_type": "code",
        "id": "loaded",
        "source": LOADED,
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    probed["cells"].append(probe)
    with tempfile.TemporaryDirectory(prefix="uk-stamp-") as work:
        source = Path(work, path.name)
        source.write_text(json.dumps(probed), "utf-8")
        outcome = run_notebook(path, {}, runs, force=True, source=source)
    if outcome.state != "complete":
        raise UnlearnkitError(f"{path.name} failed and is left as it was:\n{outcome.traceback}")
    seconds = round(outcome.seconds, 1)
    kept = outcome.folder / "executed.ipynb"
    executed = json.loads(kept.read_text("utf-8"))
    said = [output for output in executed["cells"].pop()["outputs"] if output.get("name") == "stdout"]
    text = "".join("".join(output["text"]) for output in said)  # a long line may come in several pieces
    files = json.loads(text.splitlines()[-1])
    modules = covered(Path(file).relative_to(PACKAGE).as_posix() for file in files)
    write(kept, json.dumps(executed, indent=1).encode())
    ran = [cell for cell in executed["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])]
    for cell, made in zip(notebook["cells"], ran, strict=True):
        if cell["cell_type"] == "code":  # metadata stay as they were: papermill's hold times and paths
            # no widgets: a finished progress bar says nothing, and a panel has its static twin beside it
            outputs = [_lean(o) for o in made["outputs"] if not WIDGET & o.get("data", {}).keys()]
            cell |= {"outputs": outputs, "execution_count": made["execution_count"]}
    notebook["metadata"].pop("widgets", None)
    before = notebook["metadata"].get("unlearnkit")
    notebook["metadata"]["unlearnkit"] = {
        **({"after": before["after"]} if isinstance(before, dict) and "after" in before else {}),
        "profile": PROFILE,
        "seconds": seconds,
        "digest": _digest(notebook, planned, modules),
        "modules": modules,
    }
    write(path, (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode())
    return seconds


def _lean(output: dict[str, Any]) -> dict[str, Any]:
    """Without the long plain text that no reader sees, as the same is there as a table or formatted text."""
    data = output.get("data", {})
    if data.keys() & {"text/html", "text/markdown"} and len("".join(data.get("text/plain", ""))) > PLAIN:
        output["data"] = {kind: value for kind, value in data.items() if kind != "text/plain"}
    return output


def _quick(path: Path) -> Plan:
    planned = plan(path)
    if planned.config.profile != PROFILE:
        raise UnlearnkitError(f"{path.name} has '{planned.config.profile}' as default profile; make it '{PROFILE}'.")
    return planned


def _digest(notebook: Mapping[str, Any], planned: Plan, modules: list[str]) -> str:
    return digest_of(notebook, planned.config, planned.path.parent, modules)
