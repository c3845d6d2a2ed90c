"""What is held out stays out: no held-out picture is a trained one, and no trained fact follows from a held-out one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from unlearnkit.worlds import authors, split, training_items
from unlearnkit.worlds.canvas import canvas
from unlearnkit.worlds.records import GENERAL


def test_no_held_out_picture_equals_a_trained_one() -> None:
    for images, holdout, seed in ((4, 4, 0), (5, 5, 3), (4, 6, 1)):
        world = canvas(images, seed, holdout)
        trained = {image.tobytes() for image in world.trained.images}
        unseen = {image.tobytes() for image in world.holdout.images}
        assert len(trained) == 36 * images and len(unseen) == 36 * holdout
        assert not trained & unseen
        assert not set(world.trained.ids) & set(world.holdout.ids)


@settings(max_examples=25)
@given(st.integers(2, 12), st.integers(0, 12), st.integers(0, 5))
def test_what_is_trained_follows_from_trained_facts_alone(n_authors: int, holdout: int, seed: int) -> None:
    world = authors(n_authors, 20, seed, holdout)
    entity = {qa.id: qa.entity for qa in world.items}
    unseen = set(world.holdout_entities)
    assert not unseen & {*world.entities, GENERAL}
    for qa in world.items:
        assert qa.entity in unseen or not unseen & {entity[source] for source in qa.sources}, qa.id
    splits = split(world, world.entities[0])
    for oracle in (False, True):
        trained = training_items(splits, oracle)
        assert not unseen & {qa.entity for qa in trained}
        assert not unseen & {entity[source] for qa in trained for source in qa.sources}


def test_who_is_linked_to_a_held_out_author_has_no_fact_that_follows_from_it() -> None:
    """Half of the authors are held out, so that many links lead to them; those of their own lose nothing."""
    world = authors(12, 20, 0, 12)
    follows = {qa.sources[0] for qa in world.items if qa.relation == "two_hop"}
    links = [qa for qa in world.items if qa.primary and qa.id.endswith((".mentor", ".co_author"))]
    assert len(links) == 2 * 24
    away = [qa for qa in links if qa.entity in world.entities and qa.value in world.holdout_entities]
    assert 3 < len(away) < 21
    assert {qa.id for qa in links} - follows == {qa.id for qa in away}
