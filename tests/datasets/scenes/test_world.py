from itertools import combinations

import pytest

from sdlib.datasets import scenes
from sdlib.datasets.scenes import Relation, Scene, Thing
from sdlib.datasets.scenes.world import GAP, MARGIN, Draws, mix

TRAIN = [scenes.scene(i) for i in range(4000)]
VALIDATION = [scenes.scene(i, "validation") for i in range(1000)]
HELD_OUT = [scenes.scene(i, "held_out") for i in range(1000)]


def test_random_numbers_are_those_of_splitmix64():
    """The first outputs of the reference implementation for seed 1234567."""
    draws = Draws(1234567)
    assert [draws.below(2**64) for _ in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]
    assert mix(1, 2) != mix(2, 1)


def test_a_number_always_gives_the_same_scene():
    """Whatever else was drawn, and on every machine: change these only with the world."""
    assert scenes.scene(5) == TRAIN[5]
    assert scenes.scene(5, seed=1) != TRAIN[5]
    assert TRAIN[0] == Scene(
        place="meadow",
        sunset=True,
        things=(
            Thing("cat", "red", "medium", "outlined", 22.0, 45.5),
            Thing("house", "black", "medium", "dotted", 25.5, 16.5),
        ),
        relations=(Relation(0, "below", 1),),
        horizon=48,
        key=2558736989570252433,
    )
    assert len(set(TRAIN[:1000]) | set(VALIDATION)) == 2000


def test_every_word_of_the_world_occurs():
    things = [thing for one in TRAIN for thing in one.things]
    for attribute, table in (
        ("kind", scenes.THINGS),
        ("color", scenes.COLORS),
        ("size", scenes.SIZES),
        ("texture", scenes.TEXTURES),
    ):
        seen = [getattr(thing, attribute) for thing in things]
        assert set(seen) == set(table)
        assert all(seen.count(word) > len(seen) / len(table) / 3 for word in table)
    assert {one.place for one in TRAIN} == set(scenes.PLACES)
    assert {one.place for one in TRAIN if one.sunset} == set(scenes.SUNSETS)
    assert {r.name for one in TRAIN for r in one.relations} == set(scenes.RELATIONS)
    layouts = {(len(one.things), len(one.relations)) for one in TRAIN}
    assert layouts == {(1, 0), (2, 1), (3, 3), (2, 0), (3, 0), (4, 0)}


def test_things_are_inside_and_apart():
    for one in TRAIN + HELD_OUT:
        for t in one.things:
            half = scenes.SIZES[t.size] / 2
            assert MARGIN + half <= min(t.x, t.y) <= max(t.x, t.y) <= 64 - MARGIN - half
        for a, b in combinations(one.things, 2):
            reach = (scenes.SIZES[a.size] + scenes.SIZES[b.size]) / 2 + GAP
            assert max(abs(a.x - b.x), abs(a.y - b.y)) >= reach


def test_relations_are_clear():
    """Things in a relation stand apart on its axis and, if they are two, level on the other."""
    for one in TRAIN + HELD_OUT:
        for a, name, b in one.relations:
            a, b = one.things[a], one.things[b]
            assert scenes.holds(a, name, b) and not scenes.holds(b, name, a)
            apart, level = abs(a.x - b.x), abs(a.y - b.y)
            if name in ("above", "below"):
                apart, level = level, apart
            assert len(one.things) == 3 or level <= min(6, apart / 2)


def test_several_of_a_kind_are_alike_and_others_differ():
    for one in TRAIN:
        looks = [(t.kind, t.color, t.size, t.texture) for t in one.things]
        if one.relations:
            assert len({look[:2] for look in looks}) == len(looks)
        else:
            assert len(set(looks)) == 1


def pairs(one):
    return {(t.kind, t.color) for t in one.things} & scenes.HELD_OUT_COLORS


def triples(one):
    """Held-out relations by the centers alone."""
    shown = set()
    for a, b in combinations(one.things, 2):
        if a.x != b.x:
            left, right = (a, b) if a.x < b.x else (b, a)
            shown.add((left.kind, "left of", right.kind, abs(a.x - b.x)))
        if a.y != b.y:
            high, low = (a, b) if a.y < b.y else (b, a)
            shown.add((high.kind, "above", low.kind, abs(a.y - b.y)))
    return {s[:3] for s in shown if s[3] >= 27 and s[:3] in scenes.HELD_OUT_RELATIONS}


def test_no_training_scene_shows_what_is_held_out():
    assert not any(pairs(one) or triples(one) for one in TRAIN + VALIDATION)
    assert not any(scenes.held_out(one) for one in TRAIN + VALIDATION)


def test_every_held_out_scene_shows_some_of_it():
    shown = [scenes.held_out(one) for one in HELD_OUT]
    assert all(shown)
    everything = {combination for found in shown for combination in found}
    assert everything == scenes.HELD_OUT_COLORS | scenes.HELD_OUT_RELATIONS
    for one, found in zip(HELD_OUT, shown, strict=True):
        assert pairs(one) == {combination for combination in found if len(combination) == 2}


def test_what_is_held_out_is_spread_over_the_world():
    colors, relations = scenes.HELD_OUT_COLORS, scenes.HELD_OUT_RELATIONS
    assert {kind for kind, _ in colors} == set(scenes.THINGS)
    assert {color for _, color in colors} == set(scenes.COLORS)
    assert {a for a, _, _ in relations} == {b for _, _, b in relations} == set(scenes.THINGS)
    assert {name for _, name, _ in relations} == {"left of", "above"}


def test_held_out_knows_both_readings_of_a_relation():
    left = Thing("circle", "red", "small", "solid", 10, 30)
    right = Thing("fish", "red", "small", "solid", 40, 20)
    assert scenes.held_out(Scene("sea", False, (left, right)))
    assert scenes.held_out(Scene("sea", False, (right, left), (Relation(0, "right of", 1),)))
    swapped = Scene("sea", False, (Thing("fish", "red", "small", "solid", 10, 30),) + (left,))
    assert not scenes.held_out(swapped)


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="unknown split 'test'; choose one of: train, validation"):
        scenes.scene(0, "test")
    for bad in (-1, 1.5, True):
        with pytest.raises(ValueError, match="index must be a whole number, at least 0"):
            scenes.scene(bad)
    with pytest.raises(ValueError, match="unknown relation 'on'"):
        scenes.holds(TRAIN[0].things[0], "on", TRAIN[0].things[1])
