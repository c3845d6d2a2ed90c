"""What a run is before it happens: the notebook, its resolved config, and the digest that addresses its folder."""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from unlearnkit.errors import UnlearnkitError, unknown
from unlearnkit.paths import data_dir, notebooks_dir
from unlearnkit.runs.config import Config, resolve
from unlearnkit.runs.parameters import Scalar, declared

MARKS = ("config.json", "model_index.json", "adapter_config.json", "metadata.jsonl")  # a model or data of one's own
RECORDS = "[!.]*/[!.]*/status.json"  # <notebook>/<digest>/status.json in a folder of runs
PACKAGE = Path(__file__).resolve().parents[1]
# Code that no notebook's numbers can depend on; of `runs` only what works inside the kernel counts.
NOT_COVERED = ("cli.py", "bench/", "models/commands.py", "runs/")
COVERED = ("runs/config.py", "runs/files.py", "runs/parameters.py", "runs/record.py")


@dataclass(frozen=True)
class Plan:
    """A run to be: ``parameters`` are the given ones, which papermill injects.

    ``reads_others``: the notebook's metadata say ``{"unlearnkit": {"after": "all"}}``: it shows what others found.
    """

    path: Path
    config: Config
    parameters: Mapping[str, Scalar]
    digest: str
    reads_others: bool = False


def series() -> list[Path]:
    """The notebooks of the series, in order.

    Raises:
        UnlearnkitError: there are none.
    """
    found = sorted(notebooks_dir().glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise UnlearnkitError(f"there are no notebooks in {notebooks_dir()}; check UNLEARNKIT_NOTEBOOKS.")
    return found


def find_notebook(name: str) -> Path:
    """The path of a notebook given by the name of the series or by a path.

    Raises:
        UnlearnkitError: there is none.
    """
    if name.endswith(".ipynb") or os.sep in name:
        if not Path(name).is_file():
            raise UnlearnkitError(f"there is no notebook {name}; give a path, or one of the series by its name.")
        return Path(name).absolute()
    known = {path.stem: path for path in series()}
    if name not in known:
        raise unknown("notebook", name, known)
    return known[name]


def plan(path: Path, given: Mapping[str, Scalar] | None = None) -> Plan:
    """Resolve and check everything that can be before any work.

    Args:
        given: parameter → value; words, as the command line has them, become what the declaration says.

    Raises:
        UnlearnkitError: the notebook is broken, or a parameter or profile is unknown or ill-typed.
    """
    given = dict(given or {})
    notebook = read_notebook(path)
    cell = parameters_cell(notebook, path.stem)
    found = declared(source_of(cell))
    types = {name: kind for name, (kind, _) in found.items()}
    for name in given:
        if name not in types:
            raise unknown("parameter", name, types)
    given = {name: located(worded(value, types[name])) for name, value in given.items()}
    values = {name: default for name, (_, default) in found.items()} | given
    config = resolve(types, values, path.stem, notebooks_dir())
    given = {name: given[name] if given[name] is None else config.values[name] for name in given}
    if path.absolute().parent == notebooks_dir().absolute():  # every whole number of the series counts something
        for name, value in given.items():
            if "int" in types[name] and isinstance(value, int) and not 0 <= value < 2**31:
                raise UnlearnkitError(f"parameter '{name}' of {path.stem} is {value}; expected 0 to 2147483647.")
    own = notebook.get("metadata", {}).get("unlearnkit")
    after = isinstance(own, dict) and own.get("after") == "all"
    return Plan(path.absolute(), config, given, digest_of(notebook, config, path.absolute().parent), after)


def read_notebook(path: Path) -> dict[str, Any]:
    """A notebook of format 4, as plain JSON.

    Raises:
        UnlearnkitError: it can't be read, or isn't one.
    """
    try:
        notebook = json.loads(path.read_text("utf-8"))
        if notebook["nbformat"] == 4 and all(cell["cell_type"] for cell in notebook["cells"]):
            return notebook
    except OSError as error:
        raise UnlearnkitError(f"notebook {path} can't be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise UnlearnkitError(f"{path} is not a Jupyter notebook of format 4; save it anew from JupyterLab.")


def parameters_cell(notebook: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The one cell tagged ``parameters``.

    Raises:
        UnlearnkitError: there is none, or more than one.
    """
    tagged = [cell for cell in notebook["cells"] if _is_parameters(cell)]
    if len(tagged) != 1:
        raise UnlearnkitError(f"{name} has {len(tagged)} code cells tagged 'parameters'; tag exactly one.")
    return tagged[0]


def source_of(cell: Mapping[str, Any]) -> str:
    """The text of a cell, which JSON may hold as a list of lines."""
    return "".join(cell["source"])


def worded(value: Scalar, kind: str) -> Scalar:
    """A word of the command line as the declared type has it; what doesn't fit is left for the check to refuse."""
    if not isinstance(value, str) or kind == "str" or (kind == "Optional[str]" and value != "None"):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def located(value: Scalar) -> Scalar:
    """Paths among (comma-separated) words made absolute: the kernel works in the notebook's folder, not here."""
    if not isinstance(value, str):
        return value
    words = [value] if _found(value, Path.cwd()) else value.split(",")
    return ",".join(str(_found(word, Path.cwd()) or word) for word in words)


def digest_of(notebook: Mapping[str, Any], config: Config, folder: Path, modules: Iterable[str] | None = None) -> str:
    """Identity of a run: notebook code, package code, the project's data, resolved config, contents of given files.

    Args:
        folder: the notebook's, which paths in its parameters are relative to.
        modules: files of the package that count, relative to it; by default all but `NOT_COVERED`.
    """
    code = [
        [_is_parameters(cell), source_of(cell)]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and "injected-parameters" not in cell.get("metadata", {}).get("tags", [])
    ]
    package = {name: PACKAGE / name for name in (covered() if modules is None else modules)}
    texts = [path.read_text("utf-8") for path in package.values() if path.is_file()]
    words = "\n".join([*texts, json.dumps(code)])
    whole = {
        "notebook": config.notebook,
        "code": code,
        "values": dict(config.values),
        "package": {name: _hash(path) for name, path in package.items()},
        "data": {path.relative_to(data_dir()).as_posix(): _hash(path) for path in _named_data(words)},
        "files": [
            _folder(path) if path.is_dir() else _hash(path)
            for value in config.values.values()
            for path in _paths(value, folder)
        ],
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]


def _named_data(words: str) -> Iterator[Path]:
    """What code names in the data folder: an entry by its stem, a measured table also without its last part.

    Not `figures`: pictures of the README, which come out of notebooks.
    """
    for path in data_dir().glob("[!.]*"):
        if path.name != "measured":
            yield from [path] if path.stem in words and path.name != "figures" else []
            continue
        for table in path.glob("[!.]*"):
            family = table.stem[: table.stem.rfind("_") + 1]  # leaderboard_text is read as f"leaderboard_{branch}"
            if table.stem in words or (family and family in words):
                yield table


def covered(names: Iterable[str] | None = None) -> list[str]:
    """Files of the package, relative to it, whose change makes a run another one; of `names` if given."""
    if names is None:
        names = (path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
    return sorted(name for name in names if name in COVERED or not name.startswith(NOT_COVERED))


def _hash(path: Path) -> Any:
    """Contents of a file (line ends don't count), of a folder those of all it holds."""
    if path.is_dir():
        return {child.name: _hash(child) for child in path.glob("[!.]*") if child.name != "__pycache__"}
    if not path.is_file():
        return None
    about = path.stat()
    return _hash_file(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=10_000)  # a sweep plans hundreds of runs of the same files
def _hash_file(path: Path, size: int, time_ns: int) -> str:
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def _folder(path: Path) -> Any:
    """A given folder; of run records those that read no others: what is drawn from them may lie among them."""
    records = [status.parent for status in path.glob(RECORDS)]
    kept = {record.relative_to(path).as_posix(): record for record in records if not _reads_runs(record)}
    return {name: _stamp(record) for name, record in kept.items()} if records else _stamp(path)


def _reads_runs(record: Path) -> bool:
    try:
        return bool(json.loads((record / "config.json").read_text("utf-8"))["values"].get("runs"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _stamp(folder: Path, depth: int = 3) -> Any:
    """Names, sizes and times of the files of a given folder: reading a real model's weights would take minutes."""
    with os.scandir(folder) as found:
        return {
            entry.name: _stamp(Path(entry), depth - 1)
            if entry.is_dir() and depth
            else [entry.stat(follow_symlinks=False).st_size, entry.stat(follow_symlinks=False).st_mtime_ns]
            for entry in found
        }


def _found(word: str, folder: Path) -> Path | None:
    """What a word names here. `authors` stays a name beside a folder of that name that holds neither model nor data."""
    if not word or "\0" in word:
        return None
    path = Path(os.path.abspath(folder / word))
    if os.sep in word or Path(word).suffix:
        return path if os.path.exists(path) else None
    return path if any((path / name).is_file() for name in MARKS) or any(path.glob(RECORDS)) else None


def _paths(value: Scalar, folder: Path) -> Iterator[Path]:
    if isinstance(value, str):
        words = [value] if _found(value, folder) else value.split(",")
        yield from filter(None, (_found(word, folder) for word in words))


def _is_parameters(cell: Mapping[str, Any]) -> bool:
    return cell["cell_type"] == "code" and "parameters" in cell.get("metadata", {}).get("tags", [])
