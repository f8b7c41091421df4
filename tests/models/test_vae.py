"""The autoencoder: its distribution, its scale, tiles and batches that equal the whole."""

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from sdlib.models import AutoencoderKL, DiagonalGaussian, VAEConfig
from sdlib.models.vae import tiled


def net(**changes):
    return AutoencoderKL(VAEConfig.tiny(**{"widths": (32, 32, 64), **changes})).eval()


def test_v1_5_has_the_parameters_of_the_published_model():
    with torch.device("meta"):
        vae = AutoencoderKL(VAEConfig.sd15())
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863
    assert vae.config.factor == 8 and vae.config == VAEConfig()


def test_shapes():
    vae, pixels = net(), torch.randn(2, 3, 16, 24)
    latents = vae.encode(pixels)
    assert latents.mean.shape == latents.std.shape == (2, 4, 4, 6)
    assert vae.decode(latents.mean).shape == pixels.shape


def test_the_scale_is_inside():
    """Latents scale with it, and pictures do not change."""
    one, other, pixels = net(scale=1.0), net(scale=0.25), torch.randn(1, 3, 8, 8)
    other.load_state_dict(one.state_dict())
    a, b = one.encode(pixels), other.encode(pixels)
    torch.testing.assert_close(0.25 * a.mean, b.mean)
    torch.testing.assert_close(0.25 * a.std, b.std)
    torch.testing.assert_close(one.decode(a.mean), other.decode(b.mean))
    torch.testing.assert_close(a.kl(), b.kl())


def some_latents(scale=0.18215):
    return DiagonalGaussian(torch.randn(3, 8, 5, 6), scale)


def test_kl_is_the_one_of_torch():
    latents = some_latents()
    right = kl_divergence(Normal(latents.mean / 0.18215, latents.std / 0.18215), Normal(0.0, 1.0))
    torch.testing.assert_close(latents.kl(), right.sum((1, 2, 3)))


def test_the_kl_of_halves_is_finite():
    """A variance of e^-12 is 0 in float16, and its logarithm is not."""
    moments = torch.cat([torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), -30.0)], dim=1)
    torch.testing.assert_close(DiagonalGaussian(moments.half()).kl(), torch.tensor([58.0]))


def test_a_draw_is_the_mean_and_std_times_the_noise():
    latents = some_latents()
    torch.testing.assert_close(latents.sample(torch.ones_like), latents.mean + latents.std)
    many = torch.stack([latents.sample() for _ in range(4000)])
    right = Normal(latents.mean, latents.std)
    assert ((many.mean(0) - right.mean).abs() < 6 * right.stddev / 4000**0.5).all()
    torch.testing.assert_close(many.std(0), right.stddev, rtol=0.1, atol=0)


def test_a_variance_out_of_bounds_is_cut():
    vae = net(scale=1.0)
    with torch.no_grad():
        vae.to_moments.bias[4:] = torch.tensor([-1000.0, 1000, 0, 0])
    std = vae.encode(torch.randn(1, 3, 8, 8)).std
    torch.testing.assert_close(std[:, 0], torch.full((1, 2, 2), -15.0).exp())
    torch.testing.assert_close(std[:, 1], torch.full((1, 2, 2), 10.0).exp())


# --- less memory ----------------------------------------------------------------------------------


def test_slicing_equals_the_batch():
    vae, pixels = net(), torch.randn(3, 3, 8, 8)
    latents = vae.encode(pixels)
    out = vae.decode(latents.mean)
    sizes = []
    for half in (vae.encoder, vae.decoder):
        half.register_forward_pre_hook(lambda layer, args: sizes.append(len(args[0])))
    vae.slicing = True  # float32 sums go in another order where the batch is smaller
    torch.testing.assert_close(vae.encode(pixels).std, latents.std, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(vae.decode(latents.mean), out, rtol=1e-4, atol=5e-5)
    assert sizes == [1] * 6


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12))
def test_tiles_cover_a_picture_of_any_size(h, w, side):
    x = torch.randn(1, 2, h, w)
    torch.testing.assert_close(tiled(lambda x: x, x, side, (1, 1)), x)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 16), st.integers(1, 16), st.integers(1, 6), st.sampled_from([2, 4, 8]))
def test_tiles_of_a_change_of_size_fit(h, w, side, f):
    """Tiles begin on whole latents, on the way in and on the way out."""
    z = torch.randn(1, 2, h, w)
    larger = F.interpolate(z, scale_factor=f)
    torch.testing.assert_close(
        tiled(lambda x: F.interpolate(x, scale_factor=f), z, side, (f, 1)), larger
    )
    smaller = tiled(lambda x: F.avg_pool2d(x, f), larger, side * f, (1, f))
    torch.testing.assert_close(smaller, z, rtol=1e-5, atol=1e-5)


def test_no_tile_is_larger_than_asked_and_seams_are_mixed():
    """A convolution pads at the edge of a tile; mixed, only what lies near a seam is off."""
    kernel, x, seen = torch.randn(1, 1, 3, 3), torch.randn(1, 1, 30, 20), []

    def conv(x):
        seen.append(x.shape[2:])
        return F.conv2d(x, kernel, padding=1)

    out, whole = tiled(conv, x, 16, (1, 1)), F.conv2d(x, kernel, padding=1)
    assert set(seen) == {(16, 16)} and len(seen) == 6
    off = ~torch.isclose(out, whole, atol=1e-5)
    assert 0 < off.float().mean() < 0.3
    lone = F.conv2d(x[:, :, :16, :16], kernel, padding=1)
    edge = whole[
        :, :, 15, :10
    ]  # the last row of the first tile: worst there, mended by its neighbor
    assert (out[:, :, 15, :10] - edge).abs().mean() < 0.5 * (
        lone[:, :, 15, :10] - edge
    ).abs().mean()


def test_one_tile_fades_into_the_next():
    """Two tiles of another color each: between them no step, but even ones."""
    colors = iter([0.0, 1.0])
    row = tiled(lambda x: torch.full_like(x, next(colors)), torch.zeros(1, 1, 16, 28), 16, (1, 1))
    row = row[0, 0, 7]
    assert torch.equal(row[:12], torch.zeros(12)) and torch.equal(row[16:], torch.ones(12))
    torch.testing.assert_close(row[11:17], torch.linspace(0, 1, 6))


def test_a_tiled_autoencoder_keeps_sizes_and_small_pictures():
    vae, pixels = net(), torch.randn(2, 3, 32, 40)
    whole = vae.encode(pixels)
    picture = vae.decode(whole.mean)
    vae.tile = 5
    latents = vae.encode(pixels)
    assert latents.mean.shape == whole.mean.shape and (latents.std > 0).all()
    assert vae.decode(whole.mean).shape == picture.shape
    vae.tile = 10  # as large as the picture: nothing is cut
    assert torch.equal(vae.decode(whole.mean), picture)
    assert torch.equal(vae.encode(pixels).mean, whole.mean)


# --- precision, gradients, refusals ---------------------------------------------------------------


@pytest.mark.parametrize("dtype, limit", [(torch.bfloat16, 0.15), (torch.float16, 0.02)])
@torch.no_grad()
def test_half_precision(dtype, limit):
    vae, pixels = net(), torch.randn(2, 3, 16, 16)
    latents = vae.encode(pixels).mean
    picture = vae.decode(latents)
    vae.to(dtype)
    half = vae.encode(pixels.to(dtype)).mean
    assert half.dtype == dtype and (half.float() - latents).norm() < limit * latents.norm()
    half = vae.decode(latents.to(dtype))
    assert half.dtype == dtype and (half.float() - picture).norm() < limit * picture.norm()


def test_gradients_reach_every_parameter():
    vae = net()
    latents = vae.encode(torch.randn(2, 3, 16, 16))
    (vae.decode(latents.sample()).square().mean() + 1e-3 * latents.kl().mean()).backward()
    silent = [n for n, p in vae.named_parameters() if p.grad is None or not p.grad.any()]
    # the bias of a key adds the same to all scores of a query, and so to none
    assert [n for n in silent if not n.endswith(".k.bias")] == []


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"multiples of 4; got shape \(1, 3, 8, 10\)"):
        net().encode(torch.zeros(1, 3, 8, 10))
    with pytest.raises(ValueError, match=r"must be \[b, 3, H, W\]"):
        net().encode(torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match=r"must be \[b, 4, h, w\]; got shape \(4, 8, 8\)"):
        net().decode(torch.zeros(4, 8, 8))
    with pytest.raises(ValueError, match=r"multiples of 32; got \(32, 33\)"):
        net(widths=(32, 33))


def test_nothing_holds_on_to_the_input_of_a_level():
    vae, seen = AutoencoderKL(VAEConfig.tiny()).eval(), []
    first, second = vae.decoder.up[-1].blocks[:2]
    first.register_forward_pre_hook(lambda _, inputs: seen.append(weakref.ref(inputs[0])))
    second.register_forward_pre_hook(lambda _, inputs: seen.append(seen[0]()))
    with torch.no_grad():
        vae.decode(torch.randn(1, 4, 4, 4))
    assert seen[1] is None
