"""What this machine has, what the notebooks need and took, and whether it fits. Light until `diagnose` asks torch."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from unlearnkit.errors import UnlearnkitError
from unlearnkit.paths import data_dir, notebooks_dir
from unlearnkit.runs.config import needs_of, profiles, read_profile, resolve
from unlearnkit.runs.parameters import declared
from unlearnkit.runs.plan import parameters_cell, read_notebook, source_of
from unlearnkit.runs.record import Record, read_runs

GB = 1e9
UNITS = {"seconds": "s", "memory_gb": "GB of memory", "disk_gb": "GB of disk"}


def diagnose(runs: Path | str | None = None, checkpoints: bool = True) -> dict[str, Any]:
    """Everything the doctor knows, ready for JSON.

    Args:
        runs: folder of run records, as `read_runs` takes it; what they measured stands beside what is stated.
        checkpoints: whether the shipped ones are checked against their recipes, which takes seconds.

    Returns:
        ``ok`` and ``problems`` (what is broken); ``python``, ``packages`` (name, wanted, found, ok), ``device``,
        ``cpus``, ``memory_gb`` and ``disk_gb`` (free), ``offline``, and ``notebooks``: what each needs in each
        profile, whether it ``fits``, and ``why`` not, and what its runs took (``measured``: ``seconds``,
        ``memory_gb``, ``disk_gb``, number of ``runs``; None without one). What doesn't fit is not a problem: another
        profile may. ``understated``: needs that a run went beyond, a sentence each.
    """
    packages = list(_packages())
    problems = [
        f"{row['name']} {row['found'] or 'is missing'}, wanted {row['wanted']}; run `make setup`."
        for row in packages
        if not row["ok"]
    ]
    device = _device(problems)
    offline = _offline(problems, checkpoints)
    notebooks = list(_notebooks(device, problems, _records(runs, problems)))
    return {
        "ok": not problems,
        "problems": problems,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "device": device,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(free_memory(), 2),
        "disk_gb": round(free_disk(Path.cwd()), 2),
        "offline": offline,
        "notebooks": notebooks,
        "understated": understated(notebooks),
    }


def understated(notebooks: Iterable[Mapping[str, Any]]) -> list[str]:
    """Where a run took more than its profile states; rows as `diagnose` returns them."""
    return [
        f"{row['notebook']}, profile {row['profile']}: {row['needs'][key]:g} {unit} are stated, a run took "
        f"{row['measured'][key]:.3g}."
        for row in notebooks
        if row["measured"]
        for key, unit in UNITS.items()
        if row["needs"].get(key, float("inf")) < row["measured"].get(key, 0)
    ]


def measured(records: Iterable[Record], notebook: str, profile: str, folder: Path) -> dict[str, float] | None:
    """The most that a notebook's complete runs took, with the values of the profile and any seed; None without one.

    Args:
        folder: of the notebooks.
    """
    mine = [r for r in records if r.notebook == notebook and r.config.get("profile") == profile]
    if not mine:
        return None
    path = folder / f"{notebook}.ipynb"
    found = declared(source_of(parameters_cell(read_notebook(path), notebook)))
    values = {name: default for name, (_, default) in found.items()} | {"profile": profile}
    wanted = dict(resolve({name: kind for name, (kind, _) in found.items()}, values, notebook, folder).values)
    mine = [r for r in mine if {**r.config["values"], "seed": None} == {**wanted, "seed": None}]
    if not mine:
        return None
    memory = [r.status["peak_memory_mb"] / 1e3 for r in mine if r.status.get("peak_memory_mb")]
    disk = [sum(f.stat().st_size for f in r.folder.rglob("*") if f.is_file()) / GB for r in mine]
    took = {"seconds": max(r.status["seconds"] for r in mine), "disk_gb": max(disk), "runs": len(mine)}
    return took | ({"memory_gb": max(memory)} if memory else {})


def shown(found: Mapping[str, Any]) -> str:
    """The diagnosis as text for people."""
    device = found["device"]
    memory = f", {device['memory_gb']:.1f} GB free" if device.get("memory_gb") is not None else ""
    bad = [row for row in found["packages"] if not row["ok"]]
    hub = found["offline"]
    lines = [
        f"Python     {found['python']} on {found['platform']}",
        f"packages   {len(found['packages']) - len(bad)} of {len(found['packages'])} in their range",
        f"device     {device['kind']} ({device['name']}{memory}), {found['cpus']} CPU cores",
        f"free       {found['memory_gb']:.1f} GB of memory, {found['disk_gb']:.1f} GB of disk",
        f"offline    the built-in worlds {'need no network' if hub['builtin'] else 'are NOT complete'}; "
        f"{len(hub['cached'])} hub repositories cached, HF_HUB_OFFLINE {'set' if hub['forced'] else 'not set'}",
        "",
        f"{'notebook':<30}{'profile':<9}{'time':>8}  {'memory':>8}  {'disk':>8}  fits",
    ]
    for row in found["notebooks"]:
        needs = row["needs"]
        time = (
            f"{needs['seconds'] / 60:.0f} min" if needs.get("seconds", 0) > 90 else f"{needs.get('seconds', 0):.0f} s"
        )
        sizes = "  ".join(f"{needs.get(name, 0):>5.1f} GB" for name in ("memory_gb", "disk_gb"))
        fits = "yes" if row["fits"] else "no: " + "; ".join(row["why"])
        took = row["measured"]
        if took:
            memory = f", {took['memory_gb']:.1f} GB" if "memory_gb" in took else ""
            fits += f" (measured here: {took['seconds']:.0f} s{memory})"
        lines.append(f"{row['notebook']:<30}{row['profile']:<9}{time:>8}  {sizes}  {fits}")
    lines += ["", *(f"stated too low: {line}" for line in found["understated"])] if found["understated"] else []
    lines += ["", *(f"problem: {problem}" for problem in found["problems"])] if found["problems"] else ["", "all well"]
    return "\n".join(lines)


def shortfalls(needs: Mapping[str, float], folder: Path, gpu_gb: float | None = None) -> list[str]:
    """What of `needs` this machine doesn't have now, a clause each. GPU memory is judged only when it is given."""
    has = {"memory": ("memory_gb", free_memory()), "disk": ("disk_gb", free_disk(folder))}
    if gpu_gb is not None:
        has["GPU memory"] = ("gpu_memory_gb", gpu_gb)
    return [
        f"needs {needs[key]:g} GB of {name}, " + (f"{free:.1f} GB are free" if free else "there is none")
        for name, (key, free) in has.items()
        if needs.get(key, 0) > free
    ]


def free_memory() -> float:
    """Memory in GB that a new process can have: what is available, within the limit of the container."""
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(statistics["inactive_file"])  # cache is given back
        free = min(free, int((group / "memory.max").read_text()) - used)
    except (OSError, ValueError, KeyError):  # not in a container, or one without a limit ("max")
        pass
    return max(free, 0) / GB


def free_disk(folder: Path) -> float:
    """Free space in GB where `folder` is, or would be made."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free / GB


def _packages() -> Iterator[dict[str, Any]]:
    from packaging.requirements import Requirement

    for asked in map(Requirement, metadata.requires("unlearnkit") or []):
        if asked.marker and not asked.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(asked.name)
        except metadata.PackageNotFoundError:
            found = None
        ok = found is not None and asked.specifier.contains(found, prereleases=True)
        yield {"name": asked.name, "wanted": str(asked.specifier), "found": found, "ok": ok}


def _device(problems: list[str]) -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    try:
        import torch

        from unlearnkit.models.load import device_of

        place = device_of()
        if place.type == "cuda":
            free, _ = torch.cuda.mem_get_info(place)
            bf16 = torch.cuda.is_bf16_supported()
            return {"kind": "cuda", "name": torch.cuda.get_device_name(place), "memory_gb": free / GB, "bf16": bf16}
        return {"kind": place.type, "name": name, "memory_gb": None, "bf16": False}
    except (ImportError, OSError, RuntimeError, AssertionError, UnlearnkitError) as error:
        problems.append(f"torch or its device doesn't work: {' '.join(str(error).split())[:300]}")
        return {"kind": "none", "name": name, "memory_gb": None, "bf16": False}


def _offline(problems: list[str], checkpoints: bool) -> dict[str, Any]:
    """Whether the built-in worlds and their models are all here, and what the hub's cache holds."""
    try:
        from unlearnkit.models.store import verify

        missing = [] if (data_dir() / "worlds").is_dir() else [f"{data_dir()} has no worlds; install again."]
        missing += verify() if checkpoints and not missing else []
    except (ImportError, OSError, ValueError, KeyError) as error:
        missing = [f"the model store can't be read: {' '.join(str(error).split())[:300]}"]
    problems += missing
    cached: list[str] = []
    try:
        from huggingface_hub import scan_cache_dir

        cached = sorted(repo.repo_id for repo in scan_cache_dir().repos)
    except Exception:  # no cache yet: every version of the hub says so by another error
        pass
    forced = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    return {"builtin": not missing, "cached": cached, "forced": forced}


def _records(runs: Path | str | None, problems: list[str]) -> list[Record]:
    try:
        return read_runs(runs)
    except UnlearnkitError as error:
        problems.append(str(error))
        return []


def _notebooks(device: Mapping[str, Any], problems: list[str], records: list[Record]) -> Iterator[dict[str, Any]]:
    """A row a notebook and profile, in the order of the series."""
    folder = notebooks_dir()
    rows = []
    for profile in profiles(folder):
        try:
            for notebook in read_profile(profile, folder):
                needs = needs_of(notebook, profile, folder)
                gpu = device["memory_gb"] or 0.0
                why = shortfalls(needs, Path.cwd(), gpu)
                took = measured(records, notebook, profile, folder)
                row = {"notebook": notebook, "profile": profile, "needs": needs, "fits": not why, "why": why}
                rows.append(row | {"measured": took})
        except UnlearnkitError as error:
            problems.append(str(error))
    if not rows and not problems:
        problems.append(f"there are no profiles in {folder}; check UNLEARNKIT_NOTEBOOKS.")
    order = {name: rank for rank, name in enumerate(("smoke", "quick", "full", "gpu"))}
    yield from sorted(rows, key=lambda row: (str(row["notebook"]), order.get(str(row["profile"]), 9)))
