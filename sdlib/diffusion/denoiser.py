"""Denoisers: anything that looks at a noisy sample and says what the clean one was (Chapter 4).

A denoiser is a function `(x, t, alpha, sigma, cond) -> estimate of x0`. Samplers, guidance and
evaluation need nothing else, so a trained network, an exact formula and a combination of
denoisers can stand in for each other.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sdlib.checks import finite
from sdlib.diffusion.parameterization import Parameterization, parameterization
from sdlib.diffusion.tensors import broadcast, state


class Denoiser(Protocol):
    """Estimates x0 from `x = alpha * x0 + sigma * eps`.

    Args of a call:
        x: noisy samples, `[b, ...]`.
        t: what the network was told in training, a scalar or `[b]`.
        alpha, sigma: the noise level of `x`, scalars or `[b]`.
        cond: the condition, batch first: None, a tensor, or a dict of tensors.

    Returns:
        the estimate, in the shape of `x`.
    """

    def __call__(
        self, x: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, cond: Any = None
    ) -> Tensor: ...


def _at(cond: Any, device: torch.device) -> Any:
    """A condition (None, a tensor, or a dict of tensors) on a device."""
    if isinstance(cond, dict):
        return {key: _at(value, device) for key, value in cond.items()}
    return cond.to(device) if isinstance(cond, Tensor) else cond


def _ask(network: nn.Module, x: Tensor, t: Tensor | float, cond: Any) -> Tensor:
    """A network's answer to `x` at times `t`, one or `[b]`, on its device and in its precision.

    The way back to `x` is recorded if `x` requires a gradient (as likelihoods do).
    """
    like = next(network.parameters())
    with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
        t = broadcast(t, x).reshape(-1).expand(len(x))  # in the precision of x: half rounds 981
        t = t.to(like.device, torch.promote_types(like.dtype, torch.float32))
        return network(x.to(like), t, _at(cond, like.device))


class NetworkDenoiser:
    """A network `net(x, t, cond)` and what it predicts, as a denoiser.

    The network runs on its own device and in its own precision; the conversion to x0 runs in the
    precision of `x`, where `x` is. Nothing is recorded for gradients unless `x` asks for its own.
    """

    def __init__(self, network: nn.Module, predicts: str | Parameterization = "eps"):
        self.network = network
        self.parameterization = parameterization(predicts)

    def __call__(self, x, t, alpha, sigma, cond=None):
        out = _ask(self.network, x, t, cond).to(x)
        return self.parameterization.to_x0(out, x, broadcast(alpha, x), broadcast(sigma, x))


class EDMDenoiser:
    """A raw network F inside EDM's preconditioning (Karras et al. 2022, equation 7 and table 1).

    x0 = c_skip y + c_out F(c_in y, c_noise), with y = x / alpha of noise level s = sigma / alpha.
    It keeps the network's inputs and targets at unit variance at every noise level.
    """

    def __init__(self, network: nn.Module, sigma_data: float = 1.0):
        if not sigma_data > 0:
            raise ValueError(
                f"sigma_data is a standard deviation and must be positive; got {sigma_data}."
            )
        self.network, self.sigma_data = network, sigma_data

    def __call__(self, x, t, alpha, sigma, cond=None):
        alpha, sigma = broadcast(alpha, x), broadcast(sigma, x)
        if bool((alpha == 0).any()):
            raise ValueError(
                "EDM's network is told log(sigma / alpha) / 4, which is infinite where alpha = 0 "
                "(zero terminal SNR): start the grid at a later node."
            )
        y, s, d = x / alpha, sigma / alpha, self.sigma_data
        total = (s**2 + d**2).sqrt()
        noise = s.clamp(min=1e-20).log() / 4
        noise = noise.flatten() if noise.ndim else noise
        out = _ask(self.network, y / total, noise, cond).to(x)
        return (d / total) ** 2 * y + s * d / total * out  # eq-edm-denoiser


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
        data = torch.as_tensor(data)
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
