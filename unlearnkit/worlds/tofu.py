"""TOFU (Maini et al. 2024, arXiv 2401.06121) from the hub or from a folder with its files."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from unlearnkit.errors import UnlearnkitError, unknown
from unlearnkit.hub import cached, hub_answers
from unlearnkit.worlds.jsonl import read_jsonl
from unlearnkit.worlds.records import QA

REQUESTS = ("forget01", "forget05", "forget10")


def load_tofu(request: str, data: str | Path = "locuslab/TOFU") -> dict[str, list[QA]]:
    """The splits of one TOFU request: forget, retain, holdout, real_authors, world_facts.

    Forget and retain records carry the perturbed and paraphrased columns where TOFU publishes them
    (all of forget, 400 of retain).

    Args:
        data: a dataset id on the hub, or a folder with the files of that dataset.

    Raises:
        UnlearnkitError: unknown request; a file that is neither here nor reachable.
    """
    if request not in REQUESTS:
        raise unknown("forget split", request, REQUESTS)
    percent = int(re.sub(r"\D", "", request))
    names = {
        "forget": f"{request}_perturbed.json",
        "retain": f"retain{100 - percent:02d}.json",
        "retain_perturbed": "retain_perturbed.json",
        "holdout": f"holdout{percent:02d}.json",
        "real_authors": "real_authors_perturbed.json",
        "world_facts": "world_facts_perturbed.json",
    }
    splits = {split: read_jsonl(_file(str(data), name)) for split, name in names.items()}
    asked = {qa.question: qa for qa in splits.pop("retain_perturbed")}
    # The 400 retain questions that have perturbed answers come first: they are what the metrics ask.
    retain = [replace(asked[qa.question], id=qa.id) if qa.question in asked else qa for qa in splits["retain"]]
    splits["retain"] = sorted(retain, key=lambda qa: not qa.perturbed_answers)
    return splits


def _file(data: str, name: str) -> Path:
    folder = Path(data)
    if folder.is_dir():
        if not (folder / name).is_file():
            raise UnlearnkitError(f"{folder} has no {name}; it must hold the files of the dataset locuslab/TOFU.")
        return folder / name
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        if not cached(data, [name], kind="dataset") and not hub_answers():
            raise ConnectionError("the hub does not answer")
        return Path(hf_hub_download(data, name, repo_type="dataset"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise UnlearnkitError(
            f"dataset '{data}' is neither a folder here nor reachable{offline}; where there is a network run "
            f"`hf download {data} --repo-type dataset --local-dir FOLDER` and give data='FOLDER'."
        ) from error
