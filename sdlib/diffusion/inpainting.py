"""Inpainting: a denoiser that knows a part of the answer (Chapter 21)."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from sdlib.diffusion.denoiser import Denoiser


def inpainting(denoiser: Denoiser, known: Tensor, mask: Tensor) -> Denoiser:
    """A denoiser whose estimate is `known` wherever `mask` is 0.

    A walk that starts from `alpha * known + sigma * noise` then carries just that noise along where
    the mask is 0: at each node the state there is `known` under the level's share of it. RePaint
    (Lugmayr et al. 2022, equation 8) and Stable Diffusion's pipelines write that into the state
    after each step; here the sampler finds it by itself, whichever sampler it is.

    Args:
        denoiser: for the whole sample.
        known: clean data, `[b, ...]` or one sample for all.
        mask: 1 where to paint and 0 where to keep (or between), in a shape that broadcasts.
    """

    def estimate(x: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, cond: Any = None) -> Tensor:
        return blend(denoiser(x, t, alpha, sigma, cond), known, mask)

    return estimate


def shrink(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask `[b, 1, H, W]` of pixels as one of latents, `[b, 1, h, w]`, whose sides divide H, W.

    A latent is painted where any of its pixels is, so that no stroke is too thin to be painted.
    (Stable Diffusion's pipelines look at one pixel of each.)
    """
    return F.adaptive_max_pool2d(mask, size)


def blend(painted: Tensor, known: Tensor, mask: Tensor) -> Tensor:
    """`painted` where the mask is 1, `known` where it is 0."""
    mask = mask.to(painted)
    return mask * painted + (1 - mask) * known.to(painted)
