"""The average of weights: its decay, what it averages, and what it shares."""

import pytest
import torch
from torch import nn

from sdlib.training import EMA


def fill(network, value):
    with torch.no_grad():
        network.bias.fill_(value)


def test_ema_is_an_average():
    net = nn.Linear(2, 2)
    ema, mean = EMA(net, decay=0.8), net.bias.detach().clone()
    for k in range(30):
        fill(net, float(k))
        ema.update(net)
        keep = min(0.8, (2 + k) / (11 + k))
        mean = keep * mean + (1 - keep) * k
    torch.testing.assert_close(ema.network.bias, mean)
    assert not any(p.requires_grad for p in ema.network.parameters())
    assert net.bias.requires_grad and not ema.network.training
    with pytest.raises(ValueError, match="decay"):
        EMA(net, 1.0)


def test_frozen_weights_are_shared_and_buffers_copied():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net[0].weight.requires_grad_(False)
    ema = EMA(net, 0.5)
    assert ema.network[0].weight is net[0].weight
    assert ema.network[0].bias is not net[0].bias
    with torch.no_grad():
        net[0].weight.fill_(3.0)
    net(torch.randn(8, 2))
    ema.update(net)
    assert bool((ema.network[0].weight == 3).all())
    assert torch.equal(ema.network[1].running_mean, net[1].running_mean)
    assert "0.weight" not in ema.state_dict()["network"]


def test_a_state_is_put_back():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema, other = EMA(net, 0.5), EMA(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), 0.5)
    net(torch.randn(8, 2))
    fill(net[0], 1.0)
    ema.update(net)
    other.load_state_dict(ema.state_dict())
    assert other.updates == 1
    for mine, theirs in zip(
        other.network.state_dict().values(), ema.network.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs)
