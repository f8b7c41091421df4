"""Where the fast solvers get their weights: a polynomial through past estimates (Chapter 9).

A step of a linear multistep method needs the mean of a function over the step, of which it knows
the value where it stands and at some places behind. It puts the polynomial through them and takes
that one's mean. Here places are counted in steps, tau = 0 where the step begins and 1 where it
ends, and the mean gives tau the weight exp(z (1 - tau)): z = 0 is a plain mean, z = -h the kernel
of the ODE in lambda for estimates of x0, z = h the one for eps.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def moments(z: Tensor, n: int) -> Tensor:
    """The weighted means of tau, tau^2, ... tau^n over a step, `[n]`; z is a float64 scalar.

    They are k! phi_{k+1}(z) / phi_1(z), with phi_1(z) = (e^z - 1) / z and
    phi_{k+1}(z) = (phi_k(z) - 1 / k!) / z (Zhao et al. 2023, appendix; Lu et al. 2022).
    """
    if abs(z) < 1e-2:  # the quotients cancel; the series has all digits
        series = [sum(z**j / math.factorial(j + k + 1) for j in range(10)) for k in range(n + 1)]
    else:
        series = [torch.expm1(z) / z]
        for k in range(1, n + 1):
            series.append((series[-1] - 1 / math.factorial(k)) / z)
    whole, *rest = torch.stack([torch.as_tensor(phi) for phi in series])
    factors = torch.tensor([math.factorial(k) for k in range(1, n + 1)], dtype=torch.float64)
    return factors * torch.stack(rest) / whole  # eq-moments


def fit(values: Sequence[Tensor], places: Sequence[Tensor], z: Tensor) -> Tensor:
    """The mean, over a step, of the polynomial through `values`.

    Args:
        values: `[b, ...]` each; the first is the value at tau = 0.
        places: tau of each of the others, scalars: below 0 for the past, 1 for the step's end.
        z: of the weight, a scalar.
    """
    first, *others = values
    if not others:
        return first
    tau, n = torch.stack(list(places)), len(others)
    powers = tau ** torch.arange(n, dtype=torch.float64)[:, None]
    weights = torch.linalg.solve(powers, moments(z, n))  # eq-fit
    slopes = ((value - first) / place for value, place in zip(others, tau, strict=True))
    return first + sum(weight * slope for weight, slope in zip(weights, slopes, strict=True))
