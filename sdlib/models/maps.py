"""Where a U-Net looks for each token: its cross-attention as pictures (Chapter 18)."""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from sdlib.models.layers import TransformerBlock


class CrossAttentionMaps:
    """Keeps the cross-attention of a U-Net's last call, while it is entered.

        with CrossAttentionMaps(unet) as maps:
            unet(x, t, context)
        maps.take(x.shape[2:])            # [b, tokens, h, w]

    All heads and layers count alike, as in Tang et al. 2023 (DAAM, section 3.2).
    """

    def __init__(self, unet: nn.Module):
        blocks = [m for m in unet.modules() if isinstance(m, TransformerBlock)]
        self.layers = [b.cross_attention for b in blocks if b.cross_attention is not None]
        self._seen: dict[int, Tensor] = {}

    def __enter__(self) -> "CrossAttentionMaps":
        for i, layer in enumerate(self.layers):
            layer.on_weights = partial(self._keep, i)
        return self

    def __exit__(self, *_) -> None:
        for layer in self.layers:
            layer.on_weights = None

    def _keep(self, i: int, weights: Tensor) -> None:
        self._seen[i] = weights.detach().mean(dim=1)  # b heads n m -> b n m

    def take(self, size: tuple[int, int]) -> Tensor:
        """`[b, m, h, w]`: for each token, how much each pixel looks at it; sums to 1 over m.

        Args:
            size: (h, w) of what the U-Net was shown.
        """
        maps = 0.0
        for seen in self._seen.values():
            seen = seen.transpose(1, 2).unflatten(2, _level(size, seen.shape[1]))  # b m h w
            maps = maps + F.interpolate(seen, size, mode="bilinear") / len(self.layers)
        return maps


def _level(size: tuple[int, int], pixels: int) -> tuple[int, int]:
    """The height and width of the level that has so many pixels."""
    h, w = size
    while h * w > pixels:
        h, w = (h + 1) // 2, (w + 1) // 2
    return h, w
