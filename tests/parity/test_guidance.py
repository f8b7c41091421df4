"""Parity with diffusers: how its pipelines guide and rescale."""

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from sdlib.diffusion import classifier_free, rescaled, schedule, to_eps


def network(x, cond):
    """A stand-in whose answer depends on its condition, `[b, 77, 8]`."""
    return torch.tanh(x + cond.mean((1, 2)).reshape(-1, 1, 1, 1)) + 0.2 * x.roll(1, -1)


def denoiser(x, t, alpha, sigma, cond):
    return (x - sigma * network(x, cond)) / alpha


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("t", [1, 500, 981])
def test_guided_and_rescaled_noise(share, t):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 8, 8, generator=g, dtype=torch.float64)
    text, empty = torch.randn(2, 2, 77, 8, generator=g, dtype=torch.float64)
    # as in StableDiffusionPipeline.__call__
    uncond, cond = network(torch.cat([x] * 2), torch.cat([empty, text])).chunk(2)
    noise = uncond + 7.5 * (cond - uncond)
    noise = rescale_noise_cfg(noise, cond, guidance_rescale=share) if share else noise
    alpha, sigma = schedule("scaled_linear")(t)
    guided = classifier_free(denoiser, 7.5, uncond=empty, correct=rescaled(share))
    ours = to_eps(guided(x, t, alpha, sigma, text), x, alpha, sigma)
    torch.testing.assert_close(ours, noise)
