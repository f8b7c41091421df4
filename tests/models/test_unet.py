"""The U-Net: sizes, conditions, precision, gradients, and what it refuses."""

import pytest
import torch
from torch import nn

from sdlib.models import Attention, UNet, UNetConfig

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
    with pytest.raises(ValueError, match=r"needs cond\['added'\]"):
        net(added=6)(x, t, context)
    with pytest.raises(ValueError, match="no use for cond.'added'.; it knows context, concat, res"):
        net()(x, t, {"context": context, "added": torch.zeros(2, 6)})
    with pytest.raises(ValueError, match=r"holds 5 tensors, one for each of 4 skip.*got 2"):
        net()(x, t, {"context": context, "residuals": (x, x)})
    with pytest.raises(ValueError, match="a class for each of 2 samples"):
        toy()(x, t, torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="between 0 and 9, or are 10 for none"):
        toy().check_condition(torch.tensor([0, 11]))
    with pytest.raises(ValueError, match="image tokens go with a context"):
        net(context_width=0, image_width=8)


# --- from a toy to every condition ----------------------------------------------------------------


def toy(**changes):
    """No text: self-attention only, classes, and t from 0 to 1."""
    return net(**{"context_width": 0, "classes": 10, "time_scale": 1000.0, **changes})


def test_a_toy_needs_no_context():
    unet, (x, _, _) = toy(depth=(0, 0), middle_depth=0, classes=0), inputs()
    assert not any(isinstance(layer, Attention) for layer in unet.modules())
    assert unet(x, torch.tensor([0.1, 0.9])).shape == x.shape
    with pytest.raises(ValueError, match="without context and classes"):
        unet(x, torch.tensor([0.1, 0.9]), torch.tensor([1, 2]))


def test_no_class_is_one_more_class():
    unet, (x, _, _) = toy(), inputs()
    t = torch.tensor([0.2, 0.7])
    none = unet(x, t)
    assert torch.equal(none, unet(x, t, torch.tensor([10, 10])))
    assert torch.equal(none, unet(x, t, {"label": torch.tensor([10, 10])}))
    assert not torch.allclose(none, unet(x, t, torch.tensor([3, 3])))


def test_continuous_time_is_as_visible_as_a_table():
    x = inputs()[0]
    fine, table = toy(), toy(time_scale=1.0)
    table.load_state_dict(fine.state_dict())
    t = torch.tensor([0.25, 0.75])
    torch.testing.assert_close(fine(x, t), table(x, 1000 * t))


def test_residuals_are_added_to_skips_and_middle():
    """Zeros change nothing; a residual that takes a skip away leaves a network without it."""
    unet, (x, t, context) = net(), inputs()
    shapes = [(2, 64, 8, 8), (2, 64, 8, 8), (2, 64, 4, 4), (2, 96, 4, 4), (2, 96, 4, 4)]
    zeros = [torch.zeros(shape) for shape in shapes]
    plain = unet(x, t, context)
    assert torch.equal(unet(x, t, {"context": context, "residuals": zeros}), plain)
    for i, shape in enumerate(shapes):
        residuals = [*zeros[:i], torch.randn(shape), *zeros[i + 1 :]]
        cond = {"context": context, "residuals": residuals}
        assert not torch.allclose(unet(x, t, cond), plain)


def test_image_tokens_and_guidance_scale_matter():
    unet, (x, t, context) = net(image_width=6, guidance_width=16), inputs()
    cond = {"context": context, "image": torch.randn(2, 3, 6), "guidance_scale": torch.ones(2)}
    out = unet(x, t, cond)
    for key in ("image", "guidance_scale"):
        assert not torch.allclose(unet(x, t, {**cond, key: cond[key] + 1}), out)
    without = {key: value for key, value in cond.items() if key != "image"}
    with pytest.raises(ValueError, match=r"cond\['image'\] must be \[b, m, 6\]; got None"):
        unet(x, t, without)


def test_every_linear_layer_can_be_wrapped():
    """As LoRA does: each is asked for what a linear layer gives, and for nothing else."""

    class Wrapped(nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.linear, self.used = linear, False

        def forward(self, x):
            self.used = True
            out = self.linear(x)
            assert out.shape == (*x.shape[:-1], self.linear.out_features)
            return out

    unet, (x, t, context) = net(), inputs()
    plain = unet(x, t, context)
    linears = {name: m for name, m in unet.named_modules() if isinstance(m, nn.Linear)}
    for name, linear in linears.items():
        unet.set_submodule(name, Wrapped(linear))
    assert torch.equal(unet(x, t, context), plain)
    assert all(unet.get_submodule(name).used for name in linears)


@pytest.mark.parametrize("cond", ["context", "label"])
def test_it_can_be_exported(cond):
    """For ONNX: nothing in `forward` may depend on the values of a tensor."""
    x, t, context = inputs()
    unet, cond = (net(), context) if cond == "context" else (toy(), torch.tensor([1, 2]))
    exported = torch.export.export(unet.requires_grad_(False), (x, t, cond))
    torch.testing.assert_close(exported.module()(x, t, cond), unet(x, t, cond))
