"""The U-Net as a denoiser, for the samplers of Chapters 6 to 9 (Chapter 20)."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from sdlib.diffusion import broadcast, parameterization
from sdlib.models import CrossAttentionMaps
from sdlib.pipeline.parts import Parts


class UNetDenoiser:
    """`x [b, 4, h, w]` at times `t` -> the estimate of x0, as `sdlib.diffusion.Denoiser`.

    Args:
        parts: has the U-Net.
        predicts: what it gives, a name in `PARAMETERIZATIONS`.
        at_once: how many samples it sees in one call; None for all.
        watch: whether to see where it looks.

    Attributes:
        maps: where it looked in the last call, `[b, tokens, h, w]`; None unless watched.
    """

    def __init__(self, parts: Parts, predicts: str, at_once: int | None, watch: bool):
        self.parts, self.at_once, self.watch = parts, at_once, watch
        self.to_x0 = parameterization(predicts).to_x0
        self.maps: Tensor | None = None

    def __call__(self, x: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, cond: Any) -> Tensor:
        t = broadcast(t, x).reshape(-1).expand(len(x))
        size, answers, seen = self.at_once or len(x), [], []
        for rows in (slice(i, i + size) for i in range(0, len(x), size)):
            # Watched for this call only: between frames, others may use the U-Net.
            unet = self.parts.networks["unet"]
            with CrossAttentionMaps(unet) if self.watch else nullcontext() as maps:
                inputs = x[rows], t[rows], _cut(cond, rows)
                answers.append(self.parts.ask("unet", _predict, *inputs))
            if self.watch:
                seen.append(maps.take(x.shape[2:]))
        self.maps = torch.cat(seen) if self.watch else None
        return self.to_x0(torch.cat(answers).to(x), x, broadcast(alpha, x), broadcast(sigma, x))


def _predict(unet: nn.Module, x: Tensor, t: Tensor, cond: Any) -> Tensor:
    return unet(x, t, cond)


def _cut(cond: Any, rows: slice) -> Any:
    """Rows of a condition."""
    return {k: v[rows] for k, v in cond.items()} if isinstance(cond, dict) else cond[rows]
