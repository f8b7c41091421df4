"""Where a U-Net looks for each token: its cross-attention as pictures (Chapter 18)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdlib.models.layers import TransformerBlock


class CrossAttentionMaps:
    """Collects the cross-attention of a U-Net's calls, while it is entered.

        with CrossAttentionMaps(unet) as maps:
            unet(x, t, context)
            maps.take(x.shape[2:])            # [b, tokens, h, w]

    All heads and layers count alike, as in Tang et al. 2023 (DAAM, section 3.2).
    """

    def __init__(self, unet: nn.Module):
        blocks = [m for m in unet.modules() if isinstance(m, TransformerBlock)]
        self.layers = [block.cross_attention for block in blocks]
        self._seen: list[Tensor] = []

    def __enter__(self) -> "CrossAttentionMaps":
        for layer in self.layers:
            layer.watch = self._add
        return self

    def __exit__(self, *_) -> None:
        for layer in self.layers:
            layer.watch = None

    def clear(self) -> None:
        """Forget what was collected."""
        self._seen.clear()

    def keep(self, calls: int) -> None:
        """The last call is the `calls`-th that counts: forget any between it and those before."""
        n = len(self.layers)
        del self._seen[(calls - 1) * n : -n]

    def _add(self, weights: Tensor) -> None:
        self._seen.append(weights.detach().mean(dim=1))  # b heads n m -> b n m

    def take(self, size: tuple[int, int]) -> Tensor:
        """`[b, m, h, w]`: for each token, how much each pixel looks at it; sums to 1 over m.

        What was collected is forgotten. Batches of several calls are put behind each other.

        Args:
            size: (h, w) of what the U-Net was shown.
        """
        layers = [torch.cat(self._seen[i :: len(self.layers)]) for i in range(len(self.layers))]
        self.clear()
        maps = 0.0
        for seen in layers:
            seen = seen.transpose(1, 2).unflatten(2, _level(size, seen.shape[1]))  # b m h w
            maps = maps + F.interpolate(seen, size, mode="bilinear") / len(layers)
        return maps


def _level(size: tuple[int, int], pixels: int) -> tuple[int, int]:
    """The height and width of the level that has so many pixels."""
    h, w = size
    while h * w > pixels:
        h, w = (h + 1) // 2, (w + 1) // 2
    return h, w
