"""What a walk shows at each step: pictures, and where the U-Net looks (Chapters 18 and 20)."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sdlib import images
from sdlib.diffusion import Step

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdlib.text import Tokenizer

Maps = list[tuple[str, Tensor]]  # pairs of a word and where the U-Net looks for it, [h, w]


@dataclass(frozen=True)
class Frame(Step):
    """A `Step` of latents, `x` and `x0 [b, c, h, w]`, that can be looked at.

    Attributes:
        steps: of the walk; `i` goes from 0 to this.
        parameters: for each image, what it is made from.
        maps: for each image, pairs of a word of its prompt and where the U-Net looked for it,
            `[h, w]`; empty unless asked for.
        decoder: makes pictures of latents.
        scale: by which the autoencoder multiplied them.
    """

    x: Tensor = field(repr=False)
    x0: Tensor = field(repr=False)
    steps: int
    parameters: list[dict[str, Any]] = field(repr=False)
    maps: list[Maps] = field(repr=False)
    decoder: "Callable[[Tensor], list[Image]]" = field(repr=False)
    scale: float = field(repr=False)

    def preview(self) -> "list[Image]":
        """Small pictures of the estimate so far, a pixel a latent, for next to nothing."""
        return images.preview(self.x0, self.scale)

    def decode(self) -> "list[Image]":
        """Pictures of the estimate so far, or in the last frame of the result.

        Those of the last carry their parameters in `info["sdlib"]`, which `sdlib.images.save`
        writes to their files.
        """
        if self.i < self.steps:
            return self.decoder(self.x0)
        pictures = self.decoder(self.x)
        for picture, parameters in zip(pictures, self.parameters, strict=True):
            picture.info["sdlib"] = json.dumps(parameters)
        return pictures


def by_word(tokenizer: "Tokenizer", jobs: list[dict[str, Any]], maps: Tensor) -> list[Maps]:
    """For each image, each word of its prompt and the sum of its tokens' maps.

    Args:
        tokenizer: knows the places of a word's tokens.
        jobs: what the images are made from.
        maps: where the U-Net looks for each token, `[b, tokens, h, w]`; rows beyond the images'
            are left out.
    """
    return [
        [
            (word, maps[row, places].sum(dim=0))
            for word, places in tokenizer.words(job["prompt"], job["long_prompt"])
        ]
        for row, job in enumerate(jobs)
    ]
