"""Denoisers: the ideal one against its formula, at every scale; the adapters around a network."""

import pytest
import torch
from torch import nn

from sdlib.datasets.plane import MIXTURE
from sdlib.diffusion import IdealDenoiser, NetworkDenoiser, broadcast, parameterization


def points(n, seed=0, dtype=torch.float64):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("alpha, sigma", [(0.8, 0.6), (0.1, 0.99), (1.0, 3.0)])
def test_ideal_is_the_posterior_mean(alpha, sigma):
    data, x = points(7), points(5, 1)
    log = torch.stack([-((x - alpha * d) ** 2).sum(1) / (2 * sigma**2) for d in data], 1)
    weights = log.exp() / log.exp().sum(1, keepdim=True)
    torch.testing.assert_close(IdealDenoiser(data)(x, 0, alpha, sigma), weights @ data)


def test_ideal_agrees_with_the_exact_mixture():
    data = MIXTURE.sample(50_000, torch.Generator().manual_seed(0))
    x = points(20, 1)
    a, s = 0.7, 0.714
    torch.testing.assert_close(
        IdealDenoiser(data)(x, 0, a, s), MIXTURE(x, 0, a, s), rtol=0, atol=0.03
    )


@pytest.mark.parametrize("sigma", [0.0, 1e-300, 1e-30, 1e-9, 1e-4])
def test_ideal_at_tiny_sigma_is_the_nearest_point(sigma):
    data, x = points(200), points(50, 1)
    nearest = data[torch.cdist(x, data).argmin(1)]
    torch.testing.assert_close(IdealDenoiser(data)(x, 0, 1.0, sigma), nearest)


@pytest.mark.parametrize("alpha, sigma", [(0.0, 1.0), (1e-9, 1.0), (1.0, 1e12), (1.0, 1e200)])
def test_ideal_at_pure_noise_is_the_mean(alpha, sigma):
    data, x = points(200), points(50, 1)
    out = IdealDenoiser(data)(x, 0, alpha, sigma)
    torch.testing.assert_close(out, data.mean(0).expand(50, 2), rtol=0, atol=1e-6)


def test_ideal_takes_a_level_a_sample_and_works_in_chunks(monkeypatch):
    data, x = points(30), points(11, 1)
    alpha = torch.linspace(0.1, 1, 11, dtype=torch.float64)
    sigma = torch.linspace(1, 0, 11, dtype=torch.float64)
    whole = IdealDenoiser(data)(x, 0, alpha, sigma)
    monkeypatch.setattr(IdealDenoiser, "chunk", 60)  # two rows at a time
    torch.testing.assert_close(IdealDenoiser(data)(x, 0, alpha, sigma), whole)
    one = IdealDenoiser(data)(x[3:4], 0, alpha[3], sigma[3])
    torch.testing.assert_close(one, whole[3:4])


def test_ideal_keeps_dtype_and_any_shape():
    data = torch.randn(9, 3, 4, 4)
    x = torch.randn(2, 3, 4, 4)
    out = IdealDenoiser(data)(x, 0, 0.9, 0.1)
    assert out.dtype == torch.float32 and out.shape == x.shape
    rows = IdealDenoiser(data).weights(x, 0.9, 0.1).sum(1)
    torch.testing.assert_close(rows, torch.ones(2).double())


def test_ideal_refuses_bad_data():
    with pytest.raises(ValueError, match="finite"):
        IdealDenoiser(torch.tensor([[0.0, float("nan")]]))
    with pytest.raises(ValueError, match="data must be"):
        IdealDenoiser(torch.zeros(3))
    with pytest.raises(ValueError, match="shape of the data"):
        IdealDenoiser(torch.zeros(3, 2))(torch.zeros(4, 3), 0, 1.0, 1.0)
    with pytest.raises(ValueError, match="one a sample"):
        IdealDenoiser(torch.zeros(3, 2))(torch.zeros(4, 2), 0, torch.ones(3), 1.0)


class Constant(nn.Module):
    """Outputs a fixed tensor, and remembers what it was called with."""

    def __init__(self, out):
        super().__init__()
        self.out = nn.Parameter(out)

    def forward(self, x, t, cond=None):
        self.called = (x, t, cond)
        return self.out.expand(x.shape)


@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "flow"])
def test_network_denoiser_converts_the_output(predicts):
    x, out = points(4), torch.tensor([0.3, -0.2])
    net = Constant(out)
    x0 = NetworkDenoiser(net, predicts)(x, 7, 0.8, 0.6, cond="c")
    expected = {
        "eps": (x - 0.6 * out) / 0.8,
        "x0": out.double().expand(4, 2),
        "v": 0.8 * x - 0.6 * out,
        "flow": (x - 0.6 * out) / 1.4,
    }[predicts]
    torch.testing.assert_close(x0, expected, rtol=0, atol=1e-7)
    seen, t, cond = net.called
    assert seen.dtype == torch.float32 and t.tolist() == [7] * 4 and cond == "c"


def test_the_network_is_asked_where_it_stands():
    class Far(Constant):  # on a device that computes nothing, so the answer is made here
        def forward(self, x, t, cond=None):
            self.called = (x, t, cond["label"])
            return torch.full((4, 2), 0.5)

    net = Far(torch.zeros(2)).to("meta")
    x0 = NetworkDenoiser(net, "x0")(points(4), 7, 0.8, 0.6, {"label": torch.zeros(4)})
    assert all(value.device.type == "meta" for value in net.called)
    assert x0.device.type == "cpu" and x0.dtype == torch.float64


def test_times_of_another_batch_and_pure_noise_for_edm_are_refused():
    net = Constant(torch.zeros(2))
    with pytest.raises(ValueError, match="one a sample"):
        NetworkDenoiser(net)(points(4), torch.ones(3), 0.8, 0.6)
    with pytest.raises(ValueError, match="alpha = 0"):
        NetworkDenoiser(net, "edm")(points(4), 0, 0.0, 1.0)


def test_edm_denoiser_is_table_1():
    x, out, d = points(4), torch.tensor([0.3, -0.2]), 0.5
    alpha, sigma = 0.8, 0.6
    s = sigma / alpha
    net = Constant(out)
    got = NetworkDenoiser(net, parameterization("edm", sigma_data=d))(x, 0, alpha, sigma)
    skip, scale = d**2 / (s**2 + d**2), s * d / (s**2 + d**2) ** 0.5
    torch.testing.assert_close(got, skip * x / alpha + scale * out, rtol=0, atol=1e-7)
    seen, t, _ = net.called
    torch.testing.assert_close(seen.double(), x / alpha / (s**2 + d**2) ** 0.5, rtol=0, atol=1e-6)
    assert t[0].item() == pytest.approx(torch.tensor(s).log().item() / 4, abs=1e-6)


def test_edm_with_unit_data_is_v_prediction():
    """c_skip and c_out at sigma_data = 1 are v-prediction's alpha and -sigma (with F = -v)."""
    x, out = points(4), torch.tensor([0.3, -0.2])
    as_v = NetworkDenoiser(Constant(out), "v")(x, 0, 0.8, 0.6)
    as_edm = NetworkDenoiser(Constant(-out), "edm")(x, 0, 0.8, 0.6)
    torch.testing.assert_close(as_edm, as_v, rtol=0, atol=1e-7)


def test_broadcast_refuses_another_batch():
    with pytest.raises(ValueError, match="one a sample"):
        broadcast(torch.ones(3), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="floating-point"):
        broadcast(0.5, torch.ones(4, 2, dtype=torch.long))


def test_gradients_go_through_to_x_the_condition_and_the_network():
    """Likelihoods need the first, textual inversion the second, distillation the third."""

    class Net(torch.nn.Linear):
        def forward(self, x, t, cond=None):
            return super().forward(x) + cond

    net = Net(2, 2, bias=False)
    x, cond = torch.randn(3, 2, requires_grad=True), torch.zeros(3, 2, requires_grad=True)
    total = NetworkDenoiser(net, "x0")(x, 0, 0.8, 0.6, cond).sum()
    to_x, to_cond, to_net = torch.autograd.grad(total, (x, cond, net.weight))
    torch.testing.assert_close(to_x, net.weight.detach().sum(0).expand(3, 2))
    torch.testing.assert_close(to_cond, torch.ones(3, 2))
    torch.testing.assert_close(to_net, x.detach().sum(0).expand(2, 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_times_are_not_rounded_with_the_samples(dtype):
    net = Constant(torch.zeros(2))
    NetworkDenoiser(net, "v")(points(4, dtype=torch.float32).to(dtype), 981, 0.8, 0.6)
    assert net.called[1].tolist() == [981] * 4
