"""Scenes: a small painted world with captions, drawn by code, without end.

    from sdlib.datasets import scenes

    one = scenes.scene(7)                       # data: a place, things, how they stand
    scenes.caption(one)                         # "a striped red house left of a small blue star"
    pixels, captions, made = scenes.batch(range(64))

`world` says what a scene is and draws it, `renderer` paints it, `captions` describes it, `swaps`
makes what is nearly true of it, and `geneval` makes prompts whose facts a judge can check.
"""

from sdlib.datasets.scenes.captions import (
    Claim,
    Mention,
    caption,
    captioned,
    claim,
    full_caption,
    satisfies,
    words,
)
from sdlib.datasets.scenes.geneval import CATEGORIES, EXTRAS, Prompt, prompts
from sdlib.datasets.scenes.palette import COLORS, PLACES, SUNSETS
from sdlib.datasets.scenes.renderer import batch, render
from sdlib.datasets.scenes.swaps import SWAPS, exchange_colors, false_caption, swap
from sdlib.datasets.scenes.things import THINGS
from sdlib.datasets.scenes.world import (
    HELD_OUT_COLORS,
    HELD_OUT_RELATIONS,
    RELATIONS,
    SIZES,
    SPLITS,
    TEXTURES,
    Relation,
    Scene,
    Thing,
    held_out,
    holds,
    scene,
)

__all__ = [
    "CATEGORIES",
    "COLORS",
    "EXTRAS",
    "HELD_OUT_COLORS",
    "HELD_OUT_RELATIONS",
    "PLACES",
    "RELATIONS",
    "SIZES",
    "SPLITS",
    "SUNSETS",
    "SWAPS",
    "TEXTURES",
    "THINGS",
    "Claim",
    "Mention",
    "Prompt",
    "Relation",
    "Scene",
    "Thing",
    "batch",
    "caption",
    "captioned",
    "claim",
    "exchange_colors",
    "false_caption",
    "full_caption",
    "held_out",
    "holds",
    "prompts",
    "render",
    "satisfies",
    "scene",
    "swap",
    "words",
]
