"""What the network is asked for: eps, x0, v or flow (Chapter 5).

Given the noisy sample `x = alpha * x0 + sigma * eps`, any one of these determines the others.
Each parameterization is a pair of functions: the training target, and the way back to x0. EDM's
preconditioning is one more, whose network sees a scaled sample and the logarithm of its noise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sdlib.checks import pick
from sdlib.diffusion.tensors import broadcast


def _as_it_is(x: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    return x, t


@dataclass(frozen=True, eq=False)
class Parameterization:
    """A training target and its inverse; alpha and sigma broadcast against the samples.

    Attributes:
        name: "eps", "x0", "v", "flow" or "edm".
        target: `(x0, eps, alpha, sigma)` -> what the network should output.
        to_x0: `(out, x, alpha, sigma)` -> the estimate of x0 that an output stands for.
        inputs: `(x, t, alpha, sigma)` -> the sample and the time that the network is shown.
        options: by which `parameterization(name, **options)` makes it again.
    """

    name: str
    target: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    to_x0: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    inputs: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] = _as_it_is
    options: Mapping[str, Any] = field(default_factory=dict)

    def x0_error(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The squared error in x0 that a squared error of 1 in the output makes, `[b]`.

        `to_x0` is linear in the output, so its slope says it: (sigma / alpha)^2 for eps.
        """
        one = torch.ones_like(alpha)
        return self.to_x0(one, torch.zeros_like(one), alpha, sigma) ** 2  # eq-x0-error


def _eps_target(x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return eps


def _eps_to_x0(out: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    if bool((alpha == 0).any()):
        raise ValueError(
            "eps-prediction cannot recover x0 where alpha = 0 (zero terminal SNR): "
            "the input is all noise. Use v-prediction there."
        )
    return (x - sigma * out) / alpha  # eq-eps-to-x0


def _x0_target(x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return x0


def _x0_to_x0(out: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return out


def _v_target(x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return alpha * eps - sigma * x0  # eq-v


def _v_to_x0(out: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return (alpha * x - sigma * out) / (alpha**2 + sigma**2)  # eq-v-to-x0


def _flow_target(x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return eps - x0  # eq-flow-target


def _flow_to_x0(out: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return (x - sigma * out) / (alpha + sigma)  # eq-flow-to-x0


PARAMETERIZATIONS: dict[str, Parameterization] = {
    # Ho et al. 2020, equation 14: the noise itself.
    "eps": Parameterization("eps", _eps_target, _eps_to_x0),
    # The clean sample itself.
    "x0": Parameterization("x0", _x0_target, _x0_to_x0),
    # Salimans & Ho 2022, section 4: the velocity on the circle.
    "v": Parameterization("v", _v_target, _v_to_x0),
    # Lipman et al. 2023; Liu et al. 2023: the velocity on the straight line.
    "flow": Parameterization("flow", _flow_target, _flow_to_x0),
}


def edm(sigma_data: float = 1.0) -> Parameterization:
    """EDM's preconditioning (Karras et al. 2022, equation 7 and table 1).

    x0 = c_skip y + c_out F(c_in y, c_noise), with y = x / alpha of noise level s = sigma / alpha.
    Inputs and targets of the network F have unit variance at every noise level, if the data's
    standard deviation is `sigma_data`. The network is told values from about -1.5 to 1.5. For data
    of unit variance and a variance-preserving schedule, F is -v.
    """
    if not sigma_data > 0:
        raise ValueError(
            f"sigma_data is a standard deviation and must be positive; got {sigma_data}."
        )

    def total(alpha: Tensor, sigma: Tensor) -> Tensor:
        return (sigma**2 + (alpha * sigma_data) ** 2).sqrt()

    def target(x0, eps, alpha, sigma):
        return (sigma / sigma_data * x0 - alpha * sigma_data * eps) / total(alpha, sigma)

    def to_x0(out, x, alpha, sigma):
        r = total(alpha, sigma)
        return sigma_data * (alpha * sigma_data / r * x + sigma * out) / r  # eq-edm-denoiser

    def inputs(x, t, alpha, sigma):
        if bool((alpha == 0).any()):
            raise ValueError(
                "EDM's network is told log(sigma / alpha) / 4, which is infinite where alpha = 0 "
                "(zero terminal SNR): start the grid at a later node."
            )
        noise = (sigma / alpha).clamp(min=1e-20).log() / 4
        return x / total(alpha, sigma), noise.flatten() if noise.ndim else noise

    return Parameterization("edm", target, to_x0, inputs, {"sigma_data": sigma_data})


def parameterization(name: str | Parameterization, **options) -> Parameterization:
    """The parameterization called `name`; one that you made yourself passes through.

    Args:
        name: in `PARAMETERIZATIONS`, or "edm".
        options: of "edm" (`sigma_data`).
    """
    if isinstance(name, Parameterization):
        found = name
    else:
        found = pick("parameterization", {**PARAMETERIZATIONS, "edm": edm}, name)
    if callable(found):
        return found(**options)
    if options:
        raise ValueError(f"{found.name}-prediction has no options; got {', '.join(options)}.")
    return found


def to_eps(x0: Tensor, x: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """The noise that goes with an estimate of x0: (x - alpha x0) / sigma, where sigma > 0."""
    return (x - broadcast(alpha, x) * x0) / broadcast(sigma, x)  # eq-to-eps
