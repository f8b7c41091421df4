"""The U-Net as a denoiser, for the samplers of Chapters 6 to 9 (Chapter 20)."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from sdlib.diffusion import Condition, NetworkDenoiser, Parameterization
from sdlib.diffusion.condition import take
from sdlib.diffusion.denoiser import network_output
from sdlib.models import CrossAttentionMaps
from sdlib.pipeline.runner import NetworkRunner


class UNetDenoiser(NetworkDenoiser):
    """`NetworkDenoiser` of a U-Net that a runner runs, some samples at a time.

    Args:
        runner: has the U-Net.
        predicts: what it gives.
        max_batch: how many samples it sees in one call; None for all.
        watch: whether to see where it looks.

    Attributes:
        maps: where it looked in the last call, `[b, tokens, h, w]`; None unless watched.
    """

    def __init__(
        self,
        runner: NetworkRunner,
        predicts: str | Parameterization,
        max_batch: int | None = None,
        watch: bool = False,
    ):
        super().__init__(self.run, predicts)
        self.runner, self.max_batch, self.watch = runner, max_batch, watch
        self.maps: Tensor | None = None

    def run(self, x: Tensor, t: Tensor, cond: Condition) -> Tensor:
        """What the U-Net says of `x [b, c, h, w]` at times `t [b]`."""
        size, answers, seen = self.max_batch or len(x), [], []

        def output(unet: nn.Module, x: Tensor, t: Tensor, cond: Condition) -> Tensor:
            # Watched for this call only: between frames, others may use the U-Net.
            with CrossAttentionMaps(unet) if self.watch else nullcontext() as maps:
                out = network_output(unet, x, t, cond)
            if self.watch:
                seen[len(answers) :] = [maps.take(x.shape[2:])]  # in place of one that overflowed
            return out

        for rows in (slice(i, i + size) for i in range(0, len(x), size)):
            inputs = x[rows], t[rows], take(cond, rows)
            answers.append(self.runner.run("unet", output, *inputs))
        self.maps = torch.cat(seen) if self.watch else None
        return torch.cat(answers)
