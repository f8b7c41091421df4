"""The eps of every family of norms, which outputs on ordinary weights hardly show.

With weights for which the norms take in numbers of size 2^-8, whose variance is 1.5e-5, a wrong eps
shows a thousand times more. One family at a time: right, it agrees; wrong, it is seen.
"""

import re

import pytest
import torch
from torch import nn

import sdlib.models.dit
from sdlib.models import (
    AutoencoderKL,
    CLIPTextConfig,
    CLIPTextEncoder,
    DiT,
    DiTConfig,
    UNet,
    UNetConfig,
    VAEConfig,
)
from tests.networks import QUIET, made, numbers
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

NETWORKS = {
    "unet": (UNet, UNetConfig.tiny()),
    "vae": (AutoencoderKL, VAEConfig.tiny()),
    "text": (CLIPTextEncoder, CLIPTextConfig.tiny(vocabulary=1000, end=999)),
}
BLOCK = r"(down\.\d|middle|up\.\d)\.blocks\.\d"
# (network, family): the names of its norms, and their eps
FAMILIES = {
    ("unet", "first norm of a residual block"): (BLOCK + r"\.norm1", 1e-5),
    ("unet", "second norm of a residual block"): (BLOCK + r"\.norm2", 1e-5),
    ("unet", "norm before a transformer"): (r".*transformers\.\d\.norm", 1e-6),
    ("unet", "layer norm before self-attention"): (r".*transformers\.\d\.blocks\.\d\.norm1", 1e-5),
    ("unet", "layer norm before cross-attention"): (r".*transformers\.\d\.blocks\.\d\.norm2", 1e-5),
    ("unet", "layer norm before feed-forward"): (
        r".*transformers\.\d\.blocks\.\d\.norm3",
        1e-5,
    ),
    ("unet", "norm before the head"): (r"norm", 1e-5),
    ("vae", "encoder: first norm of a residual block"): (r"encoder\.(down|mid).*\d\.norm1", 1e-6),
    ("vae", "encoder: second norm of a residual block"): (r"encoder\.(down|mid).*\d\.norm2", 1e-6),
    ("vae", "encoder: norm before attention"): (r"encoder\.middle\.1\.norm", 1e-6),
    ("vae", "encoder: norm before the head"): (r"encoder\.norm", 1e-6),
    ("vae", "decoder: first norm of a residual block"): (r"decoder\.(up|mid).*\d\.norm1", 1e-6),
    ("vae", "decoder: second norm of a residual block"): (r"decoder\.(up|mid).*\d\.norm2", 1e-6),
    ("vae", "decoder: norm before attention"): (r"decoder\.middle\.1\.norm", 1e-6),
    ("vae", "decoder: norm before the head"): (r"decoder\.norm", 1e-6),
    ("text", "layer norm before attention"): (r"layers\.\d+\.norm1", 1e-5),
    ("text", "layer norm before feed-forward"): (r"layers\.\d+\.norm2", 1e-5),
    ("text", "last norm"): (r"norm", 1e-5),
}
OTHER = {1e-5: 1e-6, 1e-6: 1e-5}


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def norms(net, pattern=".*"):
    return {
        name: layer
        for name, layer in net.named_modules()
        if isinstance(layer, (nn.GroupNorm, nn.LayerNorm)) and re.fullmatch(pattern, name)
    }


def quiet_error(kind, family, net, theirs):
    compare = {
        "unet": unet_error,
        "text": text_error,
        "vae": encode_error if family.startswith("encoder") else decode_error,
    }
    return compare[kind](net, theirs)


@pytest.mark.parametrize("kind, family", FAMILIES, ids=map(": ".join, FAMILIES))
def test_a_wrong_eps_is_seen(kind, family):
    cls, config = NETWORKS[kind]
    pattern, eps = FAMILIES[kind, family]
    net = made(cls, config, kind, QUIET)
    theirs = reference(kind, net)
    assert quiet_error(kind, family, net, theirs) < TOLERANCE
    layers = norms(net, pattern).values()
    assert {layer.eps for layer in layers} == {eps}
    for layer in layers:
        layer.eps = OTHER[eps]
    assert quiet_error(kind, family, net, theirs) > 10 * TOLERANCE


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_norm_is_of_one_family(kind):
    cls, config = NETWORKS[kind]
    net = made(cls, config)
    named = [n for k, f in FAMILIES if k == kind for n in norms(net, FAMILIES[k, f][0])]
    assert sorted(named) == sorted(norms(net))


def test_the_eps_of_a_diffusion_transformer(monkeypatch):
    """1e-6 in each of its norms; a block alone, since positions of order 1 would drown the rest."""
    net = made(DiT, DiTConfig.tiny())
    for name, x in net.named_parameters():
        if re.search(r"blocks\.\d\.(self_attention\.out|down)\.", name):
            x *= QUIET
    theirs = dit_reference(net.config).eval()
    theirs.load_state_dict(dit_tensors(net), assign=True)
    x, t, label = QUIET * numbers("tokens", 2, 9, 32), torch.tensor([3, 800]), torch.tensor([1, 7])
    block = theirs.transformer_blocks[0]
    right = block(x, timestep=t, class_labels=label)
    condition = nn.functional.silu(block.norm1.emb(t, label, hidden_dtype=x.dtype))

    assert error(net.blocks[0](x, condition, None), right) < TOLERANCE
    layer_norm = nn.functional.layer_norm
    for wrong in (0, 1):  # before attention, before the feed-forward layer
        eps = [1e-6, 1e-6]
        eps[wrong] = 1e-5
        each = iter(eps)
        with monkeypatch.context() as patch:
            patch.setattr(
                sdlib.models.dit.F,
                "layer_norm",
                lambda x, shape, eps, each=each: layer_norm(x, shape, eps=next(each)),
            )
            assert error(net.blocks[0](x, condition, None), right) > 10 * TOLERANCE
