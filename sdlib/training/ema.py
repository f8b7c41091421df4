"""An average of the weights over the last stretch of training: better than any one of them."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def trainable(
    network: nn.Module, parameters: Iterable[nn.Parameter] | None = None
) -> dict[str, nn.Parameter]:
    """The chosen parameters of a network by name; by default those that require a gradient.

    Raises:
        ValueError: for a parameter that is not the network's or requires no gradient, or for none.
    """
    named = dict(network.named_parameters())
    if parameters is None:
        found = {name: p for name, p in named.items() if p.requires_grad}
    else:
        chosen = {id(p): p for p in parameters}
        found = {name: p for name, p in named.items() if id(p) in chosen}
        if len(found) < len(chosen):
            raise ValueError(
                "parameters must be the network's own; "
                "put parts that are trained together into one nn.ModuleDict."
            )
    frozen = [name for name, p in found.items() if not p.requires_grad]
    if frozen:
        raise ValueError(f"{frozen[0]} is to be trained and requires no gradient; unfreeze it.")
    if not found:
        raise ValueError("no parameter of the network requires a gradient: nothing is to train.")
    return found


def state_of(network: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """The parameters called `names`, and the buffers that a network saves."""
    kept = {*names, *(name for name, _ in network.named_buffers())}
    return {name: value for name, value in network.state_dict().items() if name in kept}


class EMA:
    """An exponential moving average of a network's trained parameters.

    Args:
        network: is copied; the copy, `ema.network`, holds the average and is what to sample with.
            What is not averaged is not copied: both networks share their frozen parameters.
        decay: how much of the average each update keeps, below 1. Early on less is kept,
            (1 + n) / (10 + n) at update n, so that the random start is soon forgotten.
        parameters: which of the network's to average; by default those that require a gradient.
    """

    def __init__(
        self,
        network: nn.Module,
        decay: float = 0.999,
        parameters: Iterable[nn.Parameter] | None = None,
    ):
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1); got {decay}.")
        self.decay, self.updates = decay, 0
        averaged = trainable(network, parameters)
        shared = {id(p): p for name, p in network.named_parameters() if name not in averaged}
        self.network = copy.deepcopy(network, shared).eval()
        mine = dict(self.network.named_parameters())
        self.averages = {name: mine[name].requires_grad_(False) for name in averaged}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average toward the network's present weights; buffers are copied."""
        self.updates += 1
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        present = dict(network.named_parameters())
        values = [present[name] for name in self.averages]
        torch._foreach_lerp_(list(self.averages.values()), values, 1 - keep)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)

    def state_dict(self) -> dict:
        """How many updates, the averages, and the buffers; nothing that was not averaged."""
        return {"updates": self.updates, "network": state_of(self.network, self.averages)}

    def load_state_dict(self, state: dict) -> None:
        self.updates = state["updates"]
        self.network.load_state_dict(state["network"], strict=False)
