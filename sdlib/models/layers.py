"""The layers that the U-Net and the autoencoder are made of (Chapter 11).

Images are `[b, c, h, w]`, tokens `[b, n, d]`. Group norms have 32 groups unless a small network
asks for fewer; torch's kernels keep their sums in float32 whatever the precision of the input.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdlib.models.attention import Attention

GROUPS = 32
PORTION = 1024  # tokens whose wide vectors fit a processor's cache


def time_embedding(t: Tensor, width: int) -> Tensor:
    """`t [b]` -> `[b, width]`, float32: cosines, then sines, of t at falling frequencies.

    Frequency i is 10000^(-i / (width / 2)), after Vaswani et al. 2017, section 3.5. (DDPM's own
    code puts the sines first and spreads the frequencies a little further.)
    """
    half = width // 2
    i = torch.arange(half, dtype=torch.float32, device=t.device)
    angle = t.float()[:, None] * torch.exp(-math.log(10000) * i / half)
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def guidance_embedding(scale: Tensor, width: int) -> Tensor:
    """A guidance scale `[b]` -> `[b, width]`, float32: sines, then cosines, of 1000 (scale - 1).

    Luo et al. 2023 (LCM), section 4.2, whose w is scale - 1; frequencies as in DDPM's code,
    10000^(-i / (width / 2 - 1)).
    """
    half = width // 2
    i = torch.arange(half, dtype=torch.float32, device=scale.device)
    angle = 1000 * (scale.float()[:, None] - 1) * torch.exp(-math.log(10000) * i / (half - 1))
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class ResBlock(nn.Module):
    """Two layers of norm, SiLU and convolution with a residual connection around them.

    `[b, inputs, h, w] -> [b, outputs, h, w]` (Ho et al. 2020, appendix B). Where the number of
    channels changes, the residual connection is a 1x1 convolution.

    Args:
        inputs, outputs: channels.
        time_width: of the time embedding that is added between the convolutions; 0 for none.
        eps, groups: of the norms.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        time_width: int = 0,
        eps: float = 1e-5,
        groups: int = GROUPS,
    ):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time_width, outputs) if time_width else None
        self.norm2 = nn.GroupNorm(groups, outputs, eps)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x), inplace=True))
        if self.time is not None:
            h = h + self.time(time)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h), inplace=True))
        return self.skip(x) + h


class Downsample(nn.Module):
    """Half the height and width, by a convolution of stride 2.

    Args:
        channels: in and out.
        asymmetric: pad on the right and below only, as the autoencoder does.
    """

    def __init__(self, channels: int, asymmetric: bool = False):
        super().__init__()
        self.asymmetric = asymmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if asymmetric else 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.asymmetric else x)


class Upsample(nn.Module):
    """The nearest pixel repeated, then a convolution; to twice the size, or to `size` (h, w)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        h, w = size or (2 * x.shape[2], 2 * x.shape[3])
        return self.conv(F.interpolate(x, (h, w), mode="nearest"))


class GEGLU(nn.Module):
    """A gated linear unit with GELU (Shazeer 2020, section 2): value * GELU(gate).

    `[..., inputs] -> [..., outputs]`. Both come from one projection, the value's half first.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.proj = nn.Linear(inputs, 2 * outputs)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Each token by itself, `[b, n, d]`: up to `factor` times its width, and down again."""

    def __init__(self, width: int, factor: int = 4):
        super().__init__()
        self.up = GEGLU(width, factor * width)
        self.down = nn.Linear(factor * width, width)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":  # a processor is faster where what lies between stays in cache
            portions = x.flatten(0, -2).split(PORTION)
            return torch.cat([self.down(self.up(tokens)) for tokens in portions]).view_as(x)
        return self.down(self.up(x))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the context, a feed-forward network: `[b, n, d]`.

    Without a context (`context_width = 0`) there is no cross-attention.
    """

    def __init__(self, width: int, heads: int, context_width: int = 0, image_width: int = 0):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads)
        self.cross_attention = None
        if context_width:
            self.norm2 = nn.LayerNorm(width)
            self.cross_attention = Attention(width, heads, context_width, image_width=image_width)
        self.norm3 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)

    def forward(
        self, x: Tensor, context: Tensor | None = None, image: Tensor | None = None
    ) -> Tensor:
        x = x + self.self_attention(self.norm1(x))
        if self.cross_attention is not None:
            x = x + self.cross_attention(self.norm2(x), context, image)
        return x + self.feed_forward(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of an image, which are its tokens: `[b, c, h, w]`.

    Args:
        width, heads, context_width, image_width: of the blocks.
        depth: how many blocks.
    """

    def __init__(
        self, width: int, heads: int, context_width: int = 0, depth: int = 1, image_width: int = 0
    ):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, context_width, image_width) for _ in range(depth)
        )
        self.proj_out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, context: Tensor | None = None, image: Tensor | None = None
    ) -> Tensor:
        tokens = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)  # b c h w -> b (h w) c
        tokens = self.proj_in(tokens)
        for block in self.blocks:
            tokens = block(tokens, context, image)
        tokens = self.proj_out(tokens)
        return x + tokens.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
