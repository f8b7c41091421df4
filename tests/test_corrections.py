"""The page of corrections: what it says is computed here, and the page must state these numbers.

A correction's test bears the name of its label: `(corr-eta)=` is held by `test_eta`.
"""

import math
import re
from pathlib import Path

import pytest
import torch

from sdlib.datasets import plane
from sdlib.diffusion import (
    SAMPLERS,
    ClassDenoiser,
    IdealDenoiser,
    classifier_free,
    ddim,
    ddpm,
    make_grid,
    q_sample,
    q_sample_iterative,
    schedule,
    to_eps,
    transfer,
)
from sdlib.diffusion.samplers import dpmpp_2m, dpmpp_3m, unipc
from sdlib.diffusion.samplers.fit import fit
from sdlib.diffusion.samplers.step import walk
from sdlib.diffusion.schedule import from_betas
from tests.diffusion.samplers.common import MIXTURE, even_in_lambda, last, start

BOOK = Path(__file__).resolve().parent.parent / "book"
PAGE = (BOOK / "corrections.md").read_text("utf8")
SECTIONS = dict(
    re.findall(r"^\((corr-[a-z-]+)\)=\n(.*?)(?=^\(corr-|\Z)", PAGE, re.DOTALL | re.MULTILINE)
)
SD, DDPM, COSINE = schedule("scaled_linear"), schedule("linear"), schedule("cosine")


def states(section: str, *values, digits: int = 3) -> None:
    """The section states each value, rounded to `digits`."""
    numbers = re.findall(r"-?\d+\.\d+|\d+", SECTIONS[section])
    for value in values:
        assert f"{float(value):.{digits}f}" in numbers, (
            f"{section} does not state {float(value):.{digits}f}"
        )


def step_of(schedule, above: float, below: float):
    (alpha, sigma), (alpha2, sigma2) = schedule(above), schedule(below)
    small = sigma2 * (1 - (alpha * sigma2 / (alpha2 * sigma)) ** 2).sqrt()
    large = (sigma**2 - (alpha * sigma2 / alpha2) ** 2).sqrt()
    return alpha, sigma, alpha2, sigma2, small, large


def test_every_correction_is_computed_here_or_cited():
    assert len(SECTIONS) == PAGE.count("\n### ") > 0, "a correction has no label, or the same"
    known = re.findall(
        r"^@\w+\{([^,]+),", (BOOK / "references.bib").read_text("utf8"), re.MULTILINE
    )
    for label, text in SECTIONS.items():
        cited = {
            key for found in re.findall(r"\{cite\}`([^`]+)`", text) for key in found.split(",")
        }
        assert cited <= set(known), f"{label}: not in references.bib"
        test = "test_" + label.removeprefix("corr-").replace("-", "_")
        assert test in globals() or cited, f"{label} is neither computed in {test} nor cited"


def test_variance():
    kept = SD.alpha_bar[500]
    states("corr-variance", 4 * kept + 1 - kept)
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 200_000, 1, generator=generator, dtype=torch.float64)
    x = q_sample(2 * x0, eps, *SD(500.0))
    assert x.var().item() == pytest.approx(float(4 * kept + 1 - kept), rel=0.02)


def test_step_forward():
    states("corr-step-forward", 1 + DDPM.betas.sum())


def test_training_steps():
    generator = torch.Generator().manual_seed(0)
    x = torch.full((20_000, 1), 2.0, dtype=torch.float64)
    noise = lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)  # noqa: E731
    slow = q_sample_iterative(x, SD.betas[:301], noise)
    alpha, sigma = SD(300.0)
    assert slow.mean().item() == pytest.approx(2 * float(alpha), abs=0.03)
    assert slow.std().item() == pytest.approx(float(sigma), abs=0.03)


def test_terminal():
    states("corr-terminal", SD(999.0)[0], DDPM(999.0)[0])
    states("corr-terminal", COSINE(999.0)[0], digits=5)


def test_linear():
    straight = from_betas("straight", torch.linspace(0.00085, 0.012, 1000))
    states("corr-linear", straight.alpha_bar[499], SD.alpha_bar[499])
    gaps = SD.betas.sqrt().diff()
    torch.testing.assert_close(gaps, gaps.mean().expand(999), rtol=0, atol=0.1 * gaps.mean().item())
    assert SD.betas.diff().max() > 2 * SD.betas.diff().min()


def test_sigmoid():
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(beta_schedule="sigmoid").alphas_cumprod
    states("corr-sigmoid", schedule("sigmoid").alpha_bar[499], theirs[499])


def test_index():
    states("corr-index", SD.alpha_bar[0], digits=5)
    torch.testing.assert_close(SD.alpha_bar[0], 1 - SD.betas[0])


@pytest.fixture(scope="module")
def game():
    """Chapter 1's guessing game, played by one who remembers 8,192 points."""
    generator = torch.Generator().manual_seed(2)
    memory = IdealDenoiser(plane.sample("swiss_roll", 8192, generator))
    x0 = plane.sample("swiss_roll", 4096, generator).double()
    t = torch.randint(0, 1000, (4096,), generator=generator)
    eps = torch.randn(4096, 2, generator=generator).double()
    return memory, x0, t, eps


def test_loss_zero(game):
    memory, x0, t, eps = game
    alpha, sigma = SD(t)
    x = q_sample(x0, eps, alpha, sigma)
    guess = to_eps(memory(x, t, alpha, sigma), x, alpha, sigma)
    best, linear = (guess - eps).square().mean(), SD.alpha_bar.mean()
    states("corr-loss-zero", best, linear)
    assert linear - best < 0.06 and "0.06" in SECTIONS["corr-loss-zero"]


def test_denoise(game):
    memory, x0, _, eps = game
    alpha, sigma = SD(999.0)
    guess = memory(q_sample(x0, eps, alpha, sigma), 999.0, alpha, sigma)
    states("corr-denoise", guess[:1000].norm(dim=1).mean())


def test_reparam():
    states("corr-reparam", SD.snr(0.0), digits=0)
    states("corr-reparam", SD.snr(999.0), digits=4)
    alpha, sigma = SD(300.0)
    x0, guess, eps = torch.randn(3, 5, 2, dtype=torch.float64)
    x = q_sample(x0, eps, alpha, sigma)
    error = (to_eps(guess, x, alpha, sigma) - eps).square()
    torch.testing.assert_close(error, SD.snr(300.0) * (guess - x0).square())


def test_elbo():
    beta, kept = DDPM.betas, DDPM.alpha_bar
    weight = beta**2 / (2 * beta * (1 - beta) * (1 - kept))
    states("corr-elbo", weight[0], weight[-1])
    assert bool((weight.diff() < 0).all() | (weight[0] > 40 * weight[-1]))


def test_score():
    x = torch.randn(50, 2, dtype=torch.float64)
    alpha, sigma = SD(400.0)
    eps = to_eps(plane.MIXTURE(x, None, alpha, sigma), x, alpha, sigma)
    torch.testing.assert_close(plane.MIXTURE.score(x, alpha, sigma), -eps / sigma)


def test_step():
    alpha, sigma, alpha2, sigma2, small, _ = step_of(DDPM, 500.0, 499.0)
    beta = DDPM.betas[500]
    states("corr-step", beta / sigma, sigma, (1 - beta).sqrt(), alpha)
    x, eps = torch.randn(2, 7, 2, dtype=torch.float64)
    mean = (x - beta / sigma * eps) / (1 - beta).sqrt()
    x0 = (x - sigma * eps) / alpha
    torch.testing.assert_close(transfer(x, x0, alpha, sigma, alpha2, sigma2, small), mean)


def test_ve():
    alpha, sigma, alpha2, sigma2, _, _ = step_of(SD, 500.0, 450.0)
    x, eps = torch.randn(2, 7, 2, dtype=torch.float64)
    ours = transfer(x, (x - sigma * eps) / alpha, alpha, sigma, alpha2, sigma2)
    exploding = x / alpha - (sigma / alpha - sigma2 / alpha2) * eps
    torch.testing.assert_close(ours, alpha2 * exploding)
    assert (ours - (x - (sigma - sigma2) * eps)).abs().max() > 0.1


def test_eta():
    *_, small, large = step_of(SD, 499.0, 449.0)
    states("corr-eta", small, large)
    grid = make_grid(SD, 20)
    x = torch.randn(100, 2, dtype=torch.float64)

    def walk(sampler, **options):
        g = torch.Generator().manual_seed(0)
        noise = lambda like: torch.randn(like.shape, generator=g, dtype=like.dtype)  # noqa: E731
        *_, last = sampler(plane.MIXTURE, grid, x, noise=noise, **options)
        return last.x

    one = walk(ddim, eta=1.0)
    torch.testing.assert_close(one, walk(ddpm, variance="small"))
    assert (one - walk(ddpm, variance="large")).abs().max() > 0.01


def test_ddim_training():
    """However much noise is fresh, a step leads to the same marginal."""
    x0, eps = torch.randn(2, 1, 5, dtype=torch.float64)
    alpha, sigma, alpha2, sigma2, small, large = step_of(SD, 499.0, 449.0)
    for c in (0.0, 0.5 * small, small, large):
        kept = transfer(alpha * x0 + sigma * eps, x0, alpha, sigma, alpha2, sigma2, c) - alpha2 * x0
        torch.testing.assert_close((kept / eps) ** 2 + c**2, (sigma2**2).expand(1, 5))


def test_leading():
    grids = {steps: make_grid(SD, steps, spacing="leading") for steps in (50, 10)}
    states("corr-leading", *(grid.t[0] for grid in grids.values()), digits=0)
    states("corr-leading", grids[10].alpha[0])
    assert all(make_grid(SD, n, spacing="trailing").t[0] == 999 for n in (1, 3, 10, 50))
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(steps_offset=1)
    theirs.set_timesteps(50)
    assert theirs.timesteps[0] == 981


def whole_parabola(denoiser, grid, x):
    """3M with all of its bend; tests/parity holds that `dpmpp_3m` has diffusers' weights."""
    past, lam = [], grid.lam.tolist()

    def move(i, x, x0, *levels):
        past[:] = [x0, *past[:2]]
        h = lam[i + 1] - lam[i]
        places = [(lam[i - k] - lam[i]) / h for k in range(1, len(past))]
        return transfer(x, fit(past, places, -h), *levels)

    yield from walk(denoiser, grid, x, None, move)


def test_third_order():
    short = even_in_lambda(3, -1e-6, 1e-6)  # tau = -2, -1, 0 and then the end of the step
    tau = lambda alpha, sigma: (alpha / sigma).log() / (short.lam[3] - short.lam[2])  # noqa: E731
    parabola = lambda x, t, alpha, sigma, cond=None: (  # noqa: E731
        (tau(alpha, sigma) - tau(short.alpha[2], short.sigma[2])) ** 2 + 0 * x
    )

    def mean(sampler):
        """What it takes for the mean of x0 over the last step."""
        *_, before, after = sampler(parabola, short, torch.ones(1, 1))
        keep = short.sigma[3] / short.sigma[2]
        return (after.x - keep * before.x) / (short.alpha[3] - keep * short.alpha[2])

    states("corr-third-order", mean(whole_parabola), mean(dpmpp_3m))

    exact = last(unipc(MIXTURE, even_in_lambda(1500), start(), order=3))

    def error(sampler, steps):
        ends = last(sampler(MIXTURE, even_in_lambda(steps), start())) - exact
        return ends.norm(dim=1).median()

    for sampler in (dpmpp_3m, whole_parabola):
        order = math.log2(error(sampler, 120) / error(sampler, 240))
        states("corr-third-order", order, digits=1)
    states("corr-third-order", error(dpmpp_3m, 120) / error(dpmpp_2m, 120), digits=2)


def test_guidance():
    u, c = torch.randn(2, 6)
    torch.testing.assert_close(u + 7.5 * (c - u), (1 + 6.5) * c - 6.5 * u)
    assert "7.5" in SECTIONS["corr-guidance"] and "6.5" in SECTIONS["corr-guidance"]


def test_sharpened():
    zero = torch.zeros(1, 1)
    class_ = plane.GaussianMixture(zero, torch.tensor([1.0]))
    whole = plane.GaussianMixture(zero, torch.tensor([2.0]).sqrt())
    guided = classifier_free(ClassDenoiser([class_], whole), 3.0, uncond=1)
    grid = make_grid(schedule("edm", sigma_max=1000.0), 200, "karras")
    x = grid.sigma[0] * torch.ones(1, 1, dtype=torch.float64)  # one standard deviation
    *_, last = SAMPLERS["heun"](guided, grid, x, cond=torch.tensor([0]))
    assert last.x.square().item() == pytest.approx(0.25, rel=0.01)
    states("corr-sharpened", 1 / (3 / 1 - 2 / 2), 2.0 ** (1 - 3))


def test_sample():
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(prediction_type="sample", clip_sample=False)
    theirs.set_timesteps(10)
    x, clean = torch.randn(2, 1, 1, 4, 4)
    assert torch.equal(theirs.step(clean, 500, x).pred_original_sample, clean)


def test_decoder():
    diffusers = pytest.importorskip("diffusers")
    small = {"block_out_channels": (8, 8), "norm_num_groups": 2}
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        **small,
    )
    unet = diffusers.UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
        **small,
    )
    for network in (vae.decoder, unet):
        kinds = {type(module).__name__ for module in network.modules()}
        assert "Upsample2D" in kinds and "ConvTranspose2d" not in kinds
    up = vae.decoder.up_blocks[0].upsamplers[0]
    assert up.conv.kernel_size == (3, 3)
    x = torch.randn(1, 8, 3, 3)
    repeated = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(up(x), up.conv(repeated))


def test_alpha():
    betas, t = SD.betas, torch.arange(1000)
    alpha, sigma = SD(t)
    bar = (1 - betas).cumprod(0)  # of 1 - beta, which is the paper's alpha
    torch.testing.assert_close(alpha**2, bar)
    torch.testing.assert_close(1 / (1 + (sigma / alpha) ** 2), bar)  # smalldiffusion's
    diffusers = pytest.importorskip("diffusers")
    options = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    euler = diffusers.EulerDiscreteScheduler(**options)
    expected = (sigma / alpha).flip(0).float()
    torch.testing.assert_close(euler.sigmas[:-1], expected, rtol=1e-4, atol=1e-4)
