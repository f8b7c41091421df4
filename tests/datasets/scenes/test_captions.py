from itertools import product

import pytest

from sdlib.datasets import scenes
from sdlib.datasets.scenes import Claim, Mention, Relation, Scene, Thing
from sdlib.datasets.scenes.captions import ADJECTIVES, LONGEST, NOUNS, PLURALS, STANDS

TRAIN = [scenes.scene(i) for i in range(2000)]
HELD_OUT = [scenes.scene(i, "held_out") for i in range(500)]

HOUSE = Thing("house", "red", "medium", "striped", 15, 30)
STAR = Thing("star", "blue", "small", "solid", 45, 31)
BOAT = Thing("boat", "green", "medium", "solid", 30, 30)
FISH = Thing("fish", "purple", "large", "solid", 30, 20)
RING = Thing("ring", "yellow", "medium", "solid", 31, 50)
STARS = [Thing("star", "green", "medium", "solid", x, y) for x, y in ((15, 15), (48, 15), (48, 48))]


@pytest.mark.parametrize(
    "one, text",
    [
        (
            Scene("night", False, (HOUSE, STAR), (Relation(0, "left of", 1),)),
            "a striped red house left of a small blue star, at night",
        ),
        (Scene("paper", False, tuple(STARS)), "three green stars"),
        (Scene("sea", True, (BOAT,)), "a boat on the sea at sunset"),
        (
            Scene("snow", False, (FISH, RING), (Relation(0, "above", 1),)),
            "a large purple fish above a yellow ring",
        ),
    ],
)
def test_the_grammar_has_these(one, text):
    assert text in {scenes.caption(one, variant) for variant in range(3000)}


def test_full_captions_say_everything_in_fixed_words():
    tree = Thing("tree", "orange", "small", "outlined", 30, 50)
    things, below = (HOUSE, STAR, tree), (Relation(2, "below", 0), Relation(2, "below", 1))
    one = Scene("sea", True, things, (Relation(0, "left of", 1), *below))
    assert scenes.full_caption(one) == (
        "a striped red house left of a small blue star, "
        "a small outlined orange tree below them, on the sea at sunset"
    )
    said = {}
    for one in TRAIN:
        assert said.setdefault(scenes.full_caption(one), scenes.claim(one)) == scenes.claim(one)


def test_captions_are_plain_short_and_varied():
    texts = [scenes.caption(one, v) for one in TRAIN for v in (0, 1)]
    texts += map(scenes.full_caption, TRAIN)
    for text in texts:
        assert text == text.lower().strip() and "  " not in text
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyz ,")
        assert len(text.split()) <= LONGEST == 24
    assert scenes.caption(TRAIN[0], 1) == scenes.caption(TRAIN[0], 1)
    assert len({scenes.caption(TRAIN[0], v) for v in range(50)}) > 20


def test_articles_and_plurals():
    for noun in (noun for nouns in NOUNS.values() for noun in nouns):
        plural = PLURALS.get(noun, noun + "s")
        assert plural.endswith(("s", "fish")) and not plural.endswith(("ys", "xs", "sss", "shs"))
    assert scenes.words(Claim((Mention("cat", "orange"),))) == "an orange cat"
    assert scenes.words(Claim((Mention("cross", "red", number=4),))) == "four red crosses"


def test_some_captions_say_less_and_all_say_what_is_true():
    less = 0
    for one in TRAIN + HELD_OUT:
        _, said = scenes.captioned(one)
        assert scenes.satisfies(one, said) and scenes.satisfies(one, scenes.claim(one))
        whole = scenes.claim(one)
        details = [(m.color, f.color) for m, f in zip(said.mentions, whole.mentions, strict=True)]
        less += said.place is None or any(a != b for a, b in details)
    assert 0.2 < less / len(TRAIN + HELD_OUT) < 0.4


def test_claims_that_are_false_are_found_out():
    one = Scene("night", False, (HOUSE, STAR), (Relation(0, "left of", 1),))
    house, star = Mention("house", "red"), Mention("star", "blue")
    true = Claim((star, house), (Relation(0, "right of", 1),), "night", False)
    assert scenes.satisfies(one, true)
    for false in (
        Claim((star, house), (Relation(0, "left of", 1),)),
        Claim((Mention("star", "red"), Mention("house", "blue"))),
        Claim((star, house), place="sea"),
        Claim((star, house), sunset=True),
        Claim((Mention("star", "blue", "large"),)),
        Claim((Mention("house", "red", texture="dotted"),)),
        Claim((star, star)),
        Claim((Mention("cat"),)),
    ):
        assert not scenes.satisfies(one, false), false
    three = Scene("paper", False, tuple(STARS))
    assert [scenes.satisfies(three, Claim((Mention("star", number=n),))) for n in (2, 3, 4)] == [
        False,
        True,
        False,
    ]


# --- captions read by themselves, as a stranger would ---

KIND = {noun: kind for kind, nouns in NOUNS.items() for noun in nouns}
KIND |= {PLURALS.get(noun, noun + "s"): kind for noun, kind in KIND.items()}
COLOR = {word: color for color in scenes.COLORS for word in ADJECTIVES.get(color, (color,))}
STAND = {word: name for name, words in STANDS.items() for word in words}


def tokens(text):
    """Nouns, colors and relations of a caption, in its order."""
    table = [("kind", KIND), ("color", COLOR), ("relation", STAND), ("them", {"them": "them"})]
    words, found = text.replace(",", " , ").split(), []
    while words:
        for length, (what, names) in product((4, 3, 2, 1), table):
            phrase = " ".join(words[:length])
            if phrase in names:
                found.append((what, names[phrase]))
                del words[:length]
                break
        else:
            del words[0]
    return found


def read(text):
    """The (kind, color) pairs and the (kind, left of or above, kind) triples of a caption."""
    mentions, color, stands = [], None, []
    for what, word in tokens(text):
        if what == "color":
            color = word
        elif what == "kind":
            mentions.append((word, color))
            color = None
        elif what == "relation":
            stands.append((word, len(mentions)))
    kinds, triples = [kind for kind, _ in mentions], set()
    for name, at in stands:
        if at == 0:  # left of a star, a house
            found = [(kinds[1], name, kinds[0])]
        elif at == len(kinds) and at == 3:  # a tree below them
            found = [(kinds[2], name, kinds[0]), (kinds[2], name, kinds[1])]
        else:
            found = [(kinds[at - 1], name, kinds[at])]
        for a, word, b in found:
            turned = {"right of": "left of", "below": "above"}
            triples.add((b, turned[word], a) if word in turned else (a, word, b))
    return {m for m in mentions if m[1]}, triples


def test_captions_are_read_as_they_were_meant():
    for one in TRAIN + HELD_OUT:
        for text, said in (
            (scenes.full_caption(one), scenes.claim(one)),
            scenes.captioned(one),
            scenes.captioned(one, 1),
        ):
            colored, triples = read(text)
            assert colored == {(m.kind, m.color) for m in said.mentions if m.color}, text
            claimed = set()
            for a, name, b in said.relations:
                if name in ("right of", "below"):
                    a, name, b = b, {"right of": "left of", "below": "above"}[name], a
                claimed.add((said.mentions[a].kind, name, said.mentions[b].kind))
            assert triples == claimed, text


def test_no_training_caption_states_what_is_held_out():
    for one in TRAIN + [scenes.scene(i, "validation") for i in range(500)]:
        for text in (scenes.full_caption(one), scenes.caption(one), scenes.caption(one, 1)):
            colored, triples = read(text)
            assert not colored & scenes.HELD_OUT_COLORS, text
            assert not triples & scenes.HELD_OUT_RELATIONS, text


def test_every_full_held_out_caption_states_some_of_it():
    for one in HELD_OUT:
        colored, triples = read(scenes.full_caption(one))
        assert colored & scenes.HELD_OUT_COLORS or triples & scenes.HELD_OUT_RELATIONS
