"""An average of the weights over the last stretch of training: better than any one of them."""

import copy

import torch
from torch import nn


class EMA:
    """An exponential moving average of a network's parameters.

    Args:
        network: is copied; the copy, `ema.network`, holds the average and is what to sample with.
        decay: how much of the average each update keeps, below 1. Early on less is kept,
            (1 + n) / (10 + n) at update n, so that the random start is soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1); got {decay}.")
        self.decay, self.updates = decay, 0
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average toward the network's present weights; buffers are copied."""
        self.updates += 1
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages, values = list(self.network.parameters()), list(network.parameters())
        torch._foreach_lerp_(averages, values, 1 - keep)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)

    def state_dict(self) -> dict:
        return {"updates": self.updates, "network": self.network.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.updates = state["updates"]
        self.network.load_state_dict(state["network"])
