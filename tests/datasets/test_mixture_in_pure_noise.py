"""A mixture as a denoiser where no signal is left: flow at t = 1, and zero terminal SNR."""

import pytest
import torch

from sdlib.datasets.plane import GaussianMixture
from sdlib.diffusion import ddim, make_grid, schedule, zero_terminal_snr

SKEWED = GaussianMixture([[2.0, 1.0], [-1.0, 0.5]], [0.2, 0.4], [3.0, 1.0])


@pytest.mark.parametrize("alpha", [0.0, 1e-17, 1e-9])
def test_pure_noise_gives_the_mean_of_the_whole(alpha):
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = torch.tensor([1.25, 0.875], dtype=torch.float64).expand(7, 2)
    torch.testing.assert_close(SKEWED(x, 1.0, alpha, 1.0), mean)
    alphas = torch.tensor([alpha] * 6 + [1.0])
    each = SKEWED(x, 1.0, alphas, torch.tensor([1.0] * 6 + [1e-3]))
    torch.testing.assert_close(each[:6], mean[:6])
    assert not torch.allclose(each[6], mean[6])


@pytest.mark.parametrize("levels", [schedule("flow"), zero_terminal_snr(schedule("scaled_linear"))])
def test_sampling_from_pure_noise_is_finite(levels):
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
    *_, last = ddim(SKEWED, make_grid(levels, 10), x)
    assert torch.isfinite(last.x).all()
