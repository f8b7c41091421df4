"""The weights of multistep solvers: means of polynomials under an exponential weight."""

import math

import pytest
import torch

from sdlib.diffusion.samplers.fit import fit, moments


def mean(function, z, n=200_001):
    """The mean over [0, 1] under exp(z (1 - tau)), by Simpson's rule."""
    tau = torch.linspace(0, 1, n, dtype=torch.float64)
    simpson = torch.ones(n, dtype=torch.float64)
    simpson[1:-1:2], simpson[2:-1:2] = 4, 2
    weight = simpson * torch.exp(z * (1 - tau))
    return ((weight * function(tau)).sum() / weight.sum()).item()


@pytest.mark.parametrize("z", [-5.0, -1.001, -0.999, -0.3, -1e-6, 0.0, 1e-4, 0.9, 1.1, 2.0])
def test_moments_are_means_of_powers(z):
    ours = moments(z, 4)
    for k in range(1, 5):
        assert ours[k - 1] == pytest.approx(mean(lambda tau, k=k: tau**k, z), rel=1e-8)


@pytest.mark.parametrize("z", [-0.8, 0.0, 0.8])
@pytest.mark.parametrize("places", [[], [-1.0], [-0.7, -1.9], [-0.7, 1.0], [-0.5, -1.2, -3.0]])
def test_fit_is_exact_for_polynomials_of_its_degree(z, places):
    coefficients = [0.3, -1.1, 0.7, 2.0][: len(places) + 1]

    def polynomial(tau):
        return sum(c * tau**k for k, c in enumerate(coefficients))

    values = [torch.full((3,), polynomial(p), dtype=torch.float64) for p in (0.0, *places)]
    expected = torch.full((3,), mean(polynomial, z), dtype=torch.float64)
    torch.testing.assert_close(fit(values, places, z), expected, rtol=1e-9, atol=1e-9)


def test_even_places_give_adams_bashforth():
    """With a plain mean and even steps: 55, -59, 37, -9 over 24 (Butcher 2016, section 24)."""
    basis = torch.eye(4, dtype=torch.float64)
    weights = fit(list(basis), [-1.0, -2.0, -3.0], 0.0)
    torch.testing.assert_close(weights * 24, torch.tensor([55.0, -59, 37, -9]).double())
    assert math.isclose(weights.sum().item(), 1)
