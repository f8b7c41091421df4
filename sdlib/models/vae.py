"""The autoencoder: pictures to latents an eighth of the size, and back (Chapter 14)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdlib.dtypes import FLOAT32
from sdlib.models.attention import Attention
from sdlib.models.layers import GROUPS, Downsample, ResBlock, Upsample

EPS = 1e-6  # of all its norms


@dataclass(frozen=True)
class VAEConfig:
    """The size of an `AutoencoderKL`. The defaults are Stable Diffusion v1's.

    Attributes:
        widths: channels of each level, from the finest; each level but the last halves the size.
        blocks: residual blocks a level of the encoder; the decoder has one more.
        latent: channels of a latent.
        scale: latents are multiplied by it, so that their variance is about 1.
        groups: of the norms; fewer than 32 for a small network, since a group of one channel loses
            how bright that channel is.
    """

    widths: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    latent: int = 4
    scale: float = 0.18215
    groups: int = GROUPS

    def __post_init__(self):
        if any(width % self.groups for width in self.widths):
            raise ValueError(f"widths must be multiples of {self.groups}; got {self.widths}.")

    @property
    def factor(self) -> int:
        """How many pixels wide a latent is."""
        return 2 ** (len(self.widths) - 1)

    @classmethod
    def sd15(cls) -> "VAEConfig":
        """Stable Diffusion v1 and v2."""
        return cls()

    @classmethod
    def sdxl(cls) -> "VAEConfig":
        """Stable Diffusion XL."""
        return cls(scale=0.13025)

    @classmethod
    def tiny(cls, **changes) -> "VAEConfig":
        """A few thousand parameters in the same shape, for tests; `changes` are fields."""
        return cls(**{"widths": (32, 32, 64, 64), "blocks": 1, **changes})


@dataclass(frozen=True, eq=False)
class DiagonalGaussian:
    """A Gaussian for each number of a latent: what the encoder says of a picture.

    Attributes:
        moments: mean and log-variance of the unscaled latents, stacked, `[b, 2c, h, w]`.
        scale: what latents are multiplied by.
    """

    moments: Tensor
    scale: float = 1.0

    @property
    def mean(self) -> Tensor:
        """Of the scaled latents, `[b, c, h, w]`."""
        return self.scale * self.moments.chunk(2, dim=1)[0]

    @property
    def log_variance(self) -> Tensor:
        """Of the unscaled latents, `[b, c, h, w]`, kept between -30 and 20."""
        return self.moments.chunk(2, dim=1)[1].clamp(-30, 20)

    @property
    def std(self) -> Tensor:
        """Of the scaled latents, `[b, c, h, w]`."""
        return self.scale * (0.5 * self.log_variance).exp()

    def sample(self, noise: Callable[[Tensor], Tensor] = torch.randn_like) -> Tensor:
        """Scaled latents, `[b, c, h, w]`, drawn (Kingma & Welling 2014, section 2.4)."""
        return self.mean + self.std * noise(self.mean)

    def kl(self) -> Tensor:
        """The divergence of the unscaled latents from a standard normal, in nats: `[b]`, float32.

        Kingma & Welling 2014, appendix B.
        """
        mean, log_variance = self.moments.float().chunk(2, dim=1)[0], self.log_variance.float()
        return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)


class ImageAttention(nn.Module):
    """All pixels of an image look at each other, with one head: `[b, c, h, w]`."""

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, EPS)
        self.attention = Attention(width, heads=1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)  # b c h w -> b (h w) c
        return x + self.attention(tokens).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class Level(nn.Module):
    """Residual blocks at one resolution, and a change of size (or None)."""

    def __init__(
        self, inputs: int, outputs: int, blocks: int, groups: int, resize: nn.Module | None
    ):
        super().__init__()
        self.blocks = nn.ModuleList(
            ResBlock(outputs if i else inputs, outputs, eps=EPS, groups=groups)
            for i in range(blocks)
        )
        self.resize = resize

    def layers(self) -> list[nn.Module]:
        """In the order in which they run."""
        return [*self.blocks, self.resize] if self.resize else list(self.blocks)


def _through(levels: nn.ModuleList, x: Tensor) -> Tensor:
    """All layers in one flat loop, so that no caller's frame keeps a large input alive."""
    for layer in (layer for level in levels for layer in level.layers()):
        x = layer(x)
    return x


def _middle(width: int, groups: int) -> nn.Sequential:
    blocks = [ResBlock(width, width, eps=EPS, groups=groups) for _ in range(2)]
    return nn.Sequential(blocks[0], ImageAttention(width, groups), blocks[1])


class Encoder(nn.Module):
    """Pixels to the moments of latents: `[b, 3, H, W]` -> `[b, 2 * latent, h, w]`."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        widths, last = config.widths, len(config.widths) - 1
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            Level(
                widths[max(i - 1, 0)],
                width,
                config.blocks,
                config.groups,
                Downsample(width, asymmetric=True) if i < last else None,
            )
            for i, width in enumerate(widths)
        )
        self.middle = _middle(widths[-1], config.groups)
        self.norm = nn.GroupNorm(config.groups, widths[-1], EPS)
        self.head = nn.Conv2d(widths[-1], 2 * config.latent, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(_through(self.down, self.stem(x)))
        return self.head(F.silu(self.norm(x), inplace=True))


class Decoder(nn.Module):
    """Latents to pixels: `[b, latent, h, w]` -> `[b, 3, H, W]`. The coarsest level runs first."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        widths = config.widths[::-1]
        last = len(widths) - 1
        self.stem = nn.Conv2d(config.latent, widths[0], 3, padding=1)
        self.middle = _middle(widths[0], config.groups)
        self.up = nn.ModuleList(
            Level(
                widths[max(i - 1, 0)],
                width,
                config.blocks + 1,
                config.groups,
                Upsample(width) if i < last else None,
            )
            for i, width in enumerate(widths)
        )
        self.norm = nn.GroupNorm(config.groups, widths[-1], EPS)
        self.head = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = _through(self.up, self.middle(self.stem(z)))
        return self.head(F.silu(self.norm(x), inplace=True))


class AutoencoderKL(nn.Module):
    """Pictures in [-1, 1] to scaled latents and back (Rombach et al. 2022, section 3.1).

    The scale is applied inside: what `encode` gives is what the U-Net was trained on.

    Attributes:
        slicing: encode and decode the pictures of a batch one after the other: less memory.
        tile: decode and encode in overlapping tiles of this many latents a side, where a picture is
            larger; None for the whole at once. Norms then see tiles instead of the picture, so
            colors may differ a little.
    """

    def __init__(self, config: VAEConfig | None = None):
        super().__init__()
        self.config = config = config or VAEConfig()
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.to_moments = nn.Conv2d(2 * config.latent, 2 * config.latent, 1)
        self.from_latents = nn.Conv2d(config.latent, config.latent, 1)
        self.slicing = False
        self.tile: int | None = None

    def encode(self, pixels: Tensor) -> DiagonalGaussian:
        """`[b, 3, H, W]` in [-1, 1] -> the distribution of its latents, `[b, latent, h, w]`.

        Raises:
            ValueError: unless H and W are multiples of `config.factor`.
        """
        f = self.config.factor
        if pixels.ndim != 4 or pixels.shape[1] != 3 or any(n % f for n in pixels.shape[2:]):
            raise ValueError(
                f"pictures must be [b, 3, H, W] with H and W multiples of {f}; "
                f"got shape {tuple(pixels.shape)}."
            )
        side = self.tile and self.tile * f
        moments = self._each(lambda x: self.to_moments(self.encoder(x)), pixels, side, (1, f))
        return DiagonalGaussian(moments, self.config.scale)

    def decode(self, latents: Tensor) -> Tensor:
        """`[b, latent, h, w]` -> pictures, `[b, 3, H, W]`, about in [-1, 1]."""
        channels = self.config.latent
        if latents.ndim != 4 or latents.shape[1] != channels:
            raise ValueError(
                f"latents must be [b, {channels}, h, w]; got shape {tuple(latents.shape)}."
            )
        z = latents / self.config.scale
        return self._each(
            lambda z: self.decoder(self.from_latents(z)), z, self.tile, (self.config.factor, 1)
        )

    def _each(self, f: Callable, x: Tensor, side: int | None, ratio: tuple[int, int]) -> Tensor:
        """f over the batch, its pictures and its tiles, as the attributes ask."""
        if self.slicing and len(x) > 1:
            return torch.cat([self._each(f, part, side, ratio) for part in x.split(1)])
        return f(x) if side is None or max(x.shape[2:]) <= side else tiled(f, x, side, ratio)


def tiled(f: Callable, x: Tensor, side: int, ratio: tuple[int, int]) -> Tensor:
    """`f(x)` by overlapping square tiles, mixed where they overlap.

    Args:
        f: takes `[b, c, h, w]` and gives its height and width times ratio[0] / ratio[1].
        x: `[b, c, h, w]`.
        side: of a tile, in pixels of x; a quarter of it overlaps.
        ratio: (numerator, denominator) of f's change of size.
    """
    up, down = ratio
    h, w = (n * up // down for n in x.shape[2:])
    total = weights = None
    for top in _starts(x.shape[2], side, down):
        for left in _starts(x.shape[3], side, down):
            out = f(x[:, :, top : top + side, left : left + side])
            if total is None:
                total, weights = out.new_zeros(*out.shape[:2], h, w), out.new_zeros(h, w)
            rise = [_ramp(n, n // 4).to(out) for n in out.shape[2:]]
            weight = rise[0][:, None] * rise[1]
            y, z = top * up // down, left * up // down
            place = (..., slice(y, y + out.shape[2]), slice(z, z + out.shape[3]))
            total[place] += weight * out
            weights[place] += weight
    return total / weights


def _starts(n: int, side: int, unit: int) -> list[int]:
    """Where tiles of `side` begin along n: evenly, a quarter overlapping, on multiples of unit."""
    count = max(1, -(-(n - side // 4) // (side - side // 4)))
    last = max(0, n - side)
    return sorted({last * i // max(1, count - 1) // unit * unit for i in range(count)})


def _ramp(n: int, rise: int) -> Tensor:
    """Weights along a tile: rising from its edge, 1 in the middle, falling again."""
    i = torch.arange(n, **FLOAT32)
    return (torch.minimum(i, n - 1 - i) + 1).clamp(max=max(rise, 1)) / max(rise, 1)
