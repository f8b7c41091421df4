"""What a scene is, and how one is drawn at random.

A scene is plain data: a place, one to four things, and how these stand to one another. The picture
(`sdlib.datasets.scenes.renderer`) and the captions (`sdlib.datasets.scenes.captions`) are both made
of it, so that a judge knows what must be seen. Lengths are in pixels of a picture of 64 x 64.

Some combinations are held out: no scene of the splits "train" and "validation" shows them, and
every scene of "held_out" shows at least one. So a model can be asked for what it has never seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count as counter
from itertools import permutations
from typing import NamedTuple

from sdlib.checks import pick, whole_number
from sdlib.datasets.scenes.palette import COLORS, PLACES, SUNSETS
from sdlib.datasets.scenes.things import THINGS

FRAME = 64  # the side of a picture
MARGIN = 1.5  # what stays free at its border
GAP = 4  # and between two things
HORIZONS = (36, 40, 44, 48)  # the height of the horizon, from the top

SIZES = {"small": 15, "medium": 20, "large": 27}
TEXTURES = ("solid", "striped", "dotted", "outlined")
RELATIONS = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
SPLITS = ("train", "validation", "held_out")
LAYOUTS = ("one",) * 6 + ("two",) * 8 + ("three",) * 3 + ("several",) * 3  # with their shares

HELD_OUT_COLORS = {
    ("circle", "brown"),
    ("square", "purple"),
    ("triangle", "white"),
    ("star", "pink"),
    ("heart", "black"),
    ("ring", "orange"),
    ("crescent", "red"),
    ("cross", "yellow"),
    ("house", "blue"),
    ("tree", "purple"),
    ("boat", "pink"),
    ("fish", "white"),
    ("flower", "black"),
    ("mushroom", "blue"),
    ("car", "brown"),
    ("cat", "green"),
}
HELD_OUT_RELATIONS = {
    ("circle", "left of", "fish"),
    ("square", "above", "crescent"),
    ("triangle", "left of", "cat"),
    ("star", "above", "boat"),
    ("heart", "left of", "mushroom"),
    ("ring", "above", "tree"),
    ("crescent", "left of", "square"),
    ("cross", "above", "heart"),
    ("house", "left of", "flower"),
    ("tree", "above", "car"),
    ("boat", "left of", "star"),
    ("fish", "above", "ring"),
    ("flower", "left of", "triangle"),
    ("mushroom", "above", "cross"),
    ("car", "left of", "house"),
    ("cat", "above", "circle"),
}


class Relation(NamedTuple):
    """Thing number `a` of a scene is `name` (left of, ...) thing number `b`."""

    a: int
    name: str
    b: int


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing: what it is, how it looks, and where its center is (x to the right, y down)."""

    kind: str
    color: str
    size: str
    texture: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture as data.

    Attributes:
        place: a name of `PLACES`, where everything is.
        sunset: whether the sun is going down.
        things: one to three that differ, or two to four alike.
        relations: those that a caption may state.
        horizon: its height, a number of `HORIZONS`.
        key: what the captions are drawn from.
    """

    place: str
    sunset: bool
    things: tuple[Thing, ...]
    relations: tuple[Relation, ...] = ()
    horizon: int = HORIZONS[1]
    key: int = 0


# --- random numbers ---

_MASK = 2**64 - 1


def mix(*numbers: int) -> int:
    """A number of 64 bits that depends on all of these in a way that looks random."""
    state = 0
    for number in numbers:
        state = Draws(state ^ number).below(2**64)
    return state


class Draws:
    """Random whole numbers by SplitMix64 (Steele et al. 2014): the same on every machine."""

    def __init__(self, key: int):
        self.state = key

    def below(self, n: int) -> int:
        """A number from 0 to n - 1."""
        self.state = z = self.state + 0x9E3779B97F4A7C15 & _MASK
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
        return (z ^ z >> 31) * n >> 64

    def pick(self, choices: Sequence):
        return choices[self.below(len(choices))]

    def between(self, low: float, high: float) -> float:
        """A position from `low` to `high`, in steps of half a pixel from `low`."""
        return low + self.below(int(2 * (high - low)) + 1) / 2


# --- drawing a scene ---


def scene(index: int, split: str = "train", seed: int = 0) -> Scene:
    """The scene with this number: a function of (seed, split, index) alone.

    Raises:
        ValueError: for an unknown split, or an index or seed below 0.
    """
    number = pick("split", {name: i for i, name in enumerate(SPLITS)}, split)
    key = mix(whole_number("seed", seed, 0), number, whole_number("index", index, 0))
    for attempt in counter():
        draws = Draws(mix(key, attempt))
        made = _draw(draws, key, split == "held_out")
        if split == "held_out" or not held_out(made):
            return made


_KINDS, _COLORS, _SIZES = tuple(THINGS), tuple(COLORS), tuple(SIZES)
_TEXTURES = ("solid",) + TEXTURES  # solid twice as often as any other
_PLACES = tuple(PLACES)
_PAIRS, _TRIPLES = sorted(HELD_OUT_COLORS), sorted(HELD_OUT_RELATIONS)


def _draw(draws: Draws, key: int, unseen: bool) -> Scene:
    """A scene, with a combination that is held out if `unseen`."""
    layout, name = draws.pick(LAYOUTS), draws.pick(tuple(RELATIONS))
    pair = triple = None
    if unseen and draws.below(2):
        pair = draws.pick(_PAIRS)
    elif unseen:
        triple = draws.pick(_TRIPLES)
        layout, name = draws.pick(("two", "two", "three")), triple[1]
    n = {"one": 1, "two": 2, "three": 3, "several": 1}[layout]
    looks = []
    while len(looks) < n:
        kind, color = draws.pick(_KINDS), draws.pick(_COLORS)
        if triple and len(looks) < 2:
            kind = triple[2 * len(looks)]
        elif pair and not looks:
            kind, color = pair
        if all((kind, color) != look[:2] for look in looks):
            looks.append((kind, color, draws.pick(_SIZES), draws.pick(_TEXTURES)))
    if layout == "several":
        looks *= 2 + draws.below(3)
    place = draws.pick(_PLACES)
    sunset = place in SUNSETS and not draws.below(3)
    centers, relations = _arrange(draws, layout, [SIZES[look[2]] for look in looks], name)
    things = tuple(Thing(*look, *at) for look, at in zip(looks, centers, strict=True))
    return Scene(place, sunset, things, relations, draws.pick(HORIZONS), key)


def _arrange(
    draws: Draws, layout: str, sizes: list[float], name: str
) -> tuple[list[tuple[float, float]], tuple[Relation, ...]]:
    """Centers of things of these sizes, and how they stand to one another."""
    if layout == "one":
        return [(_within(draws, sizes[0]), _within(draws, sizes[0]))], ()
    if layout == "several":  # in the cells of a board of 2 x 2
        cell = (FRAME - 2 * MARGIN - GAP) / 2
        spots = list(range(4))
        while len(spots) > len(sizes):
            spots.pop(draws.below(len(spots)))
        starts = (MARGIN, MARGIN + cell + GAP)
        return [
            tuple(_within(draws, size, starts[i], cell) for i in (spot % 2, spot // 2))
            for spot, size in zip(spots, sizes, strict=True)
        ], ()
    axis, sign = RELATIONS[name]
    slack = 1 if layout == "three" else 3  # how far from level the first two may be, each way
    first, second = _apart(draws, *sizes[:2], sign)
    level, thick = 0.0, max(sizes[:2]) + 2 * slack
    relations = (Relation(0, name, 1),)
    if layout == "two":
        level = _within(draws, thick)
    else:
        other = draws.pick([r for r, (a, _) in RELATIONS.items() if a != axis])
        third, level = _apart(draws, sizes[2], thick, RELATIONS[other][1])
        relations += (Relation(2, other, 0), Relation(2, other, 1))
    centers = [
        (first, level + draws.below(4 * slack + 1) / 2 - slack),
        (second, level + draws.below(4 * slack + 1) / 2 - slack),
    ]
    if layout == "three":
        low, high = sorted((first, second))
        half = MARGIN + sizes[2] / 2
        centers.append((draws.between(max(low, half), min(high, FRAME - half)), third))
    return [at if axis == 0 else at[::-1] for at in centers], relations


def _within(
    draws: Draws, size: float, start: float = MARGIN, room: float = FRAME - 2 * MARGIN
) -> float:
    """Where the center of a thing may be that has this much room from `start`."""
    return draws.between(start + size / 2, start + room - size / 2)


def _apart(draws: Draws, a: float, b: float, sign: int) -> tuple[float, float]:
    """Centers on a line of a thing of size `a` and one of size `b`, the first first if sign > 0."""
    if sign < 0:
        return _apart(draws, b, a, 1)[::-1]
    free = int(2 * (FRAME - 2 * MARGIN - a - b - GAP))  # in half pixels, to be left in three parts
    left, right = sorted((draws.below(free + 1), draws.below(free + 1)))
    return MARGIN + a / 2 + left / 2, MARGIN + a + GAP + b / 2 + right / 2


# --- what is true in a scene ---


def holds(a: Thing, name: str, b: Thing) -> bool:
    """Whether `a` is left of, right of, above or below `b`, with free space between the two."""
    axis, sign = pick("relation", RELATIONS, name)
    away = (b.x - a.x, b.y - a.y)[axis] * sign
    return away >= (SIZES[a.size] + SIZES[b.size]) / 2


def held_out(scene: Scene) -> list[tuple]:
    """The held-out combinations that a scene shows: (kind, color) and (kind, relation, kind).

    A relation counts wherever two things stand so, also where the scene does not name it.
    """
    things = scene.things
    shown = [(t.kind, t.color) for t in things if (t.kind, t.color) in HELD_OUT_COLORS]
    for a, b in permutations(things, 2):
        for name in ("left of", "above"):
            if (a.kind, name, b.kind) in HELD_OUT_RELATIONS and holds(a, name, b):
                shown.append((a.kind, name, b.kind))
    return shown
