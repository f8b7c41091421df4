"""What the tests of the samplers share."""

import torch

from sdlib.datasets import plane
from sdlib.diffusion import SAMPLERS, Grid

STOCHASTIC = ("ddpm", "dpmpp_2m_sde", "edm", "euler_ancestral", "lcm")
DETERMINISTIC = tuple(sorted(set(SAMPLERS) - set(STOCHASTIC)))
MIXTURE = plane.GaussianMixture([[-1.0, 0.0], [1.0, 0.5], [0.2, -1.0]], [0.4, 0.5, 0.3])


def start(n=64, seed=1):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def recorded(seed=2):
    g = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=g, dtype=x.dtype)


def refuse(x):
    raise AssertionError("noise was drawn")


def last(steps):
    *_, step = steps
    return step.x


def even_in_lambda(steps, noisy=-4.0, clean=2.0):
    """A grid that ends above sigma = 0, so that no step has to be of lower order."""
    lam = torch.linspace(noisy, clean, steps + 1, dtype=torch.float64)
    return Grid(-lam, torch.sigmoid(2 * lam).sqrt(), torch.sigmoid(-2 * lam).sqrt())
