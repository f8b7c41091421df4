"""The diffusion transformer: patches as tokens, conditions through the norms (Chapter 13)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdlib.models.attention import Attention
from sdlib.models.conditions import Conditioned, read_label
from sdlib.models.layers import time_embedding

FREQUENCIES = 256  # numbers that tell the time


@dataclass(frozen=True)
class DiTConfig:
    """The size of a `DiT`. The defaults are DiT-XL/2's.

    Attributes:
        channels: of an image (4 for latents).
        out_channels: 8 where it predicts a variance as well, as DiT-XL/2 does.
        patch: pixels a side of a token.
        width, depth, heads: of the transformer.
        classes: how many classes it knows, with one more for none; 0 for no classes.
        context_width: of text tokens that it looks at by cross-attention; 0 for no text.
        time_scale: what t is multiplied by before it is embedded: 1 for a table's entries, 1000
            for t in [0, 1].
    """

    channels: int = 4
    out_channels: int = 8
    patch: int = 2
    width: int = 1152
    depth: int = 28
    heads: int = 16
    classes: int = 1000
    context_width: int = 0
    time_scale: float = 1.0

    def __post_init__(self):
        if self.width % 4:
            raise ValueError(f"width must be a multiple of 4; got {self.width}.")
        if self.classes and self.context_width:
            raise ValueError(
                "a DiT looks at classes or at text, not at both; set classes or context_width to 0."
            )

    @property
    def conditions(self) -> tuple[str, ...]:
        """The keys of a condition that such a DiT knows."""
        has = {"context": self.context_width, "label": self.classes}
        return tuple(key for key, size in has.items() if size)

    @classmethod
    def xl_2(cls) -> "DiTConfig":
        """DiT-XL/2 for pictures of 256 x 256 (Peebles & Xie 2023, table 1)."""
        return cls()

    @classmethod
    def tiny(cls, **changes) -> "DiTConfig":
        """A few thousand parameters in the same shape, for tests; `changes` are fields."""
        sizes = {"width": 32, "depth": 2, "heads": 4, "classes": 10}
        return cls(**{**sizes, "out_channels": 4, **changes})


def grid_positions(width: int, h: int, w: int) -> Tensor:
    """`[h * w, width]`, float32: where each patch stands, row by row.

    The first half tells the column, the second the row, each as sines and then cosines at falling
    frequencies, after Peebles & Xie's code.
    """
    quarter = width // 4
    frequency = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    angles = [place.flatten()[:, None] * frequency for place in (column, row)]
    return torch.cat([wave for a in angles for wave in (a.sin(), a.cos())], dim=1).float()


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """A plain layer norm, then the condition's own scale and shift: `[b, n, d]`."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    """adaLN-Zero (Peebles & Xie 2023, section 3.2): the condition scales, shifts and gates.

    The gates start at zero, so that a new block does nothing.
    """

    def __init__(self, config: DiTConfig):
        super().__init__()
        width = config.width
        self.condition = nn.Linear(width, 6 * width)
        self.self_attention = Attention(width, config.heads, bias=True)
        self.cross_attention = (
            Attention(width, config.heads, config.context_width, bias=True)
            if config.context_width
            else None
        )
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        nn.init.zeros_(self.condition.weight)
        nn.init.zeros_(self.condition.bias)
        if self.cross_attention is not None:
            nn.init.zeros_(self.cross_attention.out.weight)
            nn.init.zeros_(self.cross_attention.out.bias)

    def forward(self, x: Tensor, condition: Tensor, context: Tensor | None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.condition(condition).chunk(6, dim=1)
        x = x + gate1[:, None] * self.self_attention(_modulate(x, shift1, scale1))
        if self.cross_attention is not None:
            x = x + self.cross_attention(x, context)
        h = F.gelu(self.up(_modulate(x, shift2, scale2)), approximate="tanh")
        return x + gate2[:, None] * self.down(h)


class DiT(Conditioned):
    """`(x [b, c, h, w], t [b], cond) -> [b, out_channels, h, w]` (Peebles & Xie 2023).

    `cond` is a class a sample ("label"), `[b]` (None, or `config.classes`, for none), or, where the
    config has a context width, text tokens ("context"), `[b, m, context_width]`. Heights and widths
    are multiples of a patch.

    Raises:
        ValueError: for a condition or a size that does not fit.
    """

    def __init__(self, config: DiTConfig | None = None):
        super().__init__()
        self.config = config = config or DiTConfig()
        width, patch = config.width, config.patch
        self.stem = nn.Conv2d(config.channels, width, patch, stride=patch)
        self.time = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(config.classes + 1, width) if config.classes else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.condition = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, patch * patch * config.out_channels)
        for layer in (self.condition, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        patch = self.config.patch
        if x.ndim != 4 or x.shape[1] != self.config.channels or any(n % patch for n in x.shape[2:]):
            raise ValueError(
                f"this DiT takes [b, {self.config.channels}, h, w] with h and w multiples of "
                f"{patch}; got shape {tuple(x.shape)}."
            )
        h, w = (n // patch for n in x.shape[2:])
        context, label = self._conditions(cond, x)
        time = time_embedding(t * self.config.time_scale, FREQUENCIES)
        condition = self.time(time.to(x.dtype))
        condition = F.silu(condition if label is None else condition + label)

        x = self.stem(x).flatten(2).transpose(1, 2)  # b c h w -> b (h w) d
        x = x + grid_positions(self.config.width, h, w).to(x)
        for block in self.blocks:
            x = block(x, condition, context)
        x = self.head(_modulate(x, *self.condition(condition).chunk(2, dim=1)))
        x = x.unflatten(2, (patch, patch, -1)).unflatten(1, (h, w))  # b h w p q c
        return x.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)  # b c (h p) (w q)

    def _conditions(self, cond: Any, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The tokens to look at, and the vector of the class."""
        width, cond = self.config.context_width, self.read(cond)
        context = cond.get("context")
        if width and (context is None or context.ndim != 3 or context.shape[2] != width):
            raise ValueError(
                f"cond['context'] must be [b, m, {width}]; "
                f"got {None if context is None else tuple(context.shape)}."
            )
        if self.label is None:
            return context, None
        return None, self.label(read_label(cond, x, self.config.classes))
