"""The U-Net: sizes, conditions, precision, gradients, and what it refuses."""

import pytest
import torch

from sdlib.models import UNet, UNetConfig

COUNTS = {
    "sd15": 859_520_964,
    "sd15_inpainting": 859_535_364,
    "sd2": 865_910_724,
    "sdxl": 2_567_463_684,
}


def net(**changes):
    return UNet(UNetConfig.tiny(**changes)).eval()


def inputs(h=8, w=8, b=2, channels=4):
    return torch.randn(b, channels, h, w), torch.tensor([1, 900])[:b], torch.randn(b, 5, 32)


@pytest.mark.parametrize("preset", COUNTS)
def test_presets_have_the_parameters_of_the_published_models(preset):
    with torch.device("meta"):
        unet = UNet(getattr(UNetConfig, preset)())
    assert sum(p.numel() for p in unet.parameters()) == COUNTS[preset]


def test_the_default_is_v1_5():
    assert UNetConfig() == UNetConfig.sd15()


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (3, 10), (65, 5)])
def test_any_size_will_do(size):
    unet = net(widths=(32, 32, 64), depth=(0, 1, 0), heads=(4, 4, 4))
    x, t, context = inputs(*size)
    out = unet(x, t, context)
    assert out.shape == x.shape and out.isfinite().all()


def test_a_context_alone_is_a_dict_of_it():
    unet, (x, t, context) = net(), inputs()
    assert torch.equal(unet(x, t, context), unet(x, t, {"context": context}))


def test_every_input_matters():
    unet = net(in_channels=9, added=6)
    x, t, context = inputs()
    cond = {"context": context, "concat": torch.randn(2, 5, 8, 8), "added": torch.randn(2, 6)}
    out = unet(x, t, cond)
    assert not torch.allclose(unet(x + 1, t, cond), out)
    assert not torch.allclose(unet(x, t + 100, cond), out)
    for key in cond:
        assert not torch.allclose(unet(x, t, {**cond, key: cond[key] + 1}), out)


def test_samples_of_a_batch_do_not_meet():
    unet, (x, t, context) = net(), inputs()
    alone = torch.cat([unet(x[i : i + 1], t[i : i + 1], context[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(unet(x, t, context), alone, rtol=1e-4, atol=1e-5)


def test_slices_equal_the_whole():
    unet, (x, t, context) = net(), inputs()
    whole = unet(x, t, context)
    for layer in unet.modules():
        if hasattr(layer, "slices"):
            layer.slices = 3
    torch.testing.assert_close(unet(x, t, context), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype, limit", [(torch.bfloat16, 0.15), (torch.float16, 0.02)])
@torch.no_grad()
def test_half_precision(dtype, limit):
    unet, (x, t, context) = net(), inputs()
    right = unet(x, t, context)
    half = unet.to(dtype)(x.to(dtype), t, context.to(dtype))
    assert half.dtype == dtype
    assert (half.float() - right).norm() < limit * right.norm()


@torch.no_grad()
def test_channels_last_is_the_same():
    unet, (x, t, context) = net(), inputs()
    right = unet(x, t, context)
    unet.to(memory_format=torch.channels_last)
    last = unet(x.contiguous(memory_format=torch.channels_last), t, context)
    torch.testing.assert_close(last, right, rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_parameter():
    unet = net(in_channels=9, added=6).train()
    x, t, context = inputs()
    cond = {"context": context, "concat": torch.randn(2, 5, 8, 8), "added": torch.randn(2, 6)}
    unet(x, t, cond).square().mean().backward()
    silent = [n for n, p in unet.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_gradients_are_right():
    """Against differences, in float64: an activation in place would spoil them."""
    unet = net().double()
    x, t, context = inputs(4, 4)
    x, context = x.double().requires_grad_(), context.double()
    out = unet(x, t, context).sum()
    (slope,) = torch.autograd.grad(out, x)
    step = 1e-6 * torch.randn_like(x)
    with torch.no_grad():
        change = unet(x + step, t, context).sum() - unet(x - step, t, context).sum()
    torch.testing.assert_close(change, 2 * (slope * step).sum(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"depth": (1, 1, 0)}, "one number a level; got 2, 3 and 2"),
        ({"widths": (32, 48)}, r"multiples of 32; got \(32, 48\)"),
        ({"heads": (5, 4)}, "multiple of heads; got 64 and 5"),
    ],
)
def test_configs_that_make_no_network(changes, message):
    with pytest.raises(ValueError, match=message):
        net(**changes)


def test_conditions_that_do_not_fit():
    x, t, context = inputs()
    with pytest.raises(ValueError, match=r"must be \[b, m, 32\]; got None"):
        net()(x, t)
    with pytest.raises(ValueError, match=r"must be \[b, m, 32\]; got \(2, 5, 16\)"):
        net()(x, t, context[:, :, :16])
    with pytest.raises(ValueError, match=r"takes 4 channels.*\(2, 3, 8, 8\)"):
        net()(x[:, :3], t, context)
    with pytest.raises(ValueError, match=r"takes 9 channels.*cond\['concat'\]"):
        net(in_channels=9)(x, t, context)
    with pytest.raises(ValueError, match=r"must be \[b, 6\]; got none"):
        net(added=6)(x, t, context)
    with pytest.raises(ValueError, match="takes no added vector"):
        net()(x, t, {"context": context, "added": torch.zeros(2, 6)})
