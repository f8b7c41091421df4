"""Where the fast solvers get their weights: a polynomial through past estimates (Chapter 9).

A step of a linear multistep method needs the mean of a function over the step, of which it knows
the value where it stands and at some places behind, or ahead if it has been there to look. It puts
the polynomial through them and takes that one's mean. Here places are counted in steps, tau = 0
where the step begins and 1 where it ends, and the mean gives tau the weight exp(z (1 - tau)): z = 0
is a plain mean, z = -h the kernel of the ODE in lambda for estimates of x0, z = h the one for eps.
"""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor


def moments(z: float, n: int) -> np.ndarray:
    """The weighted means of tau, tau^2, ... tau^n over a step, `[n]`.

    They are k! phi_{k+1}(z) / phi_1(z), with phi_1(z) = (e^z - 1) / z and
    phi_{k+1}(z) = (phi_k(z) - 1 / k!) / z (Zhao et al. 2023, appendix; Lu et al. 2022).
    """
    if abs(z) < 1:  # the quotients cancel; the series has all digits
        phi = [sum(z**j / math.factorial(j + k + 1) for j in range(20)) for k in range(n + 1)]
    else:
        phi = [math.expm1(z) / z]
        for k in range(1, n + 1):
            phi.append((phi[-1] - 1 / math.factorial(k)) / z)
    whole, *rest = phi
    return np.array([math.factorial(k) * p for k, p in enumerate(rest, 1)]) / whole  # eq-moments


def fit(values: Sequence[Tensor], places: Sequence[float], z: float) -> Tensor:
    """The mean, over a step, of the polynomial through `values`.

    Args:
        values: `[b, ...]` each; the first is the value at tau = 0.
        places: tau of each of the others: below 0 for the past, 1 for the step's end.
        z: of the weight.
    """
    first, *others = values
    if not others:
        return first
    powers = [[place**k for place in places] for k in range(len(places))]
    weights = np.linalg.solve(powers, moments(z, len(places)))  # eq-fit
    slopes = ((value - first) / place for value, place in zip(others, places, strict=True))
    return first + sum(float(w) * slope for w, slope in zip(weights, slopes, strict=True))
