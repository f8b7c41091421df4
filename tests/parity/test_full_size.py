"""Parity at the full size of v1.5, the reference holding our own tensors: 3.4 GB, once.

At 16x16 latents in every run; at 64x64, the size of a picture, with `make test-full`.
"""

import gc

import pytest
import torch

from sdlib.models import (
    AutoencoderKL,
    CLIPTextConfig,
    CLIPTextEncoder,
    UNet,
    UNetConfig,
    VAEConfig,
)
from tests.networks import made
from tests.parity.networks import (
    TOLERANCE,
    decode_error,
    encode_error,
    reference,
    text_error,
    unet_error,
)

SIDES = [16, pytest.param(64, marks=pytest.mark.full)]


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield
    gc.collect()


@pytest.fixture(scope="module")
def unets():
    net = made(UNet, UNetConfig.sd15())
    return net, reference("unet", net)


@pytest.mark.parametrize("side", SIDES)
def test_unet(unets, side):
    assert unet_error(*unets, size=(side, side), tokens=77) < TOLERANCE


@pytest.fixture(scope="module")
def vaes():
    net = made(AutoencoderKL, VAEConfig.sd15())
    return net, reference("vae", net)


@pytest.mark.parametrize("side", SIDES)
def test_decoder(vaes, side):
    assert decode_error(*vaes, batch=1, size=(side, side)) < TOLERANCE


@pytest.mark.parametrize("side", SIDES)
def test_encoder(vaes, side):
    assert encode_error(*vaes, batch=1, size=(8 * side, 8 * side)) < TOLERANCE


def test_text():
    net = made(CLIPTextEncoder, CLIPTextConfig.sd15())
    assert text_error(net, reference("text", net), batch=2) < TOLERANCE
