"""The U-Net that predicts noise: down, across, and up again with skip connections (Chapter 11).

One class from a toy to Stable Diffusion: the config says how wide and how deep.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdlib.models.conditions import KEYS, Conditioned, read_label
from sdlib.models.layers import (
    GROUPS,
    Downsample,
    ResBlock,
    SpatialTransformer,
    Upsample,
    guidance_embedding,
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
        context_width: of the tokens that cross-attention looks at; 0 for self-attention only.
        linear: whether the original file keeps the doors of its transformers as linear layers
            (SD 2, SDXL) or as 1x1 convolutions (SD 1). The same numbers, in another shape.
        added: width of one more vector that the time embedding takes in (SDXL); 0 for none.
        classes: how many classes it knows, with one more for none; 0 for no classes.
        image_width: of the image tokens that cross-attention looks at as well; 0 for none.
        guidance_width: of the embedding of a guidance scale (LCM); 0 for none.
        time_scale: what t is multiplied by before it is embedded: 1 for a table's entries, 1000
            for t in [0, 1].
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
    classes: int = 0
    image_width: int = 0
    guidance_width: int = 0
    time_scale: float = 1.0

    def __post_init__(self):
        if not len(self.widths) == len(self.depth) == len(self.heads):
            raise ValueError(
                "widths, depth and heads of a U-Net hold one number a level; got "
                f"{len(self.widths)}, {len(self.depth)} and {len(self.heads)}."
            )
        if any(width % GROUPS for width in self.widths):
            raise ValueError(f"widths must be multiples of {GROUPS}; got {self.widths}.")
        if self.image_width and not self.context_width:
            raise ValueError("image tokens go with a context: context_width must not be 0.")

    @property
    def conditions(self) -> tuple[str, ...]:
        """The keys of a condition that such a U-Net knows."""
        has = {
            "context": self.context_width,
            "label": self.classes,
            "image": self.image_width,
            "added": self.added,
            "guidance_scale": self.guidance_width,
        }
        return *(key for key, size in has.items() if size), "concat", "residuals"

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
    """Residual blocks at one resolution, each followed by a transformer, and a change of size.

    Args:
        channels: (inputs, outputs) of each residual block.
        config: of the U-Net.
        depth, heads: of the transformers; no transformer where depth is 0.
        resize: the layer that leads to the next level, or None.
    """

    def __init__(self, channels, config: UNetConfig, depth: int, heads: int, resize=None):
        super().__init__()
        self.blocks = nn.ModuleList(ResBlock(i, o, config.time_width) for i, o in channels)
        self.transformers = nn.ModuleList(
            SpatialTransformer(o, heads, config.context_width, depth, config.image_width)
            for _, o in channels[: len(channels) if depth else 0]
        )
        self.resize = resize

    def step(self, i: int, x: Tensor, time: Tensor, *tokens: Tensor | None) -> Tensor:
        """Residual block i, and its transformer if there is one."""
        x = self.blocks[i](x, time)
        return self.transformers[i](x, *tokens) if i < len(self.transformers) else x


class UNet(Conditioned):
    """`(x [b, c, h, w], t [b], cond) -> [b, c, h, w]`: what the training target was (eps or v).

    Ronneberger et al. 2015, with the residual blocks of Ho et al. 2020 and the transformers of
    Rombach et al. 2022. Any height and width will do: the way up goes to the size of each skip
    connection. `cond` is the context (without one, the class), or a dict of what
    `config.conditions` names; `sdlib.models.conditions.KEYS` says what each is.

    Raises:
        ValueError: for a condition that is missing, unknown or does not fit.
    """

    def __init__(self, config: UNetConfig | None = None):
        super().__init__()
        self.config = config = config or UNetConfig()
        widths, last = config.widths, len(config.widths) - 1
        first, wide, deep = widths[0], config.time_width, widths[-1]
        self.time = _mlp(first, wide)
        self.added = _mlp(config.added, wide) if config.added else None
        self.label = nn.Embedding(config.classes + 1, wide) if config.classes else None
        self.guidance = (
            nn.Linear(config.guidance_width, first, bias=False) if config.guidance_width else None
        )
        self.stem = nn.Conv2d(config.in_channels, first, 3, padding=1)

        self.down = nn.ModuleList()
        skips, now = [first], first  # channels of each skip connection
        for i, (width, depth, heads) in enumerate(
            zip(widths, config.depth, config.heads, strict=True)
        ):
            channels = [(now, width), *[(width, width)] * (config.blocks - 1)]
            resize = Downsample(width) if i < last else None
            self.down.append(Level(channels, config, depth, heads, resize))
            skips += [width] * (config.blocks + (i < last))
            now = width

        # the transformer stands between the two blocks
        self.middle = Level([(deep, deep)] * 2, config, 0, config.heads[-1])
        if config.middle_depth:
            tokens = config.context_width, config.middle_depth, config.image_width
            self.middle.transformers.append(SpatialTransformer(deep, config.heads[-1], *tokens))

        self.up = nn.ModuleList()  # from the coarsest, as it runs
        for i in reversed(range(len(widths))):
            channels = []
            for _ in range(config.blocks + 1):
                channels.append((now + skips.pop(), widths[i]))
                now = widths[i]
            resize = Upsample(now) if i else None
            self.up.append(Level(channels, config, config.depth[i], config.heads[i], resize))

        self.norm = nn.GroupNorm(GROUPS, first, eps=1e-5)
        self.head = nn.Conv2d(first, config.out_channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        cond = self.read(cond)
        if "concat" in cond:
            x = torch.cat([x, cond["concat"]], dim=1)
        self._check_shapes(x, cond)
        time = self._time(t, x, cond)
        tokens = cond.get("context"), cond.get("image")
        residuals = list(cond.get("residuals", ()))

        x = self.stem(x)
        skips = [x]
        for level in self.down:
            for i in range(len(level.blocks)):
                x = level.step(i, x, time, *tokens)
                skips.append(x)
            if level.resize is not None:
                x = level.resize(x)
                skips.append(x)
        x = self.middle.step(0, x, time, *tokens)
        x = self.middle.step(1, x, time)
        if residuals:
            x = x + residuals.pop()
            skips = [skip + residual for skip, residual in zip(skips, residuals, strict=True)]
        for level in self.up:
            for i in range(len(level.blocks)):
                x = level.step(i, torch.cat([x, skips.pop()], dim=1), time, *tokens)
            if level.resize is not None:
                x = level.resize(x, skips[-1].shape[2:])
        return self.head(F.silu(self.norm(x), inplace=True))

    def _time(self, t: Tensor, x: Tensor, cond: Mapping[str, Any]) -> Tensor:
        """The vector that every residual block is told, `[b, time_width]`."""
        embedded = time_embedding(t * self.config.time_scale, self.config.widths[0]).to(x.dtype)
        if "guidance_scale" in cond:
            scale = guidance_embedding(cond["guidance_scale"], self.config.guidance_width)
            embedded = embedded + self.guidance(scale.to(x.dtype))
        time = self.time(embedded)
        if "added" in cond:
            time = time + self.added(cond["added"])
        if self.label is not None:
            time = time + self.label(read_label(cond, x, self.config.classes))
        return F.silu(time)

    def _check_shapes(self, x: Tensor, cond: Mapping[str, Any]) -> None:
        config = self.config
        if x.ndim != 4 or x.shape[1] != config.in_channels:
            raise ValueError(
                f"this U-Net takes {config.in_channels} channels, [b, c, h, w]; got shape "
                f"{tuple(x.shape)} (a mask and a masked image go into cond['concat'])."
            )
        for key, width in (("context", config.context_width), ("image", config.image_width)):
            tokens = cond.get(key)
            if width and (tokens is None or tokens.ndim != 3 or tokens.shape[2] != width):
                raise ValueError(
                    f"cond[{key!r}] must be [b, m, {width}]; "
                    f"got {None if tokens is None else tuple(tokens.shape)}."
                )
        for key, there in (("added", config.added), ("guidance_scale", config.guidance_width)):
            if there and key not in cond:
                raise ValueError(f"this U-Net needs cond[{key!r}]: {KEYS[key]}.")
        skips = 1 + config.blocks * len(config.widths) + len(config.widths) - 1
        if len(cond.get("residuals", ())) not in (0, skips + 1):
            raise ValueError(
                f"cond['residuals'] holds {skips + 1} tensors, one for each of {skips} skip "
                f"connections and one for the middle; got {len(cond['residuals'])}."
            )


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.SiLU(), nn.Linear(outputs, outputs))
