"""What is nearly true: false of its scene, different in one attribute, nothing held out."""

from dataclasses import replace

import pytest

from sdlib.datasets import scenes
from sdlib.datasets.scenes.captions import LONGEST, claims_held_out
from sdlib.datasets.scenes.world import Draws, Relation, Scene, Thing
from tests.datasets.scenes.test_captions import read

TRAIN = [scenes.scene(i) for i in range(150)]
RED = Thing("house", "red", "large", "solid", 15, 20)
BLUE = Thing("star", "blue", "small", "solid", 50, 20)
TWO = Scene("sea", True, (RED, BLUE), (Relation(0, "left of", 1),))
THREE = [one for one in TRAIN if len(one.relations) == 3]


def changes(said, swapped):
    """Which attributes of the mentions, and what else, two claims differ in."""
    found = [
        name
        for a, b in zip(said.mentions, swapped.mentions, strict=True)
        for name in ("kind", "color", "size", "texture", "number")
        if getattr(a, name) != getattr(b, name)
    ]
    others = ("relations", "place", "sunset")
    return found + [name for name in others if getattr(said, name) != getattr(swapped, name)]


DIFFER = {name: [name] for name in ("color", "kind", "size", "texture", "place")}
DIFFER |= {"count": ["number"], "binding": ["color", "color"], "relation": ["relations"]}


@pytest.mark.parametrize("attribute", scenes.SWAPS)
def test_one_attribute_is_swapped_and_what_is_said_is_false(attribute):
    found = 0
    for one in TRAIN:
        said = scenes.claim(one)
        swapped = scenes.swap(one, said, attribute)
        if swapped:
            assert not scenes.satisfies(one, swapped)
            assert not claims_held_out(swapped)
            assert changes(said, swapped) == DIFFER[attribute]
            assert scenes.words(swapped) != scenes.words(said)
            assert swapped == scenes.swap(one, said, attribute)
            found += 1
    assert found > (10 if attribute == "count" else 50)


def test_swaps_by_hand():
    def swapped(attribute):
        found = scenes.swap(TWO, scenes.claim(TWO), attribute)
        return found and scenes.words(found)

    text = "a large red house left of a small blue star, on the sea at sunset"
    assert scenes.full_caption(TWO) == text
    assert swapped("relation") == text.replace("left of", "right of")
    assert swapped("count") is None
    assert swapped("place").split(", ")[1] in (
        "in a meadow at sunset",
        "in the desert at sunset",
        "in the snow at sunset",
    )
    assert swapped("binding") is None  # a blue house is held out


def test_a_thing_beside_two_others_is_turned_from_both():
    one, seen = THREE[0], set()
    before = [relation.name for relation in one.relations]
    for number in range(20):
        swapped = scenes.swap(one, scenes.claim(one), "relation", Draws(number))
        seen.add(tuple(r.name != name for r, name in zip(swapped.relations, before, strict=True)))
    assert seen == {(True, False, False), (False, True, True)}


def test_unknown_attributes_are_refused():
    with pytest.raises(ValueError, match="unknown attribute 'colour'; choose one of: color, kind"):
        scenes.swap(TWO, scenes.claim(TWO), "colour")


def test_false_captions_vary_and_state_nothing_held_out():
    for one in TRAIN:
        text = scenes.false_caption(one)
        assert text == scenes.false_caption(one) != scenes.caption(one)
        assert len(text.split()) <= LONGEST
        colored, triples = read(text)
        assert not colored & scenes.HELD_OUT_COLORS, text
        assert not triples & scenes.HELD_OUT_RELATIONS, text
    assert len({scenes.false_caption(TWO, number=k) for k in range(30)}) > 15


def test_exchanged_colors():
    other = scenes.exchange_colors(TWO)
    assert other is None  # a blue house is held out
    green = replace(TWO, things=(RED, replace(BLUE, color="green")))
    other = scenes.exchange_colors(green)
    assert [t.color for t in other.things] == ["green", "red"]
    assert [(t.kind, t.x) for t in other.things] == [(t.kind, t.x) for t in green.things]
    made = [scenes.exchange_colors(one) for one in TRAIN]
    assert 40 < sum(one is not None for one in made) < 100
    for one, other in zip(TRAIN, made, strict=True):
        if other:
            assert not scenes.held_out(other)
            assert not scenes.satisfies(one, scenes.claim(other))
