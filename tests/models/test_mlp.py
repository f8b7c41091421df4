"""The MLP: its shapes, its arithmetic, its sense of time and class, and what it refuses."""

import math

import pytest
import torch
from torch.nn import functional as F

from sdlib.models import MLP, MLPConfig
from sdlib.models.mlp import time_features


def test_time_features_are_sines_and_cosines():
    f = time_features(torch.tensor([0.0, 333.0]), 999.0, 2)
    u = 1 / 3
    row = [
        u,
        math.sin(math.pi * u),
        math.sin(2 * math.pi * u),
        math.cos(math.pi * u),
        math.cos(2 * math.pi * u),
    ]
    torch.testing.assert_close(f, torch.tensor([[0, 0, 0, 1, 1], row]))


def test_forward_is_written_out():
    torch.manual_seed(0)
    net = MLP(MLPConfig(width=5, depth=3, frequencies=2, t_max=1.0))
    x, t = torch.randn(4, 2), torch.rand(4)
    h = F.silu(net.first(torch.cat([x, time_features(t, 1.0, 2)], 1)))
    h = h + F.silu(net.hidden[0](h))
    h = h + F.silu(net.hidden[1](h))
    torch.testing.assert_close(net(x, t), net.last(h))


def test_a_scalar_time_is_for_all():
    net = MLP(MLPConfig(width=8))
    x = torch.randn(4, 2)
    torch.testing.assert_close(net(x, 7), net(x, torch.full((4,), 7.0)))
    assert not torch.allclose(net(x, 7), net(x, 700))


def test_classes():
    net = MLP(MLPConfig(width=8, classes=3))
    x = torch.randn(4, 2)
    none = net(x, 7)
    torch.testing.assert_close(none, net(x, 7, torch.full((4,), 3)))
    assert not torch.allclose(none, net(x, 7, torch.tensor([0, 1, 2, 0])))
    torch.testing.assert_close(net(x, 7, [0, 1, 2, 0]), net(x, 7, torch.tensor([0, 1, 2, 0])))
    assert net(x[:0], 7, torch.zeros(0, dtype=torch.long)).shape == (0, 2)
    for bad in (torch.tensor([0, 1]), torch.zeros(4)):
        with pytest.raises(ValueError, match="from 0 to 2"):
            net(x, 7, bad)
    for bad in (torch.full((4,), 4), torch.full((4,), -1)):
        with pytest.raises(ValueError, match="between 0 and 2, or are 3 for none"):
            net.check_condition(bad)
    net.check_condition(torch.tensor(2))  # of another shape, which `forward` refuses
    with pytest.raises(ValueError, match="no use for cond.'context'.; it knows label"):
        net(x, 7, {"context": x})
    with pytest.raises(ValueError, match="without context and classes"):
        MLP()(x, 7, torch.zeros(4))


def test_sizes():
    net = MLP(MLPConfig(dim=3, width=16, depth=4))
    assert net(torch.zeros(2, 3), 0).shape == (2, 3)
    assert sum(p.numel() for p in net.parameters()) == 16 * 20 + 16 + 3 * (16 * 16 + 16) + 3 * 17
    with pytest.raises(ValueError, match=r"\[b, 3\]"):
        net(torch.zeros(2, 2), 0)
    with pytest.raises(ValueError, match=r"one time or \[2\]"):
        net(torch.zeros(2, 3), torch.zeros(3))
    for bad in ({"width": 0}, {"depth": 0}, {"classes": -1}):
        with pytest.raises(ValueError, match="at least 1"):
            MLPConfig(**bad)
    with pytest.raises(ValueError, match="t_max"):
        MLPConfig(t_max=0)


def test_half_precision_does_not_round_time():
    net = MLP(MLPConfig(width=8))
    x = torch.randn(2, 2)
    right = net(x, torch.tensor([981.0, 985.0]))
    half = net.bfloat16()(x.bfloat16(), torch.tensor([981.0, 985.0]))
    torch.testing.assert_close(half.float(), right, rtol=0, atol=0.05)
    assert not torch.equal(half, net(x.bfloat16(), torch.tensor([984.0, 984.0]).bfloat16()))


def test_it_can_be_exported():
    net = MLP(MLPConfig(width=8, classes=3)).requires_grad_(False)
    inputs = torch.randn(4, 2), torch.arange(4.0), torch.tensor([0, 1, 2, 3])
    torch.testing.assert_close(torch.export.export(net, inputs).module()(*inputs), net(*inputs))
