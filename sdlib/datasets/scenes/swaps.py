"""What is nearly true of a scene: a claim with one attribute swapped, a scene with two exchanged.

Hard negatives for a contrastive loss, and questions to a judge: who reads a caption as a bag of
words cannot tell which of two is true (Yuksekgonul et al. 2023).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations

from sdlib.checks import pick, whole_number
from sdlib.datasets.scenes.captions import (
    NUMBERS,
    Claim,
    captioned,
    claims_held_out,
    in_words,
    satisfies,
)
from sdlib.datasets.scenes.palette import COLORS, PLACES, SUNSETS
from sdlib.datasets.scenes.things import THINGS
from sdlib.datasets.scenes.world import OPPOSITE, SIZES, TEXTURES, Draws, Scene, held_out, mix


def swap(scene: Scene, said: Claim, attribute: str, draws: Draws | None = None) -> Claim | None:
    """A claim like `said` but for one attribute, which is false of the scene.

    It says something: never that a thing is medium or solid, for which there are no words. It
    states no held-out combination that `said` does not, so that training never shows one, not even
    as false.

    Args:
        scene: what `said` is about.
        said: a claim that is true of it.
        attribute: a key of `SWAPS`.
        draws: what the swap is drawn from; by default the same for a scene each time.

    Returns:
        the claim, or None where there is none, as for the relation of a single thing.
    """
    draws = draws or Draws(mix(scene.key, 2))
    options, known = list(pick("attribute", SWAPS, attribute)(said)), set(claims_held_out(said))
    while options:
        found = options.pop(draws.below(len(options)))
        if not satisfies(scene, found) and known.issuperset(claims_held_out(found)):
            return found
    return None


def false_caption(scene: Scene, variant: int = 0, number: int = 0) -> str:
    """What `caption` says of a scene with one attribute swapped, in other words of the same kind.

    Args:
        scene, variant: as for `caption`.
        number: which of the swaps of that caption to take; as a rule they differ.
    """
    said = captioned(scene, variant)[1]
    draws = Draws(mix(scene.key, 2, variant, whole_number("number", number, 0)))
    attributes, found = list(SWAPS), None
    while found is None:  # there is always another place
        found = swap(scene, said, attributes.pop(draws.below(len(attributes))), draws)
    return in_words(found, draws)


def exchange_colors(scene: Scene) -> Scene | None:
    """The scene with the colors of its first two things exchanged; None where that is no change.

    None, too, where the result would show a held-out combination.
    """
    if not scene.relations:
        return None
    a, b, *rest = scene.things
    things = (replace(a, color=b.color), replace(b, color=a.color), *rest)
    changed = replace(scene, things=things)
    same = a.color == b.color or (a.kind, a.size, a.texture) == (b.kind, b.size, b.texture)
    return None if same or held_out(changed) else changed


# --- every way to change a claim in one attribute ---


def _mention(attribute: str, values: list) -> Callable[[Claim], Iterator[Claim]]:
    """Another value of an attribute of one mention; counts are swapped where there are several."""

    def ways(said: Claim) -> Iterator[Claim]:
        for i, mention in enumerate(said.mentions):
            if attribute == "number" and mention.number == 1:
                continue
            for value in values:
                if value != getattr(mention, attribute):
                    changed = replace(mention, **{attribute: value})
                    yield replace(said, mentions=_put(said.mentions, {i: changed}))

    return ways


def _binding(said: Claim) -> Iterator[Claim]:
    """The colors of two mentions, exchanged."""
    for (i, a), (j, b) in combinations(enumerate(said.mentions), 2):
        if a.color and b.color:
            changed = {i: replace(a, color=b.color), j: replace(b, color=a.color)}
            yield replace(said, mentions=_put(said.mentions, changed))


def _relation(said: Claim) -> Iterator[Claim]:
    """A relation turned into its opposite, with all others of its thing."""
    for a in dict.fromkeys(relation.a for relation in said.relations):
        turned = (r._replace(name=OPPOSITE[r.name]) if r.a == a else r for r in said.relations)
        yield replace(said, relations=tuple(turned))


def _place(said: Claim) -> Iterator[Claim]:
    """Another place; one that has a sunset, where one is stated."""
    for place in SUNSETS if said.sunset else PLACES:
        if place != said.place:
            yield replace(said, place=place)


def _put(items: tuple, changed: dict) -> tuple:
    return tuple(changed.get(i, item) for i, item in enumerate(items))


SWAPS: dict[str, Callable[[Claim], Iterator[Claim]]] = {
    "color": _mention("color", list(COLORS)),
    "kind": _mention("kind", list(THINGS)),
    "size": _mention("size", [size for size in SIZES if size != "medium"]),
    "texture": _mention("texture", [texture for texture in TEXTURES if texture != "solid"]),
    "count": _mention("number", list(NUMBERS)),
    "binding": _binding,
    "relation": _relation,
    "place": _place,
}
