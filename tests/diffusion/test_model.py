"""A trained diffusion: its denoiser, its loss, its settings; EDM's preconditioning trained."""

import json
from dataclasses import replace

import pytest
import torch

from sdlib.diffusion import (
    PARAMETERIZATIONS,
    SCHEDULES,
    Diffusion,
    NetworkDenoiser,
    Schedule,
    ddim,
    diffusion_loss,
    log_normal,
    make_grid,
    parameterization,
    sample,
    schedule,
    zero_terminal_snr,
)
from sdlib.models import MLP, MLPConfig


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def made(predicts="v", name="cosine", **options):
    torch.manual_seed(0)
    return Diffusion(
        MLP(MLPConfig(width=16)), schedule(name, **options), parameterization(predicts)
    )


def test_its_denoiser_and_loss_are_those_of_its_parts():
    d, x = made(), torch.randn(5, 2, generator=gen())
    alpha, sigma = d.schedule(300)
    apart = NetworkDenoiser(d.network, "v")(x, 300, alpha, sigma)
    assert torch.equal(d.denoiser()(x, 300, alpha, sigma), apart)
    options = {"weight": "min_snr"}
    loss = diffusion_loss(d.network, x, d.schedule, "v", generator=gen(1), **options)
    assert torch.equal(d.loss(x, generator=gen(1), **options), loss)


@pytest.mark.parametrize("predicts", [*PARAMETERIZATIONS, "edm"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_card_brings_it_back(predicts, name):
    d = made(predicts, name)
    settings = json.loads(json.dumps(d.settings()))
    back = Diffusion.from_settings(d.network, settings)
    x, t = torch.randn(4, 2, generator=gen()).double(), 0.3 * d.schedule.t_max
    call = (x, t, *d.schedule(t))
    torch.testing.assert_close(back.denoiser()(*call), d.denoiser()(*call), rtol=0, atol=0)


def test_options_are_kept():
    d = made(parameterization("edm", sigma_data=0.5), "scaled_linear", steps=100, beta_end=0.1)
    settings = d.settings()
    assert settings["schedule_options"] == {"steps": 100, "beta_end": 0.1}
    assert settings["predicts"] == "edm" and settings["predicts_options"] == {"sigma_data": 0.5}
    zero = Diffusion(d.network, zero_terminal_snr(d.schedule), parameterization("v"))
    back = Diffusion.from_settings(d.network, zero.settings())
    assert torch.equal(back.schedule.alpha_bar, zero.schedule.alpha_bar)
    assert back.schedule.alpha_bar[-1] == 0
    own = Diffusion(d.network, Schedule("mine", lambda t: (1 - t, t)), parameterization("v"))
    with pytest.raises(ValueError, match="'mine' was made by hand"):
        own.settings()
    mine = replace(parameterization("eps"), to_x0=lambda out, x, alpha, sigma: out)
    with pytest.raises(ValueError, match="parameterization 'eps' was made by hand"):
        Diffusion(d.network, d.schedule, mine).settings()


def test_edm_can_be_trained():
    """On data of standard deviation 0.5, at EDM's times: the loss falls, samples have that spread,
    and the network always sees inputs of unit variance."""
    seen = []

    class Watched(MLP):
        def forward(self, x, t, cond=None):
            seen.append(x.detach())
            return super().forward(x, t, cond)

    torch.manual_seed(0)
    network = Watched(MLPConfig(width=32, t_max=1.0))
    d = Diffusion(network, schedule("edm"), parameterization("edm", sigma_data=0.5))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses, g = [], gen(1)
    for _ in range(400):
        sign = torch.randint(0, 2, (256, 1), generator=g) * 2 - 1
        x0 = 0.5 * sign * torch.ones(1, 2) + 0.02 * torch.randn(256, 2, generator=g)
        loss = d.loss(x0, times=log_normal(), generator=g)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-50:]) < 0.5 * sum(losses[:10]) * 5
    assert 0.9 < torch.cat(seen).std() < 1.1
    grid = make_grid(d.schedule, 20)
    x = sample(ddim(d.denoiser(), grid, grid.sigma[0] * torch.randn(500, 2, generator=g)))
    assert (x.abs() - 0.5).abs().mean() < 0.15
    assert 0.3 < (x[:, 0] > 0).double().mean() < 0.7


def test_the_target_of_edm_inverts_its_denoiser():
    p = parameterization("edm", sigma_data=0.5)
    x0, eps = torch.randn(6, 2, generator=gen()).double(), torch.randn(6, 2, generator=gen(1))
    alpha, sigma = torch.tensor([[1.0], [0.8], [0.6], [0.3], [0.1], [1.0]]).double(), 0.7
    sigma = torch.full_like(alpha, sigma)
    x = alpha * x0 + sigma * eps.double()
    out = p.target(x0, eps.double(), alpha, sigma)
    torch.testing.assert_close(p.to_x0(out, x, alpha, sigma), x0, rtol=0, atol=1e-12)
