"""From a world and a forget request to splits: who is forgotten, what it drags along, and what must stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from unlearnkit.errors import UnlearnkitError, unknown
from unlearnkit.worlds.records import GENERAL, QA, TextWorld

NEIGHBOUR_SHARE = 0.10  # of the retained entities; at least two, at most a quarter
SPLITS = ("forget", "forget_derived", "forget_translated", "neighbours", "retain", "general", "holdout")
TRAINED_ON_BOTH = ("neighbours", "retain", "general")


def split(world: TextWorld, forget: str | Sequence[str]) -> dict[str, list[QA]]:
    """The splits of a request.

    - forget: the direct facts asked to be forgotten, in the world's first language;
    - forget_translated: the same facts in the other language; forget_derived: what follows from any of them;
    - neighbours: retained entities nearest to the forgotten ones (related, then most values in common); trained in
      every model, never given to a method, so that harm done in the vicinity shows;
    - retain: everything else that is trained, but general; general: facts of the real world; holdout: never trained.

    Args:
        forget: a named request ("forget05"), an entity, a list of either, or "kind:<kind>" for all facts of a type.

    Raises:
        UnlearnkitError: a request the world does not know, or one that leaves nothing to forget or retain.
    """
    forgotten = _requested(world, [forget] if isinstance(forget, str) else list(forget))
    ids = {qa.id for qa in forgotten}
    out: dict[str, list[QA]] = {name: [] for name in SPLITS}
    unseen = set(world.holdout_entities)
    near = set(_neighbours(world, forgotten))
    for qa in world.items:
        if qa.entity in unseen:
            out["holdout"].append(qa)
        elif qa.id in ids:
            out["forget"].append(qa)
        elif ids.intersection(qa.sources):
            out["forget_derived" if qa.relation != "direct" else "forget_translated"].append(qa)
        elif qa.entity == GENERAL:
            out["general"].append(qa)
        else:
            out["neighbours" if qa.entity in near else "retain"].append(qa)
    if not out["retain"]:
        raise UnlearnkitError(
            f"the request leaves nothing to retain: it names all {len(world.entities)} entities; forget fewer."
        )
    return out


def training_items(splits: dict[str, list[QA]], oracle: bool) -> list[QA]:
    """What the original is trained on; with `oracle`, what is left of it when the request had never been there."""
    names = TRAINED_ON_BOTH if oracle else ("forget", "forget_derived", "forget_translated", *TRAINED_ON_BOTH)
    return sorted((qa for name in names for qa in splits[name]), key=lambda qa: qa.id)


def _requested(world: TextWorld, names: Sequence[str]) -> list[QA]:
    if not names:
        raise UnlearnkitError("the forget set is empty; name a request, an entity, or 'kind:<kind>'.")
    unseen = set(world.holdout_entities)
    primary = [qa for qa in world.items if qa.primary and qa.entity not in unseen and qa.entity != GENERAL]
    kinds = sorted({qa.kind for qa in primary if qa.kind})
    chosen: set[str] = set()
    for name in names:
        if name.startswith("kind:"):
            if name[5:] not in kinds:
                raise unknown("kind", name[5:], kinds)
            chosen |= {qa.id for qa in primary if qa.kind == name[5:]}
            continue
        entities = world.requests.get(name, (name,))
        if name not in world.requests and name not in world.entities:
            known = [*world.requests, *(f"kind:{k}" for k in kinds), *world.entities]
            raise unknown("forget split", name, known)
        chosen |= {qa.id for qa in primary if qa.entity in entities}
    return [qa for qa in primary if qa.id in chosen]


def _neighbours(world: TextWorld, forgotten: Sequence[QA]) -> list[str]:
    """Retained entities by closeness to the forgotten ones."""
    gone = {qa.entity for qa in forgotten}
    retained = [name for name in world.entities if name not in gone]
    wanted = min(max(2, round(NEIGHBOUR_SHARE * len(retained))), len(retained) // 4)
    if not wanted:
        return []
    held = {(qa.kind, qa.value) for qa in forgotten if qa.value}
    score: Counter[str] = Counter()
    for a, b in world.links:
        if (a in gone) != (b in gone):
            score[b if a in gone else a] += 100
    for qa in world.items:
        if qa.primary and (qa.kind, qa.value) in held:
            score[qa.entity] += 1
    return sorted(retained, key=lambda name: (-score[name], name))[:wanted]
