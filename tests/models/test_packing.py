"""Packed convolutions compute and save what the plain ones do."""

import pytest
import torch
from torch import nn

from sdlib.models import AutoencoderKL, UNet, UNetConfig, VAEConfig
from sdlib.models.packing import PackedConv2d, pack

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN"
)


def unet():
    return UNet(UNetConfig.tiny()).eval().requires_grad_(False)


@needs_onednn
@pytest.mark.parametrize("size", [8, 12])  # none that the weights were packed for
def test_a_packed_unet_answers_as_before(size):
    network = unet()
    x, t, cond = torch.randn(2, 4, size, size), torch.tensor([3, 700]), torch.randn(2, 5, 32)
    before = network(x, t, cond)
    assert pack(network) is network
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert convolutions and all(layer.weight.is_mkldnn for layer in convolutions)
    torch.testing.assert_close(network(x, t, cond), before, rtol=1e-4, atol=1e-5)


@needs_onednn
def test_a_packed_autoencoder_is_saved_as_before():
    network = AutoencoderKL(VAEConfig.tiny()).eval().requires_grad_(False)
    x, before = torch.randn(1, 3, 32, 40), network.state_dict()
    mean = network.encode(x).mean
    after = pack(network).state_dict()
    torch.testing.assert_close(network.encode(x).mean, mean, rtol=1e-4, atol=1e-5)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(value.layout is torch.strided for value in after.values())


@needs_onednn
@pytest.mark.parametrize("stride, padding, kernel", [(2, 1, 3), (2, 0, 3), (1, 0, 1)])
def test_strides_and_pads_are_kept(stride, padding, kernel):
    conv = nn.Conv2d(8, 16, kernel, stride=stride, padding=padding).requires_grad_(False)
    x = torch.randn(2, 8, 9, 7)
    before = conv(x)
    pack(conv)
    assert isinstance(conv, PackedConv2d)
    torch.testing.assert_close(conv(x), before, rtol=1e-4, atol=1e-5)


@needs_onednn
def test_a_packed_network_is_cast():
    """As the pipeline does with a network that overflows."""
    network, weight = pack(unet().bfloat16()), unet().stem.weight
    x, t, cond = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.randn(2, 5, 32)
    small = network(x.bfloat16(), t, cond.bfloat16())
    assert network.float().stem.weight.is_mkldnn and network.stem.weight.dtype == torch.float32
    large = network(x, t, cond)
    torch.testing.assert_close(small.float(), large, rtol=0.1, atol=0.1)
    assert network.stem.weight.shape == weight.shape


@needs_onednn
def test_a_packed_network_is_moved():
    network = pack(unet()).to("meta")
    assert not network.stem.weight.is_mkldnn and network.stem.weight.is_meta


def test_what_lies_elsewhere_stays(monkeypatch):
    with torch.device("meta"):
        network = nn.Sequential(nn.Conv2d(3, 4, 3))
    assert type(pack(network)[0]) is nn.Conv2d
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    network = pack(nn.Sequential(nn.Conv2d(3, 4, 3)).requires_grad_(False))
    assert not network[0].weight.is_mkldnn and network(torch.ones(1, 3, 5, 5)).shape == (1, 4, 3, 3)
