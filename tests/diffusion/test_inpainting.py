import pytest
import torch

from sdlib.diffusion import SAMPLERS, IdealDenoiser, make_grid, schedule, seeded
from sdlib.diffusion.inpainting import blend, inpainting
from sdlib.diffusion.tensors import state

S = schedule("scaled_linear")
GRID = make_grid(S, 12, "trailing")
DATA = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
KNOWN = DATA[:1]
MASK = torch.tensor([1.0, 0.0, 0.0])
KEPT = MASK == 0


def start(eps):
    return GRID.alpha[0] * KNOWN + GRID.sigma[0] * eps


def walk(name, mask=MASK, known=KNOWN):
    eps = state(seeded([5, 6])(torch.zeros(2, 3)))
    denoiser = inpainting(IdealDenoiser(DATA), known, mask)
    return eps, list(SAMPLERS[name](denoiser, GRID, start(eps), noise=seeded([7, 8])))


def test_blend():
    painted, known = torch.ones(2, 3), torch.zeros(1, 3, dtype=torch.float64)
    assert blend(painted, known, MASK).tolist() == [[1, 0, 0]] * 2
    assert blend(painted, known, torch.tensor(0.25)).eq(0.25).all()
    assert blend(painted, known, MASK).dtype == painted.dtype  # that of what is painted


def test_the_estimate():
    denoiser = inpainting(lambda x, t, alpha, sigma, cond: x + cond, KNOWN, MASK)
    x = torch.randn(2, 3, dtype=torch.float64)
    x0 = denoiser(x, torch.tensor(5.0), torch.tensor(0.6), torch.tensor(0.8), 2.0)
    torch.testing.assert_close(x0[:, 0], x[:, 0] + 2)
    torch.testing.assert_close(x0[:, KEPT], KNOWN[:, KEPT].expand(2, -1))


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_known_arrives(name):
    """With every sampler, whether it draws noise or not."""
    _, steps = walk(name)
    arrived = steps[-1].x[:, KEPT]
    torch.testing.assert_close(arrived, KNOWN[:, KEPT].expand(2, -1), rtol=0, atol=1e-9)


DETERMINISTIC = ["ddim", "euler", "heun", "lms", "plms", "dpmpp_2m", "dpmpp_3m", "dpmpp_2s"]


@pytest.mark.parametrize("name", [*DETERMINISTIC, "dpm_solver", "unipc"])
def test_what_is_known_stays_under_the_first_noise(name):
    """At each node it is known under just that level's share: what RePaint writes there."""
    eps, steps = walk(name)
    for step in steps:
        right = GRID.alpha[step.i] * KNOWN + GRID.sigma[step.i] * eps
        torch.testing.assert_close(step.x[:, KEPT], right[:, KEPT], rtol=0, atol=1e-9)


def test_overwriting_the_state_gives_the_same():
    """DDIM, and after each step what is known under its noise."""
    eps, steps = walk("ddim")
    x, denoiser = start(eps), IdealDenoiser(DATA)
    for i in range(len(GRID)):
        x0 = denoiser(x, GRID.t[i], GRID.alpha[i], GRID.sigma[i])
        noise = (x - GRID.alpha[i] * x0) / GRID.sigma[i]
        x = GRID.alpha[i + 1] * x0 + GRID.sigma[i + 1] * noise
        x = torch.where(KEPT, GRID.alpha[i + 1] * KNOWN + GRID.sigma[i + 1] * eps, x)
        torch.testing.assert_close(steps[i + 1].x, x, rtol=0, atol=1e-9)


def test_the_rest_fits_what_is_known():
    """Of data that are four points, the one is painted that shares the known coordinate."""
    data = torch.tensor([[-1.0, -1.0], [-0.3, 1.0], [0.4, 3.0], [1.0, -3.0]], dtype=torch.float64)
    grid, known = make_grid(S, 60, "karras"), data[2:3]
    mask = torch.tensor([1.0, 0.0])
    eps = state(seeded(range(50))(torch.zeros(50, 2)))
    x = grid.alpha[0] * known + grid.sigma[0] * eps
    denoiser = inpainting(IdealDenoiser(data), known, mask)
    *_, last = SAMPLERS["ddpm"](denoiser, grid, x, noise=seeded(range(50, 100)))
    assert (last.x[:, 0] - 0.4).abs().lt(0.01).float().mean() > 0.9


@pytest.mark.parametrize("mask, right", [(0.0, KNOWN), (1.0, None)])
def test_all_or_nothing_known(mask, right):
    eps, steps = walk("dpmpp_2m", torch.tensor(mask))
    if right is None:
        *_, plain = SAMPLERS["dpmpp_2m"](IdealDenoiser(DATA), GRID, start(eps))
        right = plain.x
    torch.testing.assert_close(steps[-1].x, right.expand(2, -1), rtol=0, atol=1e-9)
