"""Parity would notice: each fact about the networks, changed in ours alone, makes it fail.

`FACTS` is the list. A change of code is made as such, or as a rearrangement of weights or inputs
that amounts to it. Norm eps has a list of its own, in test_norm_eps.py; what a name alone can show
(levels of the decoder, queries and keys, biases that cancel) is in tests/weights/test_names.py.
"""

import dataclasses
import functools
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sdlib.models
from sdlib.models import (
    Attention,
    AutoencoderKL,
    CLIPTextConfig,
    CLIPTextEncoder,
    DiT,
    DiTConfig,
    UNet,
    UNetConfig,
    VAEConfig,
)
from sdlib.models.clip import Layer
from sdlib.models.dit import grid_positions
from sdlib.models.layers import Downsample, TransformerBlock
from tests.networks import made, numbers
from tests.parity.networks import (
    TOLERANCE,
    decode_error,
    dit_reference,
    dit_tensors,
    encode_error,
    error,
    reference,
    text_error,
    unet_error,
)

# --- ways to change a fact: each takes the network and pytest's monkeypatch -----------------------


def every(kind, **values):
    """Set attributes of every layer of a kind; a function is called with the layer."""

    def change(net, patch):
        for layer in net.modules():
            if isinstance(layer, kind):
                for name, value in values.items():
                    setattr(layer, name, value(layer) if callable(value) else value)

    return change


def rolled(*names, dim=0, parts=2):
    """Exchange the halves (or turn the thirds) of all tensors whose names end so."""

    def change(net, patch):
        found = [p for name, p in net.named_parameters() if name.endswith(names)]
        assert found
        for p in found:
            p.copy_(p.roll(p.shape[dim] // parts, dim))

    return change


def times(factor, *names):
    """Multiply all tensors whose names end so."""

    def change(net, patch):
        found = [p for name, p in net.named_parameters() if name.endswith(names)]
        assert found
        for p in found:
            p.mul_(factor)

    return change


def function(module, name, f):
    """Let one of our modules see another function in place of torch's."""

    def change(net, patch):
        patch.setattr(f"sdlib.models.{module}.F", SimpleNamespace(**{**vars(F), name: f}))

    return change


def replaced(target, name, f):
    """Put f in the place of something of ours."""
    return lambda net, patch: patch.setattr(target, name, f)


def called_with(**options):
    """Call the network with other options."""
    return lambda net, patch: setattr(net, "forward", partial(net.forward, **options))


def configured(**values):
    return lambda net, patch: setattr(net, "config", dataclasses.replace(net.config, **values))


# --- what is put in the place of the right thing --------------------------------------------------


def embedding_to_the_last(t, width):
    """The frequencies end at 1/10000 itself, as where half is taken less 1."""
    half = width // 2
    angle = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / (half - 1))
    return torch.cat([angle.cos(), angle.sin()], 1)


def thinking_first(self, x, context, image=None):
    x = x + self.self_attention(self.norm1(x))
    x = x + self.feed_forward(self.norm3(x))
    return x + self.cross_attention(self.norm2(x), context)


def norms_behind(self, x):
    x = self.norm1(x + self.attention(x))
    return self.norm2(x + self.down(self.activation(self.up(x))))


def skips_first(net, patch):
    now = net.config.widths[-1]
    for level in net.up:
        for block in level.blocks:
            turn = partial(lambda n, layer, args: (args[0].roll(-n, 1), *args[1:]), now)
            block.register_forward_pre_hook(turn)
            now = block.conv2.weight.shape[0]


def mask_first(net, patch):
    net.stem.register_forward_pre_hook(lambda layer, args: (args[0].roll(-4, 1),))


def next_time(net, patch):
    net.forward = lambda x, t, cond, forward=net.forward: forward(x, t + 1, cond)


def symmetric(net, patch):
    for layer in net.modules():
        if isinstance(layer, Downsample):
            layer.asymmetric, layer.conv.padding = False, (1, 1)


def lopsided(net, patch):
    for layer in net.modules():
        if isinstance(layer, Downsample):
            layer.asymmetric, layer.conv.padding = True, (0, 0)


def other_corner(self, x):
    return self.conv(F.pad(x, (1, 0, 1, 0)))


def bilinear(x, size, mode):
    return F.interpolate(x, size, mode="bilinear")


def no_positions(net, patch):
    net.positions.weight.zero_()


def channels_outermost(net, patch):
    c, p = net.config.out_channels, net.config.patch
    for x in (net.head.weight, net.head.bias):
        x.copy_(x.unflatten(0, (p * p, c)).transpose(0, 1).flatten(0, 1))


def class_zero_is_none(net, patch):
    net.forward = lambda x, t, cond, forward=net.forward: forward(x, t, (cond + 1) % 11)


def quiet_time(x, inplace=False):
    return x if x.ndim == 2 else F.silu(x, inplace)


def head_size_is_8(layer):
    return layer.q.weight.shape[0] // 8


NARROW = times(2**-0.5, ".q.weight", ".q.bias")
GELU, QUICK = F.gelu, lambda x, approximate="none": x * torch.sigmoid(1.702 * x)

# --- the list -------------------------------------------------------------------------------------

FACTS = {
    # the U-Net
    "unet: 8 heads at each level, not heads of size 8": every(Attention, heads=head_size_is_8),
    "unet: scores are divided by the root of a head's width": NARROW,
    "unet: a time is embedded as cosines, then sines": rolled("time.0.weight", dim=1),
    "unet: its frequencies are 10000^(-i / 160), not ^(-i / 159)": replaced(
        sdlib.models.unet, "time_embedding", embedding_to_the_last
    ),
    "unet: the time is t, not t + 1": next_time,
    "unet: the time is activated before each block": function("unet", "silu", quiet_time),
    "unet: GEGLU holds the value first, then the gate": rolled(
        "feed_forward.up.proj.weight", "feed_forward.up.proj.bias"
    ),
    "unet: GEGLU's GELU is exact, not by tanh": function(
        "layers", "gelu", partial(GELU, approximate="tanh")
    ),
    "unet: GEGLU's GELU is no QuickGELU": function("layers", "gelu", QUICK),
    "unet: self-attention, cross-attention, then feed-forward": replaced(
        TransformerBlock, "forward", thinking_first
    ),
    "unet: downsampling pads on all sides": lopsided,
    "unet: upsampling repeats the nearest": function("layers", "interpolate", bilinear),
    "unet: skip connections are stacked behind": skips_first,
    "unet: latents go in before mask and masked image": mask_first,
    "unet: 32 groups": every(nn.GroupNorm, num_groups=16),
    # the autoencoder
    "vae: the encoder pads on the right and below": symmetric,
    "vae: ... not on the left and above": replaced(Downsample, "forward", other_corner),
    "vae: one attention head": every(Attention, heads=8),
    "vae: the scale is 0.18215": configured(scale=0.13025),
    "vae: the scale is applied inside": configured(scale=1.0),
    "vae: a moment is the mean, then the log variance": rolled(
        "to_moments.weight", "to_moments.bias"
    ),
    "vae: the standard deviation is exp(log variance / 2)": lambda net, patch: [
        x[net.config.latent :].mul_(2) for x in (net.to_moments.weight, net.to_moments.bias)
    ],
    "vae: upsampling repeats the nearest": function("layers", "interpolate", bilinear),
    "vae: 32 groups": every(nn.GroupNorm, num_groups=16),
    # the text encoder
    "text: QuickGELU": every(Layer, activation=lambda layer: GELU),
    "text: a token sees none behind it": every(Attention, causal=False),
    "text: 12 heads (here 4)": every(Attention, heads=8),
    "text: scores are divided by the root of a head's width": NARROW,
    "text: positions": no_positions,
    "text: ... counted from 0": lambda net, patch: net.positions.weight.copy_(
        net.positions.weight.roll(1, 0)
    ),
    "text: norms stand before, not behind": replaced(Layer, "forward", norms_behind),
    "text: the last hidden state, not the one before": called_with(skip=1),
    "text: the last norm": called_with(norm=False),
    "text: pooled where the text ends": configured(end=998),
    # the diffusion transformer
    "dit: positions tell the column first": replaced(
        sdlib.models.dit, "grid_positions", lambda *a: grid_positions(*a).roll(a[0] // 2, 1)
    ),
    "dit: positions are sines, then cosines": replaced(
        sdlib.models.dit,
        "grid_positions",
        lambda *a: grid_positions(*a).unflatten(1, (2, 2, -1)).flip(2).flatten(1),
    ),
    "dit: a time is embedded as cosines, then sines": rolled("time.0.weight", dim=1),
    "dit: its frequencies are 10000^(-i / 128), not ^(-i / 127)": replaced(
        sdlib.models.dit, "time_embedding", embedding_to_the_last
    ),
    "dit: a condition shifts, scales, gates": rolled("condition.weight", "condition.bias", parts=6),
    "dit: ... attention first": rolled("condition.weight", "condition.bias"),
    "dit: GELU by tanh": function("dit", "gelu", lambda x, approximate: GELU(x)),
    "dit: norms have no scale of their own but 1 +": function(
        "dit", "layer_norm", lambda *a, **k: F.layer_norm(*a, **k) * 1.01
    ),
    "dit: none is the last class": class_zero_is_none,
    "dit: a patch holds its channels innermost": channels_outermost,
}
CONFIGS = {
    "unet": (UNet, UNetConfig.tiny(heads=(8, 8), in_channels=9)),
    "vae": (AutoencoderKL, VAEConfig.tiny()),
    "text": (CLIPTextEncoder, CLIPTextConfig.tiny(vocabulary=1000, end=999)),
    "dit": (DiT, DiTConfig.tiny()),
}


def dit_error(net, theirs):
    x, t, label = numbers("x", 3, 4, 8, 8), torch.tensor([1, 500, 999]), torch.tensor([10, 3, 0])
    return error(net(x, t, label), theirs(x, t, label).sample)


def vae_error(net, theirs):
    return max(encode_error(net, theirs), decode_error(net, theirs))


ERRORS = {"unet": unet_error, "vae": vae_error, "text": text_error, "dit": dit_error}


def filled(kind):
    """A network whose gates are half closed: there GELU and its approximations differ the most."""
    net = made(*CONFIGS[kind])
    for name, x in net.named_parameters():
        if kind == "unet" and name.endswith("feed_forward.up.bias"):
            x[len(x) // 2 :].sub_(2)
        elif kind == "dit" and name.endswith("up.bias"):
            x.sub_(2)
        elif kind in ("unet", "dit") and name.endswith("down.weight"):
            x.mul_(8)
    return net


@functools.cache
def right(kind):
    """The reference. It has tensors of its own: ours alone are changed."""
    net = filled(kind)
    if kind != "dit":
        return reference(kind, net)
    theirs = dit_reference(net.config).eval()
    theirs.load_state_dict(dit_tensors(net))
    return theirs


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("kind", CONFIGS)
def test_unchanged_they_agree(kind):
    assert ERRORS[kind](filled(kind), right(kind)) < TOLERANCE


@pytest.mark.parametrize("fact", FACTS)
def test_a_change_is_seen(fact, monkeypatch):
    kind = fact.split(":")[0]
    net, theirs = filled(kind), right(kind)
    FACTS[fact](net, monkeypatch)
    assert ERRORS[kind](net, theirs) > 10 * TOLERANCE
