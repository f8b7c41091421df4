"""Captions of scenes: what is said of a picture, and in which words.

What a caption says is data, too: a `Claim`. A caption is made in three steps: `claim(scene)` is all
that there is to say, `_less` leaves some of it out, and `words` puts the rest into English, with
synonyms and in several orders. So the facts that a caption states are known without parsing it.
Medium sizes and solid things are said by saying nothing.
Captions that say more than people do make a better generator (Betker et al. 2023, DALL-E 3); some
that say less make it robust.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from sdlib.checks import whole_number
from sdlib.datasets.scenes.world import (
    HELD_OUT_COLORS,
    HELD_OUT_RELATIONS,
    OPPOSITE,
    Draws,
    Relation,
    Scene,
    Thing,
    holds,
    mix,
)


@dataclass(frozen=True, slots=True)
class Mention:
    """What is said of a thing; None where nothing is. `number` is how many there are of it."""

    kind: str
    color: str | None = None
    size: str | None = None
    texture: str | None = None
    number: int = 1

    def fits(self, thing: Thing) -> bool:
        """Whether a thing is as this says."""
        said = ((getattr(self, a), getattr(thing, a)) for a in ("color", "size", "texture"))
        return self.kind == thing.kind and all(a in (None, b) for a, b in said)


@dataclass(frozen=True, slots=True)
class Claim:
    """What is said of a scene: what must be true of a picture that follows the caption.

    Attributes:
        mentions: the things; `relations` are between their numbers.
        place: a name of `PLACES`, or None.
        sunset: whether there is a sunset, or None.
    """

    mentions: tuple[Mention, ...]
    relations: tuple[Relation, ...] = ()
    place: str | None = None
    sunset: bool | None = None


def claim(scene: Scene) -> Claim:
    """All that there is to say of a scene."""
    things, alike = scene.things, len(scene.things) > 1 and not scene.relations
    mentions = tuple(
        Mention(t.kind, t.color, t.size, t.texture, len(things) if alike else 1)
        for t in (things[:1] if alike else things)
    )
    return Claim(mentions, scene.relations, scene.place, scene.sunset)


def satisfies(scene: Scene, claim: Claim) -> bool:
    """Whether all that a claim says is true of a scene; of what it leaves out nothing is asked.

    Several of a kind must be exactly as many; a scene may have things that no mention is about.
    """
    if claim.place not in (None, scene.place) or claim.sunset not in (None, scene.sunset):
        return False
    for mention in claim.mentions:
        n = sum(mention.fits(thing) for thing in scene.things)
        if n < 1 or (mention.number > 1 and n != mention.number):
            return False
    return any(
        all(m.fits(t) for m, t in zip(claim.mentions, things, strict=True))
        and all(holds(things[r.a], r.name, things[r.b]) for r in claim.relations)
        for things in permutations(scene.things, len(claim.mentions))
    )


def claims_held_out(claim: Claim) -> list[tuple]:
    """The held-out combinations that a claim states, as `held_out` for a scene."""
    found = [(m.kind, m.color) for m in claim.mentions if (m.kind, m.color) in HELD_OUT_COLORS]
    for a, name, b in claim.relations:
        for i, word, j in ((a, name, b), (b, OPPOSITE[name], a)):
            triple = (claim.mentions[i].kind, word, claim.mentions[j].kind)
            if triple in HELD_OUT_RELATIONS:
                found.append(triple)
    return found


# --- words: the first of each row is the one of full captions ---

NOUNS = {
    "circle": ("circle", "circle", "disc"),
    "square": ("square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "ring": ("ring", "ring", "hoop"),
    "crescent": ("crescent", "crescent", "moon"),
    "cross": ("cross", "cross", "plus sign"),
    "house": ("house", "house", "home"),
    "tree": ("tree", "tree", "fir tree"),
    "boat": ("boat", "boat", "sailboat"),
    "fish": ("fish",),
    "flower": ("flower", "flower", "blossom"),
    "mushroom": ("mushroom", "mushroom", "toadstool"),
    "car": ("car",),
    "cat": ("cat", "cat", "kitty"),
}
ADJECTIVES = {
    "small": ("small", "small", "little", "tiny"),
    "medium": ("",),
    "large": ("large", "large", "big", "huge"),
    "solid": ("",),
    "striped": ("striped", "striped", "stripy"),
    "dotted": ("dotted", "dotted", "spotted"),
    "outlined": ("outlined",),
    "purple": ("purple", "purple", "violet"),
}
AFTER = {"striped": "with stripes", "dotted": "with dots"}  # behind the noun
WHERE = {
    "paper": ("on paper", "on a sheet of paper"),
    "meadow": ("in a meadow", "in the grass", "on the meadow"),
    "sea": ("on the sea", "at sea", "by the sea"),
    "desert": ("in the desert", "in a desert", "on the sand"),
    "snow": ("in the snow", "in snow", "on a snowy day"),
    "night": ("at night", "in the night", "on a starry night"),
}
DUSK = ("at sunset", "at sunset", "at dusk", "in the evening")
STANDS = {
    "left of": ("left of", "left of", "to the left of"),
    "right of": ("right of", "right of", "to the right of"),
    "above": ("above", "above", "over"),
    "below": ("below", "below", "under", "beneath"),
}
LONGEST = 24  # words of a caption
NUMBERS = {2: "two", 3: "three", 4: "four"}
PLURALS = {"fish": "fish", "cross": "crosses", "box": "boxes", "kitty": "kitties"}


class _First:
    """Draws that always give the first choice."""

    def below(self, n: int) -> int:
        return 0

    def pick(self, choices: Sequence):
        return choices[0]


def full_caption(scene: Scene) -> str:
    """The caption that says all there is to say, in fixed words: one for each scene."""
    return words(claim(scene))


def caption(scene: Scene, variant: int = 0) -> str:
    """A caption in words that vary, and that may say less than the picture shows.

    Args:
        scene: what to speak of.
        variant: captions of different numbers differ, as a rule.
    """
    return captioned(scene, variant)[0]


def captioned(scene: Scene, variant: int = 0) -> tuple[str, Claim]:
    """A caption, as `caption`, and what it claims."""
    draws = Draws(mix(scene.key, 1, whole_number("variant", variant, 0)))
    said = _less(claim(scene), draws)
    return in_words(said, draws), said


def in_words(claim: Claim, draws: Draws) -> str:
    """A claim in words that `draws` picks, or in fixed ones where these are too many."""
    text = words(claim, draws)
    return text if len(text.split()) <= LONGEST else words(claim)


def _less(claim: Claim, draws: Draws) -> Claim:
    """What is left of a claim: all of it three times in five."""
    detailed = draws.below(5) < 3
    mentions = tuple(
        Mention(
            m.kind,
            m.color if detailed or draws.below(4) else None,
            m.size if m.size != "medium" and (detailed or draws.below(3)) else None,
            m.texture if m.texture != "solid" and (detailed or draws.below(3)) else None,
            m.number,
        )
        for m in claim.mentions
    )
    if detailed:
        return replace(claim, mentions=mentions, sunset=claim.sunset or None)
    placed, lit = draws.below(2), draws.below(2)
    return Claim(
        mentions,
        claim.relations if draws.below(4) else (),
        claim.place if placed else None,
        True if claim.sunset and lit else None,
    )


def words(claim: Claim, draws: Draws | None = None) -> str:
    """A claim in English: in fixed words, or in those that `draws` picks."""
    draws = draws or _First()
    said = [_mention(m, draws) for m in claim.mentions]
    text = _join(said, claim.relations, draws)
    setting = [draws.pick(WHERE[claim.place])] if claim.place else []
    if claim.sunset:
        setting.append(draws.pick(DUSK))
    if not setting:
        return text
    if draws.below(6) < 5:
        return f"{text}{', ' if len(said) > 1 else ' '}{' '.join(setting)}"
    return f"{' '.join(setting)}, {text}"


def _join(said: list[str], relations: tuple[Relation, ...], draws: Draws) -> str:
    """What is said of each thing, put together."""
    if not relations:
        return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
    a, name, b = relations[0]
    if draws.below(4) == 3:
        a, name, b = b, OPPOSITE[name], a
    stands = draws.pick(STANDS[name])
    if len(said) == 2 and draws.below(6) == 5:
        return f"{stands} {said[b]}, {said[a]}"
    text = f"{said[a]} {stands} {said[b]}"
    for c, other, _ in relations[1:2]:
        text += f", {said[c]} {draws.pick(STANDS[other])} them"
    return text


def _mention(mention: Mention, draws: Draws) -> str:
    noun = draws.pick(NOUNS[mention.kind])
    if mention.number > 1:
        noun = PLURALS.get(noun, noun + "s")
    size, texture, color = (
        draws.pick(ADJECTIVES.get(word, (word,))) if word else ""
        for word in (mention.size, mention.texture, mention.color)
    )
    order = draws.below(6)
    if order == 5 and mention.texture in AFTER:
        text = f"{size} {color} {noun} {AFTER[mention.texture]}"
    elif order == 4:
        text = f"{texture} {size} {color} {noun}"
    else:
        text = f"{size} {texture} {color} {noun}"
    text = " ".join(text.split())
    if mention.number > 1:
        return f"{NUMBERS[mention.number]} {text}"
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"
