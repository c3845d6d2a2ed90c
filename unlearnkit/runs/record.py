"""The record of a run: a folder with config, scores, trace, figures and status, which everything shown later reads."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearnkit.errors import UnlearnkitError
from unlearnkit.paths import notebooks_dir
from unlearnkit.runs.config import Config
from unlearnkit.runs.files import write, write_json

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

RUN_DIR = "UNLEARNKIT_RUN_DIR"  # set in the kernel: the folder of its run
RUNS = "UNLEARNKIT_RUNS"  # set in the kernel: the folder of all runs
COLORS = 256  # of a kept figure: enough for lines, areas and small pictures, at a third of the size
FREE = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


class Run:
    """What a notebook writes its results to. Without a run folder (interactive work) only figures are shown."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._frames: dict[str, list[pd.DataFrame]] = {}

    def scores(self, frame: pd.DataFrame) -> None:
        """Append rows to ``scores.csv``. The index isn't kept: reset it first if it means something."""
        self._append("scores", frame)

    def trace(self, frame: pd.DataFrame, name: str = "") -> None:
        """Append rows to ``trace.csv``, or to ``trace-<name>.csv``.

        Raises:
            UnlearnkitError: the name has other characters than letters, digits, - and _.
        """
        self._append(f"trace-{_free(name)}" if name else "trace", frame)

    def figure(self, figure: Figure, name: str, alt: str | None = None) -> None:
        """Show a figure once, with its alternative text, and keep it as ``figures/<name>.png``.

        Args:
            alt: what the figure shows, for those who can't see it.

        Raises:
            UnlearnkitError: the name has other characters than letters, digits, - and _.
        """
        _free(name)
        alt = alt or name.replace("_", " ")
        picture = _png(figure, alt)
        if self.folder:
            write(self.folder / "figures" / f"{name}.png", picture)
        if "IPython" in sys.modules and sys.modules["IPython"].get_ipython():
            from IPython.display import Image, display

            display(Image(picture, format="png", alt=alt))
        if "matplotlib.pyplot" in sys.modules:  # else the inline backend shows it a second time
            sys.modules["matplotlib.pyplot"].close(figure)

    def _append(self, name: str, frame: pd.DataFrame) -> None:
        import pandas as pd

        if self.folder:
            frames = self._frames.setdefault(name, [])
            frames.append(frame.copy())
            whole = pd.concat([part for part in frames if len(part)] or frames[:1], ignore_index=True)
            write(self.folder / f"{name}.csv", whole.to_csv(index=False).encode())


@dataclass(frozen=True)
class Record:
    """A finished run, as read from its folder.

    Attributes:
        config: ``notebook``, ``profile``, ``seed``, ``values``, ``versions``, ``device``.
        status: ``state`` (complete or failed), ``started``, ``seconds``, ``peak_memory_mb``, ``traceback``.
        figures: PNG files in the order they were made; the ``Description`` inside is the alternative text.
    """

    folder: Path
    config: Mapping[str, Any]
    status: Mapping[str, Any]
    figures: tuple[Path, ...]

    @property
    def notebook(self) -> str:
        return self.folder.parent.name

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Rows given to ``Run.scores``; empty when there were none."""
        return self._table("scores")

    def trace(self, name: str = "") -> pd.DataFrame:
        """Rows given to ``Run.trace``; empty when there were none."""
        return self._table(f"trace-{_free(name)}" if name else "trace")

    def _table(self, name: str) -> pd.DataFrame:
        import pandas as pd

        path = self.folder / f"{name}.csv"
        try:
            return pd.read_csv(path, float_precision="round_trip") if path.is_file() else pd.DataFrame()
        except pd.errors.EmptyDataError:
            return pd.DataFrame()
        except (OSError, ValueError) as error:
            raise UnlearnkitError(_unreadable(self.folder, error)) from error


def open_run(config: Config) -> Run:
    """The record of the running notebook; writes its config, with device and versions.

    Raises:
        UnlearnkitError: the config isn't the one this run was planned with, or the disk is full.
    """
    if not os.environ.get(RUN_DIR):
        print(f"not recorded: interactive work; `unlearnkit run {config.notebook}` keeps a record.")
        return Run(None)
    folder = Path(os.environ[RUN_DIR])
    path = folder / "config.json"
    planned = json.loads(path.read_text()) if path.is_file() else described(config)
    if (planned["notebook"], planned["values"]) != (config.notebook, dict(config.values)):
        raise UnlearnkitError(
            f"this run was planned as {planned['notebook']} with {planned['values']}, but the notebook configured "
            f"{config.notebook} with {dict(config.values)}; configure(globals(), notebook=...) must name its own file "
            "and come right after the parameters."
        )
    write_json(path, planned | {"device": _device()})
    return Run(folder)


def read_runs(runs: Path | str | None = None, notebook: str | None = None, state: str = "complete") -> list[Record]:
    """All finished runs of a folder, by notebook and time.

    Args:
        runs: by default the folder the running notebook is recorded in, else ``runs`` here or beside the notebooks.
        notebook: only those of this one.
        state: "complete" or "failed".

    Raises:
        UnlearnkitError: a finished run can't be read.
    """
    root = Path(runs or _root())
    found = []
    for path in sorted(root.glob("[!.]*/[!.]*/status.json")):
        if notebook in (None, path.parent.parent.name):
            record = read_run(path.parent)
            if record.status["state"] == state:
                found.append(record)
    return sorted(found, key=lambda record: (record.notebook, str(record.status.get("started"))))


def read_run(folder: Path) -> Record:
    """One finished run.

    Raises:
        UnlearnkitError: it can't be read.
    """
    try:
        status = json.loads((folder / "status.json").read_text("utf-8"))
        config = json.loads((folder / "config.json").read_text("utf-8"))
        if not isinstance(status, dict) or not isinstance(config, dict) or "state" not in status:
            raise ValueError("status.json must hold an object with 'state', config.json an object")
        if not isinstance(config.get("values", {}), dict) or not isinstance(status.get("seconds", 0.0), int | float):
            raise TypeError("'values' must be a mapping, 'seconds' a number")
        if lost := damage(folder, status):
            raise ValueError(lost)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnlearnkitError(_unreadable(folder, error)) from error
    figures = sorted((folder / "figures").glob("[!.]*.png"), key=lambda file: (file.stat().st_mtime_ns, file.name))
    return Record(folder, config, status, tuple(figures))


def contents(folder: Path) -> dict[str, int]:
    """File of a run folder → its size, bytes; `status.json` holds this list and is none of them."""
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in sorted(folder.rglob("*"))
            if file.is_file() and not file.name.startswith(".")}  # fmt: skip


def damage(folder: Path, status: Mapping[str, Any]) -> str:
    """Which file of a finished run is gone or has lost something, in words; empty when all is there.

    An executed notebook that somebody has saved again is no loss.
    """
    files = status.get("files", {})
    for name, size in files.items() if isinstance(files, dict) else ():
        file = folder / name
        if not file.is_file():
            return f"{name} is gone"
        if (now := file.stat().st_size) != size and not (file.suffix == ".ipynb" and _is_notebook(file)):
            return f"{name} has {now} bytes and was written with {size}"
    return ""


def _is_notebook(file: Path) -> bool:
    try:
        return isinstance(json.loads(file.read_bytes())["cells"], list)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def described(config: Config) -> dict[str, Any]:
    """What ``config.json`` holds before the kernel has added the device."""
    versions = {"python": platform.python_version(), "unlearnkit": metadata.version("unlearnkit")}
    for asked in metadata.requires("unlearnkit") or []:
        name = re.split(r"[^\w.-]", asked)[0]
        if "extra ==" not in asked:
            versions[name] = metadata.version(name)
    return {
        "notebook": config.notebook,
        "profile": config.profile,
        "seed": config.values.get("seed"),
        "values": dict(config.values),
        "platform": platform.platform(),
        "versions": versions,
    }


def _device() -> dict[str, Any]:
    import torch

    from unlearnkit.models.load import device_of

    place = device_of()
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else platform.processor() or platform.machine()
    return {"kind": place.type, "name": name, "threads": torch.get_num_threads()}


def _root() -> Path:
    if os.environ.get(RUNS):
        return Path(os.environ[RUNS])
    return Path("runs") if Path("runs").is_dir() else notebooks_dir().parent / "runs"


def _free(name: str) -> str:
    if not FREE.match(name):
        raise UnlearnkitError(f"the name {name[:80]!r} can't be used; take 1 to 64 letters, digits, '-' and '_'.")
    return name


def _unreadable(folder: Path, error: Exception) -> str:
    return f"the run {folder} can't be read ({type(error).__name__}: {error}); delete its folder or run it again."


def _png(figure: Figure, alt: str) -> bytes:
    """A figure as PNG with at most `COLORS` colours, a third of the size; the text inside as its description."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    drawn, small, about = BytesIO(), BytesIO(), PngInfo()
    figure.savefig(drawn, format="png", bbox_inches="tight")
    about.add_itxt("Description", alt)
    picture = Image.open(drawn).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    picture.save(small, "PNG", optimize=True, pnginfo=about)
    return small.getvalue()
