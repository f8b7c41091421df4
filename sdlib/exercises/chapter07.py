"""Exercises of chapter 7: DDPM and the variational bound."""

import math

import torch

from sdlib.exercises.registry import Exercise, register


def _numbers(g, n, low=0.2, high=2.0):
    return (low + (high - low) * torch.rand(n, generator=g, dtype=torch.float64)).tolist()


def _two_gaussians(g):
    cases = []
    for _ in range(4):
        (mean, mean2), (variance, variance2) = _numbers(g, 2, -2), _numbers(g, 2)
        cases.append((mean, variance, mean2, variance2))
    return [*cases, (1.0, 1e-3, -1.0, 1.0), (0.5, 2.0, 0.5, 2.0)]


def _product(mean, variance, mean2, variance2):
    both = 1 / (1 / variance + 1 / variance2)
    return both * (mean / variance + mean2 / variance2), both


register(
    Exercise(
        name="gaussian-product",
        cases=_two_gaussians,
        reference=_product,
        mistakes={
            "You added the variances. That is what happens to the sum of two random numbers; in a "
            "product of densities the precisions, 1 / variance, add.": (
                lambda m, v, m2, v2: (
                    (m / v + m2 / v2) / (1 / v + 1 / v2),
                    v + v2,
                )
            ),
            "The weights of the means are swapped: the sharper bell, of the smaller "
            "variance, pulls harder.": (
                lambda m, v, m2, v2: ((v * m + v2 * m2) / (v + v2), v * v2 / (v + v2))
            ),
            "The plain average of the means is right only if both variances are equal.": (
                lambda m, v, m2, v2: ((m + m2) / 2, v * v2 / (v + v2))
            ),
            "That is the precision: the variance is one over it.": (
                lambda m, v, m2, v2: ((v2 * m + v * m2) / (v + v2), 1 / v + 1 / v2)
            ),
            "You took the arguments for standard deviations. They are variances already.": (
                lambda m, v, m2, v2: _product(m, v**2, m2, v2**2)
            ),
        },
    )
)


def _steps(g):
    """Levels (alpha, sigma, alpha2, sigma2) of steps toward data: on the circle, flow, EDM."""
    found = []
    for _ in range(2):
        low, high = sorted(_numbers(g, 2, 0.1, 1.4))
        found.append((math.cos(high), math.sin(high), math.cos(low), math.sin(low)))
        low, high = sorted(_numbers(g, 2, 0.05, 0.95))
        found.append((1 - high, high, 1 - low, low))
        low, high = sorted(_numbers(g, 2, 0.1, 5.0))
        found.append((1.0, high, 1.0, low))
    return found


def _small_and_large(alpha, sigma, alpha2, sigma2):
    beta = sigma**2 - (alpha * sigma2 / alpha2) ** 2
    return beta * (sigma2 / sigma) ** 2, beta


def _between(v, *levels):
    small, large = _small_and_large(*levels)
    return small ** (1 - v) * large**v


def _straight(v, *levels):
    small, large = _small_and_large(*levels)
    return (1 - v) * small + v * large


register(
    Exercise(
        name="reverse-variance",
        cases=lambda g: [(v, *levels) for v in (0.0, 0.3, 1.0) for levels in _steps(g)],
        reference=_between,
        mistakes={
            "You went from small to large along a straight line. Interpolate the logarithms, and "
            "take the exponential.": _straight,
            "The ends are swapped: v = 0 is the small variance, v = 1 the large one.": (
                lambda v, *levels: _between(1 - v, *levels)
            ),
            "That is the standard deviation. The variance is its square.": (
                lambda v, *levels: math.sqrt(_between(v, *levels))
            ),
            "Your beta is 1 - (alpha / alpha2)^2, which holds where alpha^2 + sigma^2 = 1 only. In "
            "general it is sigma^2 - (alpha sigma2 / alpha2)^2.": (
                lambda v, alpha, sigma, alpha2, sigma2: (
                    (1 - (alpha / alpha2) ** 2) * (sigma2 / sigma) ** (2 * (1 - v))
                )
            ),
            "The small variance is beta times sigma2^2 / sigma^2: a ratio of variances. You took "
            "the ratio of standard deviations.": (
                lambda v, alpha, sigma, alpha2, sigma2: (
                    (sigma**2 - (alpha * sigma2 / alpha2) ** 2) * (sigma2 / sigma) ** (1 - v)
                )
            ),
        },
    )
)


def _weight(alpha, sigma, alpha2, sigma2):
    return ((alpha2 * sigma / (sigma2 * alpha)) ** 2 - 1) / 2


register(
    Exercise(
        name="eps-weight",
        cases=lambda g: _steps(g),
        reference=_weight,
        mistakes={
            "That is the weight on the squared error of x0. An error in eps is sigma / alpha times "
            "as large in x0, so its weight is the weight on x0 times sigma^2 / alpha^2.": (
                lambda alpha, sigma, alpha2, sigma2: (
                    ((alpha2 / sigma2) ** 2 - (alpha / sigma) ** 2) / 2
                )
            ),
            "The factor one half is missing: a Gaussian's exponent is the square over twice the "
            "variance.": lambda *levels: 2 * _weight(*levels),
            "Divide the difference of SNRs by the SNR where the network is asked, which is the "
            "noisier one, (alpha, sigma).": (
                lambda alpha, sigma, alpha2, sigma2: (
                    (1 - (alpha * sigma2 / (sigma * alpha2)) ** 2) / 2
                )
            ),
            "Wrong sign: the SNR grows along the walk, and a weight is positive.": (
                lambda *levels: -_weight(*levels)
            ),
            "You took ratios of alpha / sigma. The SNR is the square of that.": (
                lambda alpha, sigma, alpha2, sigma2: (alpha2 * sigma / (sigma2 * alpha) - 1) / 2
            ),
        },
    )
)


def _best_cases(g):
    return [(square, *levels) for levels in _steps(g) for square in _numbers(g, 2, 0.01, 0.5)]


def _best(square, alpha, sigma, alpha2, sigma2):
    small, beta = _small_and_large(alpha, sigma, alpha2, sigma2)
    gain = alpha2 * beta / sigma**2
    return small + gain**2 * square


register(
    Exercise(
        name="best-v",
        cases=_best_cases,
        reference=lambda square, *levels: (
            math.log(_best(square, *levels) / _small_and_large(*levels)[0])
            / math.log(_small_and_large(*levels)[1] / _small_and_large(*levels)[0])
        ),
        mistakes={
            "That is the best variance itself. Ask which v gives it: how far its logarithm is on "
            "the way from log small to log large.": _best,
            "You measured the way from small to large along a straight line; v measures it in the "
            "logarithm.": (
                lambda square, *levels: (
                    (_best(square, *levels) - _small_and_large(*levels)[0])
                    / (_small_and_large(*levels)[1] - _small_and_large(*levels)[0])
                )
            ),
            "The ends are swapped: v = 0 is the small variance, v = 1 the large one.": (
                lambda square, *levels: (
                    math.log(_small_and_large(*levels)[1] / _best(square, *levels))
                    / math.log(_small_and_large(*levels)[1] / _small_and_large(*levels)[0])
                )
            ),
            "The doubt about x0 goes into the variance with the square of the gain.": (
                lambda square, alpha, sigma, alpha2, sigma2: (
                    math.log(1 + alpha2 * square / sigma**2 / (sigma2 / sigma) ** 2)
                    / math.log((sigma / sigma2) ** 2)
                )
            ),
            "The gain is missing: a doubt of 1 in x0 moves the mean of the step by the gain.": (
                lambda square, *levels: (
                    math.log(1 + square / _small_and_large(*levels)[0])
                    / math.log(_small_and_large(*levels)[1] / _small_and_large(*levels)[0])
                )
            ),
        },
    )
)


def _pixel_cases(g):
    return [(nats, dims, 256) for nats, dims in ((-9000.0, 3072), (0.0, 3072), (100.0, 12))] + [
        (-2500.0, 784, 16)
    ]


def _pixel_bits(nats, dims, levels):
    return nats / (dims * math.log(2)) + math.log2((levels - 1) / 2)


register(
    Exercise(
        name="pixel-bits",
        cases=_pixel_cases,
        reference=_pixel_bits,
        mistakes={
            "Those are bits of a density, which may be below 0. A gray level is 2 / (levels - 1) "
            "wide: the probability of a level is the density times that width.": (
                lambda nats, dims, levels: nats / (dims * math.log(2))
            ),
            "You divided a probability by the width where you should multiply: the finer the "
            "levels, the more bits it takes to name one.": (
                lambda nats, dims, levels: nats / (dims * math.log(2)) - math.log2((levels - 1) / 2)
            ),
            "That is a mixture of nats and bits: the bound is in nats, so divide it by log 2.": (
                lambda nats, dims, levels: nats / dims + math.log2((levels - 1) / 2)
            ),
            "The bound is for the whole image. Divide it by the number of dimensions.": (
                lambda nats, dims, levels: nats / math.log(2) + math.log2((levels - 1) / 2)
            ),
            "From -1 to 1 there are levels - 1 gaps, each 2 / (levels - 1) wide. You took the "
            "range for 1.": (
                lambda nats, dims, levels: nats / (dims * math.log(2)) + math.log2(levels - 1)
            ),
        },
    )
)
