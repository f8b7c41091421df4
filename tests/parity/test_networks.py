"""Parity of the networks with diffusers and transformers, on weights of which none is left zero.

What the outputs depend on is shown in test_sensitivity.py, norm eps in test_norm_eps.py, and the
size of v1.5 in test_full_size.py.
"""

import diffusers
import pytest
import torch
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import get_2d_sincos_pos_embed, get_timestep_embedding

from sdlib.models import (
    CLIP,
    Attention,
    AutoencoderKL,
    CLIPConfig,
    CLIPImageConfig,
    CLIPImageEncoder,
    CLIPTextConfig,
    CLIPTextEncoder,
    DiT,
    DiTConfig,
    UNet,
    UNetConfig,
    VAEConfig,
)
from sdlib.models.dit import grid_positions
from sdlib.models.layers import time_embedding
from tests.networks import fill, made, numbers
from tests.parity.networks import (
    TOLERANCE,
    decode_error,
    dit_reference,
    dit_tensors,
    encode_error,
    error,
    ids,
    image_error,
    reference,
    run_unet_reference,
    text_error,
    unet_error,
    unet_inputs,
)

UNETS = {
    "sd15": UNetConfig.tiny(heads=(8, 8)),
    "inpainting": UNetConfig.tiny(in_channels=9),
    "three levels": UNetConfig.tiny(
        widths=(32, 64, 96), blocks=2, depth=(1, 1, 0), heads=(4, 4, 4)
    ),
    "sd2": UNetConfig.tiny(depth=(1, 1), heads=(2, 4), context_width=48, linear=True),
    "sdxl": UNetConfig.tiny(
        widths=(32, 64, 64),
        depth=(0, 1, 3),
        middle_depth=3,
        heads=(1, 2, 4),
        linear=True,
        added=80,
    ),
    "latent consistency": UNetConfig.tiny(guidance_width=256),
    "classes": UNetConfig.tiny(classes=5),
}
SIZES = [(16, 16), (12, 20), (9, 7), (33, 40)]  # the last has more tokens than one portion
VAES = {
    "sd15": VAEConfig.tiny(widths=(32, 64, 96, 96), blocks=2),
    "shallow": VAEConfig.tiny(widths=(32, 64), latent=8, scale=0.13025),
    "few groups": VAEConfig.tiny(widths=(32, 48), groups=8),
}
TEXTS = {
    "sd15": CLIPTextConfig.tiny(vocabulary=1000, end=999, layers=3),
    "sd2": CLIPTextConfig.tiny(vocabulary=1000, end=999, width=64, activation="gelu"),
    "projection": CLIPTextConfig.tiny(
        vocabulary=1000, end=999, layers=3, activation="gelu", projection=24
    ),
}

IMAGES = {
    "openai": CLIPImageConfig.tiny(),
    "openclip": CLIPImageConfig.tiny(size=18, patch=6, layers=3, activation="gelu"),
}


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def pair(kind, cls, config):
    net = made(cls, config)
    return net, reference(kind, net)


# --- the U-Net ------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", UNETS.values(), ids=UNETS)
def test_unet(config):
    net, theirs = pair("unet", UNet, config)
    for size in SIZES:
        assert unet_error(net, theirs, size=size) < TOLERANCE


def test_unet_at_520_pixels():
    """65 latents a side: three times halved they are 9, and 2 * 9 is not 17, nor 2 * 33 65."""
    config = UNetConfig.tiny(widths=(32, 32, 32, 32), depth=(0, 0, 1, 0), heads=(4,) * 4)
    net, theirs = pair("unet", UNet, config)
    assert unet_error(net, theirs, batch=1, size=(65, 65)) < TOLERANCE


def test_residuals_of_a_controlnet():
    net, theirs = pair("unet", UNet, UNetConfig.tiny())
    x, t, cond = unet_inputs(net.config)
    shapes = [(64, 16, 16), (64, 16, 16), (64, 8, 8), (96, 8, 8), (96, 8, 8)]
    residuals = tuple(numbers(f"residual {i}", 2, *shape) for i, shape in enumerate(shapes))
    cond["residuals"] = residuals
    assert error(net(x, t, cond), run_unet_reference(theirs, x, t, cond)) < TOLERANCE


def test_image_tokens_are_those_of_an_ip_adapter():
    """One cross-attention, since diffusers' U-Net takes them from an image encoder only."""
    ours = fill(Attention(32, 4, 24, image_width=40))
    processor = IPAdapterAttnProcessor2_0(32, 40, num_tokens=(3,), scale=1.0)
    theirs = diffusers.models.attention_processor.Attention(
        query_dim=32, cross_attention_dim=24, heads=4, dim_head=8, processor=processor
    )
    names = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
    names |= {"image_k": "processor.to_k_ip.0", "image_v": "processor.to_v_ip.0"}
    state = {}
    for name, x in ours.state_dict().items():
        layer, _, kind = name.rpartition(".")
        state[f"{names[layer]}.{kind}"] = x
    theirs.load_state_dict(state)
    x, context, image = numbers("x", 2, 9, 32), numbers("c", 2, 7, 24), numbers("i", 2, 3, 40)
    right = theirs(x, encoder_hidden_states=(context, [image[:, None]]))
    assert error(ours(x, context, image), right) < TOLERANCE


def test_time_embedding():
    t = torch.tensor([0, 1, 20.5, 500, 981.25, 999])
    right = get_timestep_embedding(t, 320, flip_sin_to_cos=True, downscale_freq_shift=0)
    assert error(time_embedding(t, 320), right) < 1e-6


# --- the autoencoder ------------------------------------------------------------------------------


@pytest.mark.parametrize("config", VAES.values(), ids=VAES)
def test_vae(config):
    net, theirs = pair("vae", AutoencoderKL, config)
    f = config.factor
    for h, w in ((4, 4), (3, 5), (1, 2)):
        assert encode_error(net, theirs, size=(f * h, f * w)) < TOLERANCE
        assert decode_error(net, theirs, size=(h, w)) < TOLERANCE


def test_extreme_variances_are_cut_as_in_the_reference():
    net, theirs = pair("vae", AutoencoderKL, VAES["sd15"])
    net.to_moments.bias[4:] += torch.tensor([-100.0, 100, 0, 0])  # the very tensor of theirs
    x = numbers("pixels", 1, 3, 16, 16)
    ours, right = net.encode(x), theirs.encode(x).latent_dist
    assert torch.allclose(ours.std, 0.18215 * right.std, rtol=1e-4)
    assert ours.std.min() < 1e-7 and ours.std.max() > 1e3
    kl = ours.kl()
    torch.testing.assert_close(kl, right.kl(), rtol=1e-4, atol=0)


# --- the text encoder -----------------------------------------------------------------------------


@pytest.mark.parametrize("config", TEXTS.values(), ids=TEXTS)
def test_text(config):
    net, theirs = pair("text", CLIPTextEncoder, config)
    for length in (77, 5):
        assert text_error(net, theirs, length=length) < TOLERANCE


@pytest.mark.parametrize("config", TEXTS.values(), ids=TEXTS)
def test_text_skips_layers(config):
    """As diffusers' clip_skip: a hidden state from further back, and the last norm over it."""
    net, theirs = pair("text", CLIPTextEncoder, config)
    x = ids(config)
    right = theirs(x, output_hidden_states=True)
    norm = getattr(theirs, "text_model", theirs).final_layer_norm
    for skip in range(config.layers):
        ours = net(x, skip=skip)
        assert error(ours.tokens, norm(right.hidden_states[-(skip + 1)])) < TOLERANCE
        bare = net(x, skip=skip, norm=False).tokens
        assert error(bare, right.hidden_states[-(skip + 1)]) < TOLERANCE
        assert torch.equal(ours.pooled, net(x).pooled)  # never skips


# --- CLIP -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", IMAGES.values(), ids=IMAGES)
def test_image(config):
    net, theirs = pair("image", CLIPImageEncoder, config)
    assert image_error(net, theirs) < TOLERANCE


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_clip(image):
    net, theirs = pair("clip", CLIP, CLIPConfig(TEXTS["projection"], image))
    pixels, texts = numbers("pixels", 3, 3, image.size, image.size), ids(TEXTS["projection"])
    right = theirs(texts, pixels, return_loss=True)
    ours = net(pixels, texts)
    assert error(ours[0], right.image_embeds) < TOLERANCE
    assert error(ours[1], right.text_embeds) < TOLERANCE
    assert error(net.logits(*ours), right.logits_per_image) < TOLERANCE
    assert error(net.loss(*ours), right.loss) < TOLERANCE


# --- the diffusion transformer --------------------------------------------------------------------


@pytest.mark.parametrize("size, changes", [(8, {}), (12, {"out_channels": 8, "width": 48})])
def test_dit(size, changes):
    config = DiTConfig.tiny(**changes)
    net, theirs = made(DiT, config), dit_reference(config, size)
    theirs.load_state_dict(dit_tensors(net), assign=True)
    theirs.eval()  # labels are dropped in training only
    x, t = numbers("x", 3, 4, size, size), torch.tensor([0, 500, 999])
    for labels in (torch.tensor([0, 3, 9]), torch.tensor([10, 10, 10])):
        assert error(net(x, t, labels), theirs(x, t, labels).sample) < TOLERANCE
    assert error(net(x, t), theirs(x, t, labels).sample) < TOLERANCE  # none is the last class


def test_dit_positions():
    for width, n in ((32, 4), (1152, 16)):
        right = get_2d_sincos_pos_embed(width, n, base_size=n, output_type="pt").float()
        assert error(grid_positions(width, n, n), right) < 1e-6
