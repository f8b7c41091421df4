"""The U-Net that predicts noise: down, across, and up again with what was set aside (Chapter 11).

One class from a toy to Stable Diffusion: the config says how wide and how deep.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdlib.models.layers import (
    GROUPS,
    Downsample,
    ResBlock,
    SpatialTransformer,
    Upsample,
    time_embedding,
)


@dataclass(frozen=True)
class UNetConfig:
    """The size of a `UNet`. The defaults are Stable Diffusion v1's.

    Attributes:
        in_channels, out_channels: of the image; 9 go in where a mask and a masked image go with it.
        widths: channels of each level, from the finest.
        blocks: residual blocks a level on the way down; one more on the way up.
        depth: transformer blocks behind each residual block of a level; 0 for none.
        middle_depth: transformer blocks at the bottom.
        heads: attention heads of each level; the middle has those of the last.
        context_width: of the tokens that cross-attention looks at.
        linear: whether the original file keeps the doors of its transformers as linear layers
            (SD 2, SDXL) or as 1x1 convolutions (SD 1). The same numbers, in another shape.
        added: width of one more vector that the time embedding takes in (SDXL); 0 for none.
    """

    in_channels: int = 4
    out_channels: int = 4
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    blocks: int = 2
    depth: tuple[int, ...] = (1, 1, 1, 0)
    middle_depth: int = 1
    heads: tuple[int, ...] = (8, 8, 8, 8)
    context_width: int = 768
    linear: bool = False
    added: int = 0

    def __post_init__(self):
        if not len(self.widths) == len(self.depth) == len(self.heads):
            raise ValueError(
                "widths, depth and heads of a U-Net hold one number a level; got "
                f"{len(self.widths)}, {len(self.depth)} and {len(self.heads)}."
            )
        if any(width % GROUPS for width in self.widths):
            raise ValueError(f"widths must be multiples of {GROUPS}; got {self.widths}.")

    @property
    def time_width(self) -> int:
        return 4 * self.widths[0]

    @classmethod
    def sd15(cls) -> "UNetConfig":
        """Stable Diffusion v1.1 to v1.5, and what was fine-tuned from them."""
        return cls()

    @classmethod
    def sd15_inpainting(cls) -> "UNetConfig":
        """v1.5 for inpainting: a mask and the latents of the masked image go in as well."""
        return cls(in_channels=9)

    @classmethod
    def sd2(cls) -> "UNetConfig":
        """Stable Diffusion 2.0 and 2.1."""
        return cls(heads=(5, 10, 20, 20), context_width=1024, linear=True)

    @classmethod
    def sdxl(cls) -> "UNetConfig":
        """Stable Diffusion XL's base model."""
        return cls(
            widths=(320, 640, 1280),
            depth=(0, 2, 10),
            middle_depth=10,
            heads=(5, 10, 20),
            context_width=2048,
            linear=True,
            added=2816,
        )

    @classmethod
    def tiny(cls, **changes) -> "UNetConfig":
        """Few parameters in the same shape, for tests; `changes` are fields.

        Widths have two channels or more in each group of a norm: in a group of one, the norm takes
        away what the time has added.
        """
        sizes = {"widths": (64, 96), "blocks": 1, "depth": (1, 0), "heads": (4, 4)}
        return cls(**{**sizes, "context_width": 32, **changes})


class Level(nn.Module):
    """Residual blocks at one resolution, each with a transformer behind it, and a change of size.

    Args:
        channels: (inputs, outputs) of each residual block.
        config: of the U-Net.
        depth, heads: of the transformers; no transformer where depth is 0.
        resize: the layer that leads to the next level, or None.
    """

    def __init__(self, channels, config: UNetConfig, depth: int, heads: int, resize=None):
        super().__init__()
        self.blocks = nn.ModuleList(ResBlock(i, o, config.time_width) for i, o in channels)
        self.attend = nn.ModuleList(
            SpatialTransformer(o, heads, config.context_width, depth)
            for _, o in channels[: len(channels) if depth else 0]
        )
        self.resize = resize

    def step(self, i: int, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """Residual block i, and its transformer if there is one."""
        x = self.blocks[i](x, time)
        return self.attend[i](x, context) if i < len(self.attend) else x


class UNet(nn.Module):
    """`(x [b, c, h, w], t [b], cond) -> [b, c, h, w]`: what the training target was (eps or v).

    Ronneberger et al. 2015, with the residual blocks of Ho et al. 2020 and the transformers of
    Rombach et al. 2022. Any height and width will do: the way up goes to the size of what was set
    aside. `cond` is the context, or a dict of it and of what else the config asks for:

    - "context", `[b, m, context_width]`: the tokens that cross-attention looks at;
    - "concat", `[b, in_channels - c, h, w]`: what is stacked onto `x` (inpainting);
    - "added", `[b, added]`: what the time embedding takes in (SDXL).

    Raises:
        ValueError: for a condition that is missing or does not fit.
    """

    def __init__(self, config: UNetConfig | None = None):
        super().__init__()
        self.config = config = config or UNetConfig()
        widths, last = config.widths, len(config.widths) - 1
        first, wide, deep = widths[0], config.time_width, widths[-1]
        self.time = _mlp(first, wide)
        self.added = _mlp(config.added, wide) if config.added else None
        self.stem = nn.Conv2d(config.in_channels, first, 3, padding=1)

        self.down = nn.ModuleList()
        aside, now = [first], first  # channels of what is set aside
        for i, (width, depth, heads) in enumerate(
            zip(widths, config.depth, config.heads, strict=True)
        ):
            channels = [(now, width), *[(width, width)] * (config.blocks - 1)]
            resize = Downsample(width) if i < last else None
            self.down.append(Level(channels, config, depth, heads, resize))
            aside += [width] * (config.blocks + (i < last))
            now = width

        # the transformer stands between the two blocks
        self.middle = Level([(deep, deep)] * 2, config, 0, config.heads[-1])
        self.middle.attend.append(
            SpatialTransformer(deep, config.heads[-1], config.context_width, config.middle_depth)
        )

        self.up = nn.ModuleList()  # from the coarsest, as it runs
        for i in reversed(range(len(widths))):
            channels = []
            for _ in range(config.blocks + 1):
                channels.append((now + aside.pop(), widths[i]))
                now = widths[i]
            resize = Upsample(now) if i else None
            self.up.append(Level(channels, config, config.depth[i], config.heads[i], resize))

        self.norm = nn.GroupNorm(GROUPS, first, eps=1e-5)
        self.head = nn.Conv2d(first, config.out_channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        x, context, added = self._conditions(x, cond)
        time = self.time(time_embedding(t, self.config.widths[0]).to(x.dtype))
        if added is not None:
            time = time + self.added(added)
        time = F.silu(time)

        x = self.stem(x)
        aside = [x]
        for level in self.down:
            for i in range(len(level.blocks)):
                x = level.step(i, x, time, context)
                aside.append(x)
            if level.resize is not None:
                x = level.resize(x)
                aside.append(x)
        x = self.middle.step(0, x, time, context)
        x = self.middle.step(1, x, time, context)
        for level in self.up:
            for i in range(len(level.blocks)):
                x = level.step(i, torch.cat([x, aside.pop()], dim=1), time, context)
            if level.resize is not None:
                x = level.resize(x, aside[-1].shape[2:])
        return self.head(F.silu(self.norm(x), inplace=True))

    def _conditions(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the stem, the cross-attention and the time embedding take in."""
        config, cond = self.config, cond if isinstance(cond, dict) else {"context": cond}
        context, concat, added = (cond.get(key) for key in ("context", "concat", "added"))
        if context is None or context.ndim != 3 or context.shape[2] != config.context_width:
            raise ValueError(
                f"the context must be [b, m, {config.context_width}]; "
                f"got {None if context is None else tuple(context.shape)}."
            )
        if concat is not None:
            x = torch.cat([x, concat], dim=1)
        if x.ndim != 4 or x.shape[1] != config.in_channels:
            raise ValueError(
                f"this U-Net takes {config.in_channels} channels, [b, c, h, w]; got shape "
                f"{tuple(x.shape)} (a mask and a masked image go into cond['concat'])."
            )
        if (added is None) == bool(config.added):
            raise ValueError(
                f"cond['added'] must be [b, {config.added}]; got none."
                if config.added
                else "this U-Net takes no added vector; leave cond['added'] out."
            )
        return x, context, added


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.SiLU(), nn.Linear(outputs, outputs))
