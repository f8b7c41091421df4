import pytest
import torch
from torch.nn import functional as F

from sdlib.models import CrossAttentionMaps, UNet, UNetConfig
from sdlib.models.layers import TransformerBlock
from sdlib.models.maps import _level

CONFIG = UNetConfig.tiny(widths=(32, 64, 64), depth=(1, 1, 0), heads=(4, 4, 4))


@pytest.fixture(scope="module")
def unet():
    return UNet(CONFIG).eval().requires_grad_(False)


def call(unet, batch=2, size=(6, 8), tokens=5):
    x, context = torch.randn(batch, 4, *size), torch.randn(batch, tokens, CONFIG.context_width)
    return unet(x, torch.full((batch,), 500.0), context), (x, context)


@pytest.mark.parametrize("size", [(8, 8), (6, 8), (7, 9), (9, 11), (1, 5), (1, 1)])
def test_a_picture_for_each_token(unet, size):
    """Of any size: levels of odd ones are rounded up."""
    with CrossAttentionMaps(unet) as maps:
        call(unet, size=size)
        found = maps.take(size)
    assert found.shape == (2, 5, *size) and found.min() >= 0
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, *size))


def test_they_are_the_layers_own(unet):
    """The mean of what each cross-attention says of itself, layer by layer."""
    seen = []
    blocks = [m for m in unet.modules() if isinstance(m, TransformerBlock)]
    hooks = [
        block.cross_attention.register_forward_pre_hook(
            lambda layer, args: seen.append(layer.maps(*args[:2]).mean(dim=1))
        )
        for block in blocks
    ]
    with CrossAttentionMaps(unet) as maps:
        call(unet, size=(6, 8))
        found = maps.take((6, 8))
    for hook in hooks:
        hook.remove()
    assert len(seen) == len(blocks) == 7
    shapes = {48: (6, 8), 12: (3, 4), 4: (2, 2)}
    right = [w.transpose(1, 2).unflatten(2, shapes[w.shape[1]]) for w in seen]
    right = torch.stack([F.interpolate(m, (6, 8), mode="bilinear") for m in right]).mean(dim=0)
    torch.testing.assert_close(found, right)


def test_the_last_call_counts(unet):
    with CrossAttentionMaps(unet) as maps:
        call(unet, batch=2)  # in vain
        torch.manual_seed(5)
        call(unet, batch=1)
        found = maps.take((6, 8))
    with CrossAttentionMaps(unet) as alone:
        torch.manual_seed(5)
        call(unet, batch=1)
    assert torch.equal(alone.take((6, 8)), found)


def test_nobody_watches_before_and_after(unet):
    maps = CrossAttentionMaps(unet)
    layers = [m.cross_attention for m in unet.modules() if isinstance(m, TransformerBlock)]
    assert all(layer.on_weights is None for layer in layers)
    with pytest.raises(KeyError), maps:
        assert all(layer.on_weights is not None for layer in layers)
        raise KeyError
    assert all(layer.on_weights is None for layer in layers)


def test_watching_changes_nothing(unet):
    out, (x, context) = call(unet)
    with CrossAttentionMaps(unet):
        watched = unet(x, torch.full((2,), 500.0), context)
    torch.testing.assert_close(watched, out, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (65, 65), (9, 11), (13, 6)])
def test_levels(size):
    h, w = size
    for _ in range(4):
        assert _level(size, h * w) == (h, w)
        h, w = (h + 1) // 2, (w + 1) // 2
