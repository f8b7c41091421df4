"""Packed layers compute and save what the plain ones do."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sdlib.models import AutoencoderKL, UNet, UNetConfig, VAEConfig
from sdlib.models.layers import GEGLU
from sdlib.models.packing import PACKED, PackedConv2d, pack

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available()
    or not torch.backends.cpu.get_cpu_capability().startswith("AVX"),
    reason="oneDNN has no kernels here",
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
    layers = [layer for layer in network.modules() if type(layer) in PACKED.values()]
    assert {type(layer) for layer in layers} == set(PACKED.values())
    assert all(layer.weight.is_mkldnn for layer in layers)
    # float32, in which other kernels sum in another order
    torch.testing.assert_close(network(x, t, cond), before, rtol=1e-4, atol=5e-5)


@needs_onednn
def test_a_packed_autoencoder_answers_as_before():
    network = AutoencoderKL(VAEConfig.tiny()).eval().requires_grad_(False)
    x = torch.randn(1, 3, 32, 40)
    mean = network.encode(x).mean
    torch.testing.assert_close(pack(network).encode(x).mean, mean, rtol=1e-4, atol=1e-5)


@needs_onednn
def test_a_packed_network_is_saved_as_before_and_stays_packed():
    network = unet()
    before = network.state_dict()
    after = pack(network).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(value.layout is torch.strided for value in after.values())
    assert all(x.packed for x in network.modules() if type(x) in PACKED.values())


@needs_onednn
@pytest.mark.parametrize("layer", [nn.Linear(8, 12), nn.Linear(8, 12, bias=False), GEGLU(8, 12)])
@pytest.mark.parametrize("shape", [(8,), (5, 8), (2, 5, 8), (8, 2, 5)])
def test_tokens_of_any_shape(layer, shape):
    x = torch.randn(shape)
    x = x if x.shape[-1] == 8 else x.permute(1, 2, 0)  # as an image's pixels come
    layer.requires_grad_(False)
    before = layer(x)
    torch.testing.assert_close(pack(layer)(x), before, rtol=1e-5, atol=1e-6)


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
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux alone tells what is mapped")
def test_nothing_of_a_mapped_file_is_held_on_to(tmp_path):
    network = unet()
    save_file({name: x.contiguous() for name, x in network.state_dict().items()}, tmp_path / "x")
    network.load_state_dict(load_file(tmp_path / "x"), assign=True)
    maps = Path("/proc/self/maps")
    assert str(tmp_path / "x") in maps.read_text()
    pack(network)
    assert str(tmp_path / "x") not in maps.read_text()


@needs_onednn
def test_a_packed_network_is_cast():
    """As the pipeline does with a network that overflows."""
    network, weight = pack(unet()).bfloat16(), unet().stem.weight  # not packed without AVX-512
    x, t, cond = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.randn(2, 5, 32)
    small = network(x.bfloat16(), t, cond.bfloat16())
    assert network.float().stem.weight.is_mkldnn and network.stem.weight.dtype == torch.float32
    large = network(x, t, cond)
    torch.testing.assert_close(small.float(), large, rtol=0.1, atol=0.1)
    assert network.stem.weight.shape == weight.shape


@needs_onednn
def test_a_packed_network_works_where_it_cannot_be_packed():
    x, t, cond = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.randn(2, 5, 32)
    network = unet()
    before = network(x, t, cond)
    pack(network).double()
    assert not network.stem.weight.is_mkldnn
    inputs = x.double(), t, cond.double()
    torch.testing.assert_close(network(*inputs).float(), before, rtol=1e-4, atol=1e-5)
    assert network.to("meta")(*(x.to("meta") for x in inputs)).is_meta


@needs_onednn
@pytest.mark.parametrize("assign", [False, True])
def test_a_packed_network_is_loaded(assign):
    x, t, cond = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.randn(2, 5, 32)
    network, other = pack(unet()), unet()
    network.load_state_dict(other.state_dict(), assign=assign)
    torch.testing.assert_close(network(x, t, cond), other(x, t, cond), rtol=1e-4, atol=1e-5)
    assert network.stem.weight.is_mkldnn


def test_what_lies_elsewhere_stays(monkeypatch):
    with torch.device("meta"):
        network = nn.Sequential(nn.Conv2d(3, 4, 3))
    assert type(pack(network)[0]) is nn.Conv2d
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    network = pack(nn.Sequential(nn.Conv2d(3, 4, 3)).requires_grad_(False))
    assert not network[0].weight.is_mkldnn and network(torch.ones(1, 3, 5, 5)).shape == (1, 4, 3, 3)


@needs_onednn
@pytest.mark.parametrize("layer", [nn.Conv2d(8, 8, 3), nn.Linear(8, 12), GEGLU(8, 12)])
def test_a_packed_layer_refuses_gradients(layer):
    """oneDNN's functions give none, and a part of a gradient is a wrong gradient."""
    packed = pack(nn.Sequential(layer.requires_grad_(False)))
    x = torch.randn(1, 8, 8, 8)
    with pytest.raises(ValueError, match="a packed network gives no gradients"):
        packed(x.requires_grad_())
    with torch.no_grad():
        assert packed(x).isfinite().all()
