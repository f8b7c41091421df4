"""The layers of the U-Net and the autoencoder: small facts about each, written out."""

import math

import pytest
import torch
from torch.nn import functional as F

from sdlib.models.layers import (
    Downsample,
    FeedForward,
    ResBlock,
    SpatialTransformer,
    TransformerBlock,
    Upsample,
    time_embedding,
)


def test_time_embedding_by_hand():
    row = [f(20 * 10000 ** (-i / 3)) for f in (math.cos, math.sin) for i in range(3)]
    torch.testing.assert_close(time_embedding(torch.tensor([0, 20]), 6)[1], torch.tensor(row))
    zero = time_embedding(torch.tensor([0]), 6)
    assert torch.equal(zero, torch.tensor([[1.0, 1, 1, 0, 0, 0]]))


def test_time_embedding_is_float32_whatever_the_time():
    whole = time_embedding(torch.tensor([999]), 320)
    assert whole.dtype == torch.float32
    assert torch.equal(whole, time_embedding(torch.tensor([999.0], dtype=torch.float64), 320))


@pytest.mark.parametrize("outputs, time_width", [(64, 8), (32, 8), (64, 0)])
def test_res_block_by_hand(outputs, time_width):
    block = ResBlock(32, outputs, time_width)
    x, time = torch.randn(2, 32, 5, 7), torch.randn(2, 8) if time_width else None
    h = block.conv1(F.silu(F.group_norm(x, 32, block.norm1.weight, block.norm1.bias, 1e-5)))
    if time_width:
        h = h + (time @ block.time.weight.T + block.time.bias)[:, :, None, None]
    h = block.conv2(F.silu(F.group_norm(h, 32, block.norm2.weight, block.norm2.bias, 1e-5)))
    torch.testing.assert_close(block(x, time), h + (block.skip(x) if outputs != 32 else x))


def test_layers_leave_their_input_alone():
    """An activation in place must not reach what a residual way still needs."""
    x, context = torch.randn(2, 32, 4, 4), torch.randn(2, 3, 8)
    kept = x.clone()
    for layer in (ResBlock(32, 32), ResBlock(32, 64), Downsample(32), Upsample(32)):
        layer(x)
        assert torch.equal(x, kept)
    SpatialTransformer(32, 4, 8)(x, context)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("asymmetric", [False, True])
def test_downsampling_looks_where_it_should(asymmetric):
    """With a kernel that takes its middle, it is every second pixel, from the padding's corner."""
    layer = Downsample(1, asymmetric)
    torch.nn.init.zeros_(layer.conv.weight)
    torch.nn.init.zeros_(layer.conv.bias)
    layer.conv.weight.data[0, 0, 1, 1] = 1
    x = torch.arange(36.0).reshape(1, 1, 6, 6)
    start = 1 if asymmetric else 0
    assert torch.equal(layer(x), x[:, :, start::2, start::2])


def test_downsampling_of_odd_sizes_rounds_up_as_the_u_net_needs():
    assert Downsample(4)(torch.zeros(1, 4, 65, 7)).shape == (1, 4, 33, 4)


def test_upsampling_repeats_to_any_size():
    layer = Upsample(1)
    torch.nn.init.dirac_(layer.conv.weight)
    torch.nn.init.zeros_(layer.conv.bias)
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    twice = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(layer(x), twice)
    assert torch.equal(layer(x, (3, 5)), twice[:, :, :3, :5])


def test_feed_forward_by_hand():
    """Also for more tokens than are worked on at once."""
    layer = FeedForward(8)
    for x in (torch.randn(2, 5, 8), torch.randn(3, 700, 8)):
        value, gate = (x @ layer.up.proj.weight.T + layer.up.proj.bias).split(32, dim=-1)
        passed = value * gate * 0.5 * (1 + torch.erf(gate / 2**0.5))
        torch.testing.assert_close(layer(x), passed @ layer.down.weight.T + layer.down.bias)


def test_transformer_block_by_hand():
    block, x, context = TransformerBlock(32, 4, 8), torch.randn(2, 6, 32), torch.randn(2, 3, 8)
    h = x + block.self_attention(block.norm1(x))
    h = h + block.cross_attention(block.norm2(h), context)
    h = h + block.feed_forward(block.norm3(h))
    torch.testing.assert_close(block(x, context), h)


def test_spatial_transformer_sees_tokens_row_by_row():
    """Each token goes back to its pixel: a transposed picture gives a transposed one."""
    layer = SpatialTransformer(32, 4, 8, depth=2)
    assert len(layer.blocks) == 2
    x, context = torch.randn(2, 32, 3, 5), torch.randn(2, 4, 8)
    out = layer(x, context)
    torch.testing.assert_close(layer(x.mT, context), out.mT)
    tokens = layer.proj_in(layer.norm(x).flatten(2).mT)
    for block in layer.blocks:
        tokens = block(tokens, context)
    torch.testing.assert_close(out - x, layer.proj_out(tokens).mT.unflatten(2, (3, 5)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_norms_keep_their_sums_in_float32(dtype):
    """The squares of these numbers do not fit float16, and bfloat16 cannot count so many."""
    block = ResBlock(32, 32)
    x = (300 + 10 * torch.randn(1, 32, 64, 64)).to(dtype)
    right = F.group_norm(x.float(), 32)
    got = block.norm1.to(dtype)(x).float()
    assert (got - right).square().mean().sqrt() < 0.02
