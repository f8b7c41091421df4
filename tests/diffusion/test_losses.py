"""Adding noise in one jump or in many; the losses and how they weigh each other."""

import pytest
import torch

from sdlib.diffusion import (
    PARAMETERIZATIONS,
    WEIGHTINGS,
    diffusion_loss,
    log_normal,
    logit_normal,
    parameterization,
    q_sample,
    q_sample_iterative,
    schedule,
    weighting,
)
from sdlib.models import MLP, MLPConfig


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def test_q_sample_is_its_formula_and_broadcasts():
    x0, eps = torch.randn(2, 3, 4, 5, generator=gen(), dtype=torch.float64)
    alpha, sigma = torch.tensor([1.0, 0.5, 0.0]), torch.tensor([0.0, 0.5, 2.0])
    x = q_sample(x0, eps, alpha, sigma)
    torch.testing.assert_close(x[0], x0[0])
    torch.testing.assert_close(x[1], 0.5 * x0[1] + 0.5 * eps[1])
    torch.testing.assert_close(x[2], 2 * eps[2])
    with pytest.raises(ValueError, match="shape of x0"):
        q_sample(x0, eps[:1], alpha, sigma)


def test_iterative_lands_where_the_jump_does():
    s = schedule("linear", steps=100)
    x0 = torch.full((100_000, 2), 3.0, dtype=torch.float64)
    g = gen()
    x = q_sample_iterative(x0, s.betas[:60], lambda x: torch.randn(x.shape, generator=g).double())
    alpha, sigma = s(59)
    assert x.mean().item() == pytest.approx(3 * alpha.item(), abs=4 * sigma.item() / 447)
    assert x.std().item() == pytest.approx(sigma.item(), rel=0.01)


def test_iterative_is_the_papers_step():
    x0 = torch.tensor([[2.0, -1.0]])
    x = q_sample_iterative(x0, torch.tensor([0.36]), lambda x: torch.ones_like(x))
    torch.testing.assert_close(x, 0.8 * x0 + 0.6)
    torch.testing.assert_close(q_sample_iterative(x0, [0.36], torch.ones_like), x)
    with pytest.raises(ValueError, match="between 0 and 1"):
        q_sample_iterative(x0, torch.tensor([1.5]))


def by_hand(net, x0, s, predicts, weight=None):
    g = gen(5)
    t = s.sample_t(len(x0), g)
    eps = torch.randn(x0.shape, generator=g, dtype=x0.dtype)
    alpha, sigma = (v[:, None].to(x0.dtype) for v in s(t))
    p = parameterization(predicts)
    error = (net(alpha * x0 + sigma * eps, t.float()) - p.target(x0, eps, alpha, sigma)) ** 2
    w = 1.0 if weight is None else weight(alpha.double(), sigma.double()).float()
    return (w * error).mean()


@pytest.mark.parametrize("name", ["linear", "flow"])
@pytest.mark.parametrize("predicts", PARAMETERIZATIONS)
def test_plain_loss_is_the_mean_square(name, predicts):
    s = schedule(name)
    torch.manual_seed(0)
    net = MLP(MLPConfig(width=8, t_max=s.t_max))
    x0 = torch.randn(32, 2, generator=gen())
    loss = diffusion_loss(net, x0, s, predicts, generator=gen(5))
    torch.testing.assert_close(loss, by_hand(net, x0, s, predicts))


WEIGHTS_ON_X0 = {
    "x0": lambda snr: torch.ones_like(snr),
    "snr": lambda snr: snr,
    "min_snr": lambda snr: snr.clamp(max=5),
    "edm": lambda snr: snr + 1,
}


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("predicts", PARAMETERIZATIONS)
def test_weightings_weigh_x0_errors(name, predicts):
    """Whatever the network predicts, the weighted loss is w(SNR) times the squared error in x0."""
    s = schedule("scaled_linear")
    alpha, sigma = s(torch.tensor([5.0, 400.0, 990.0]))
    p = parameterization(predicts)
    x0, eps = torch.randn(2, 3, 2, generator=gen(), dtype=torch.float64)
    x = q_sample(x0, eps, alpha, sigma)
    a, sg = alpha[:, None], sigma[:, None]
    out = p.target(x0, eps, a, sg) + 0.1
    weighted = weighting(name)(p, alpha, sigma)[:, None] * 0.1**2
    x0_error = (p.to_x0(out, x, a, sg) - x0) ** 2
    snr = (alpha / sigma) ** 2
    torch.testing.assert_close(weighted.expand(3, 2), WEIGHTS_ON_X0[name](snr)[:, None] * x0_error)


def test_snr_weight_on_eps_is_the_simple_loss():
    s = schedule("linear")
    torch.manual_seed(0)
    net, x0 = MLP(MLPConfig(width=8)), torch.randn(64, 2, generator=gen())
    plain = diffusion_loss(net, x0, s, "eps", generator=gen(5))
    same = diffusion_loss(net, x0, s, "eps", "snr", generator=gen(5))
    torch.testing.assert_close(plain, same, rtol=1e-5, atol=0)


def test_weighted_loss_is_by_hand():
    s = schedule("linear")
    torch.manual_seed(0)
    net, x0 = MLP(MLPConfig(width=8)), torch.randn(64, 2, generator=gen())
    mine = lambda p, alpha, sigma: alpha**2  # noqa: E731
    loss = diffusion_loss(net, x0, s, "v", mine, generator=gen(5))
    torch.testing.assert_close(loss, by_hand(net, x0, s, "v", lambda a, s: a**2))
    with pytest.raises(ValueError, match="x0, snr, min_snr, edm"):
        diffusion_loss(net, x0, s, "v", "heavy")


def test_batches_that_cannot_be_learned_from_are_refused():
    s, x0 = schedule("linear"), torch.randn(4, 2)
    for bad in (x0[:0], x0.long()):
        with pytest.raises(ValueError, match="x0 must hold"):
            diffusion_loss(MLP(), bad, s)
    with pytest.raises(ValueError, match=r"shape of x0, \(4, 2\); got \(4, 1\)"):
        diffusion_loss(lambda x, t, cond: x[:, :1], x0, s)


def test_a_seed_repeats_the_loss():
    net, x0, s = MLP(MLPConfig(width=8)), torch.randn(64, 2), schedule("linear")
    a, b, c = (diffusion_loss(net, x0, s, generator=gen(k)).item() for k in (1, 1, 2))
    assert a == b != c


def test_halves_round_neither_times_nor_errors():
    """bf16 holds 8 bits: 999 would become 1000, which is no entry of the table."""
    told = []

    def net(x, t, cond):
        told.append(t)
        return 0 * x

    x0 = torch.randn(64, 2, generator=gen(1))
    s = schedule("linear")
    half = diffusion_loss(net, x0.bfloat16(), s, "eps", "min_snr", generator=gen(5))
    exact = diffusion_loss(net, x0.bfloat16().float(), s, "eps", "min_snr", generator=gen(5))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=1e-6, atol=0)
    assert torch.equal(told[0], told[1]) and told[0].max() <= 999
    assert len(told[0].unique()) > 55


def test_times_can_be_chosen():
    n = 20_000
    flow, edm = schedule("flow"), schedule("edm")
    t = logit_normal(0.5, 0.8)(flow, n, gen(0))
    z = torch.logit(t)
    assert z.mean().item() == pytest.approx(0.5, abs=0.05)
    assert z.std().item() == pytest.approx(0.8, abs=0.05)
    alpha, sigma = edm(log_normal()(edm, n, gen(0)))
    z = (sigma / alpha).log()
    assert z.mean().item() == pytest.approx(-1.2, abs=0.1)
    assert z.std().item() == pytest.approx(1.2, abs=0.1)
    seen = []
    net = lambda x, t, cond: seen.append(t) or 0 * x  # noqa: E731
    half = lambda schedule, n, generator: torch.full((n,), 0.5)  # noqa: E731
    diffusion_loss(net, torch.randn(3, 2), flow, "flow", generator=gen(), times=half)
    assert seen[0].tolist() == [0.5] * 3
    x0 = torch.randn(3, 2)
    by_name = diffusion_loss(net, x0, flow, times="logit_normal", generator=gen())
    by_hand = diffusion_loss(net, x0, flow, times=logit_normal(), generator=gen())
    assert torch.equal(by_name, by_hand)
    with pytest.raises(ValueError, match="unknown times 'even'; choose one of: uniform, logit_nor"):
        diffusion_loss(net, x0, flow, times="even")


def test_edms_weight_is_one_on_what_its_network_says():
    alpha, sigma = torch.ones(3), torch.tensor([0.1, 1.0, 10.0])
    p = parameterization("edm", sigma_data=0.5)
    torch.testing.assert_close(weighting("edm")(p, alpha, sigma), torch.ones(3))
