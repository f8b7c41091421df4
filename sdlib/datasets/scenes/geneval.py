"""Prompts in the six categories of GenEval and three more, with what a picture must show.

Ghosh et al. 2023 (GenEval) ask a detector whether a generated picture has the objects, the counts,
the colors and the positions that its prompt states. Here a prompt carries them as a `Claim`, and
`satisfies` judges what was read from a picture.
"""

from dataclasses import dataclass
from itertools import count as counter
from typing import NamedTuple

from sdlib.checks import pick, whole_number
from sdlib.datasets.scenes.captions import Claim, Mention, claim, claims_held_out, words
from sdlib.datasets.scenes.world import scene


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text, its category, and what must be true of a picture of it."""

    text: str
    category: str
    claim: Claim


class Category(NamedTuple):
    """What the prompts of a category speak of."""

    things: int
    several: bool = False  # of a kind
    color: bool = False
    relation: bool = False
    size: bool = False  # small or large
    texture: bool = False  # any but solid
    place: bool = False  # with its sunset, if there is one


CATEGORIES = {
    "single object": Category(1),
    "two objects": Category(2),
    "counting": Category(1, several=True),
    "colors": Category(1, color=True),
    "position": Category(2, relation=True),
    "attribute binding": Category(2, color=True),
}
EXTRAS = {  # what GenEval does not ask for
    "size": Category(1, size=True),
    "texture": Category(1, texture=True),
    "place": Category(1, place=True),
}


def prompts(category: str, n: int, split: str = "validation", seed: int = 0) -> list[Prompt]:
    """`n` prompts of a category (or of `EXTRAS`), drawn from a split; some may be alike.

    Those of "held_out" each state a combination that no training scene shows.

    Raises:
        ValueError: for an unknown category or split, or for one that states nothing held out.
    """
    asks, n = pick("category", CATEGORIES | EXTRAS, category), whole_number("n", n)
    unseen = split == "held_out"
    if unseen and not (asks.color or asks.relation):
        raise ValueError(
            f"the prompts of {category!r} state no combination that is held out; "
            "take colors, position or attribute binding, or another split."
        )
    found = []
    for index in counter():
        said = _ask(claim(scene(index, split, seed)), asks)
        if said and (not unseen or claims_held_out(said)):
            found.append(Prompt(words(said), category, said))
        if len(found) == n:
            return found


def _ask(full: Claim, asks: Category) -> Claim | None:
    """What of a scene a category speaks of; None if the scene does not suit."""
    mentions = full.mentions
    alike = [len({m.kind for m in mentions}), len({m.color for m in mentions})]
    suits = len(mentions) == asks.things and (mentions[0].number > 1) == asks.several
    plain = (asks.size and mentions[0].size == "medium") or (
        asks.texture and mentions[0].texture == "solid"
    )  # which words leave unsaid
    if not suits or plain or min(alike) < asks.things:
        return None
    said = tuple(
        Mention(
            m.kind,
            m.color if asks.color else None,
            m.size if asks.size else None,
            m.texture if asks.texture else None,
            m.number,
        )
        for m in mentions
    )
    return Claim(
        said,
        full.relations if asks.relation else (),
        full.place if asks.place else None,
        (full.sunset or None) if asks.place else None,
    )
