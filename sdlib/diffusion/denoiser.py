"""Denoisers: anything that looks at a noisy sample and says what the clean one was (Chapter 4).

A denoiser is a function `(x, t, alpha, sigma, cond) -> estimate of x0`. Samplers, guidance and
evaluation need nothing else, so a trained network, an exact formula and a combination of
denoisers can stand in for each other.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from sdlib.checks import finite
from sdlib.diffusion.condition import Condition, move
from sdlib.diffusion.parameterization import Parameterization, parameterization
from sdlib.diffusion.tensors import broadcast, state
from sdlib.dtypes import as_tensor


class Denoiser(Protocol):
    """Estimates x0 from `x = alpha * x0 + sigma * eps`.

    Args of a call:
        x: noisy samples, `[b, ...]`.
        t: what the network was told in training, a scalar or `[b]`.
        alpha, sigma: the noise level of `x`, scalars or `[b]`.
        cond: the condition, batch first: None, a tensor, or a dict of tensors (see
            `sdlib.diffusion.condition`).

    Returns:
        the estimate, in the shape of `x`.
    """

    def __call__(
        self, x: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, cond: Condition = None
    ) -> Tensor: ...


def network_output(
    network: Callable, x: Tensor, t: Tensor | float, cond: Condition = None
) -> Tensor:
    """What `network(x, t, cond)` says, on its device and in its precision.

    Times, one or `[b]`, stay float32 at least: bfloat16 would round 981 to 980. Gradients go
    through, to `x`, to the condition and to the parameters.
    """
    precision = torch.promote_types(x.dtype, torch.float32)
    t = broadcast(t, x.new_empty(len(x), dtype=precision)).expand(len(x))
    like = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    if like is None:
        return network(x, t, cond)
    if hasattr(network, "check_condition"):
        network.check_condition(cond)
    t = t.to(like.device, torch.promote_types(like.dtype, torch.float32))
    return network(x.to(like), t, move(cond, like))


class NetworkDenoiser:
    """A network `net(x, t, cond)` and what it predicts, as a denoiser.

    The network runs on its own device and in its own precision; the conversion to x0 runs in the
    precision of `x`, where `x` is. Gradients go through: whoever samples turns them off.
    """

    def __init__(self, network: Callable, predicts: str | Parameterization = "eps"):
        self.network = network
        self.parameterization = parameterization(predicts)

    def __call__(self, x, t, alpha, sigma, cond=None):
        alpha, sigma = broadcast(alpha, x), broadcast(sigma, x)
        shown, told = self.parameterization.inputs(x, t, alpha, sigma)
        out = network_output(self.network, shown, told, cond).to(x)
        return self.parameterization.to_x0(out, x, alpha, sigma)


class IdealDenoiser:
    """The best possible denoiser of a finite set of points: their posterior mean (chapter 4).

    Needs no training, and is the oracle of every chapter in the plane. Each data point is weighted
    by how likely it is to have been turned into `x`; at sigma = 0 the nearest point (or the mean of
    those equally near) answers.

    Args:
        data: the points, `[n, ...]`; thousands are fine, since distances are taken in chunks.
    """

    chunk = 2**22  # entries of a distance matrix held at once

    def __init__(self, data: Tensor):
        data = as_tensor(data)
        if data.ndim < 2 or len(data) == 0:
            raise ValueError(
                f"data must be [n, ...] with n of at least 1; got shape {tuple(data.shape)}."
            )
        self.data = finite("data", state(data))

    def __call__(self, x, t, alpha, sigma, cond=None):
        if x.shape[1:] != self.data.shape[1:]:
            raise ValueError(
                f"samples must have the shape of the data, {tuple(self.data.shape[1:])}; "
                f"got x of {tuple(x.shape)}."
            )
        rows = max(1, self.chunk // len(self.data))
        exact = state(x)
        alpha, sigma = (broadcast(v, exact).reshape(-1).expand(len(x)) for v in (alpha, sigma))
        data = self.data.to(exact).flatten(1)
        parts = [
            self.weights(*part) @ data
            for part in zip(x.split(rows), alpha.split(rows), sigma.split(rows), strict=True)
        ]
        return torch.cat(parts).reshape(x.shape).to(x.dtype)  # eq-ideal

    def weights(self, x: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
        """The posterior probability of each data point given `x`: `[b, n]`, rows sum to 1."""
        x = state(x).flatten(1)
        data = self.data.to(x).flatten(1)
        alpha, sigma = broadcast(alpha, x), broadcast(sigma, x)
        squares = (x**2).sum(1, keepdim=True) - 2 * alpha * x @ data.T + alpha**2 * (data**2).sum(1)
        nearer = (
            squares.amin(1, keepdim=True) - squares
        )  # at most 0, so the softmax cannot overflow
        return torch.softmax(nearer / (2 * sigma.clamp(min=1e-150) ** 2), dim=1)  # eq-posterior
