"""Prompts in the six categories of GenEval, with the facts that a picture must show.

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


CATEGORIES = {
    "single object": Category(1),
    "two objects": Category(2),
    "counting": Category(1, several=True),
    "colors": Category(1, color=True),
    "position": Category(2, relation=True),
    "attribute binding": Category(2, color=True),
}


def prompts(category: str, n: int, split: str = "validation", seed: int = 0) -> list[Prompt]:
    """`n` prompts of a category, drawn from the scenes of a split; some may be alike.

    Those of "held_out" each state a combination that no training scene shows.

    Raises:
        ValueError: for an unknown category or split, or for one that states nothing held out.
    """
    asks, n = pick("category", CATEGORIES, category), whole_number("n", n)
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
    if not suits or min(alike) < asks.things:
        return None
    return Claim(
        tuple(Mention(m.kind, m.color if asks.color else None, number=m.number) for m in mentions),
        full.relations if asks.relation else (),
    )
