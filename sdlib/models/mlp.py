"""The network of the 2-D chapters: a small residual MLP that knows the time (Chapter 1)."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdlib.models.conditions import Conditioned, read_label


@dataclass(frozen=True)
class MLPConfig:
    """The size of an `MLP`.

    Attributes:
        dim: how many numbers a sample has.
        width: of each hidden layer.
        depth: how many hidden layers.
        frequencies: how many sine-cosine pairs tell the network the time.
        t_max: the largest time it will be told (999 for a table of 1000, 1 for a curve).
        classes: how many classes it can be conditioned on; 0 for none.
    """

    dim: int = 2
    width: int = 64
    depth: int = 3
    frequencies: int = 8
    t_max: float = 999.0
    classes: int = 0

    def __post_init__(self):
        if min(self.dim, self.width, self.depth, self.frequencies) < 1 or self.classes < 0:
            raise ValueError(
                f"sizes of an MLP must be at least 1 (classes at least 0); got {self}."
            )
        if not self.t_max > 0:
            raise ValueError(f"t_max must be positive; got {self.t_max}.")

    @property
    def conditions(self) -> tuple[str, ...]:
        """The keys of a condition that such an MLP knows."""
        return ("label",) if self.classes else ()


def time_features(t: Tensor, t_max: float, frequencies: int) -> Tensor:
    """`[b]` times -> `[b, 1 + 2 * frequencies]` smooth features: u, sin(k pi u), cos(k pi u).

    u = t / t_max, and k runs from 1 to `frequencies`.
    """
    u = (t / t_max).unsqueeze(1)
    k = torch.arange(1, frequencies + 1, device=t.device, dtype=t.dtype)
    return torch.cat([u, torch.sin(math.pi * k * u), torch.cos(math.pi * k * u)], dim=1)


class MLP(Conditioned):
    """`(x [b, dim], t [b], cond) -> [b, dim]`; what the output means is up to the training target.

    Where the config has classes, `cond` is a class a sample ("label"), `[b]`. Class `classes` (one
    past the last) stands for "no class": it is what `cond=None` means to a conditional network.
    """

    def __init__(self, config: MLPConfig | None = None):
        super().__init__()
        self.config = config = config or MLPConfig()
        self.first = nn.Linear(config.dim + 1 + 2 * config.frequencies, config.width)
        self.hidden = nn.ModuleList(
            nn.Linear(config.width, config.width) for _ in range(config.depth - 1)
        )
        self.last = nn.Linear(config.width, config.dim)
        if config.classes:
            self.label = nn.Embedding(config.classes + 1, config.width)

    def forward(self, x: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        config = self.config
        if x.ndim != 2 or x.shape[1] != config.dim:
            raise ValueError(f"x must be [b, {config.dim}]; got shape {tuple(x.shape)}.")
        precision = torch.promote_types(x.dtype, torch.float32)  # half would round times
        t = t if isinstance(t, Tensor) else torch.tensor(t, dtype=precision, device=x.device)
        t = t.to(precision).to(x.device)
        if t.ndim and t.shape != x.shape[:1]:
            raise ValueError(f"t must be one time or [{len(x)}]; got shape {tuple(t.shape)}.")
        t = t.expand(len(x))
        time = time_features(t, config.t_max, config.frequencies).to(x.dtype)
        h = self.first(torch.cat([x, time], dim=1))
        cond = self.read(cond)
        if config.classes:
            h = h + self.label(read_label(cond, x, config.classes))
        h = F.silu(h)
        for layer in self.hidden:
            h = h + F.silu(layer(h))
        return self.last(h)
