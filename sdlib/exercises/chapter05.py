"""Exercises of chapter 5: what should the network predict?"""

import math

import torch

from sdlib.exercises.registry import Exercise, register


def _levels(g: torch.Generator, n: int = 4) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Noise levels on the circle, on the straight line, of EDM, and at the ends."""
    angle = torch.rand(n, 1, generator=g, dtype=torch.float64) * math.pi / 2
    t = torch.rand(n, 1, generator=g, dtype=torch.float64)
    zero, one = torch.zeros(n, 1, dtype=torch.float64), torch.ones(n, 1, dtype=torch.float64)
    return [(angle.cos(), angle.sin()), (1 - t, t), (one, 3 * t + 0.1), (zero, one), (one, zero)]


def _samples(g: torch.Generator) -> list[tuple]:
    pair = lambda: torch.randn(2, 4, 2, generator=g, dtype=torch.float64).unbind(0)  # noqa: E731
    return [(*pair(), alpha, sigma) for alpha, sigma in _levels(g)]


register(
    Exercise(
        name="v-target",
        cases=_samples,
        reference=lambda x0, eps, alpha, sigma: alpha * eps - sigma * x0,
        mistakes={
            "You swapped the coefficients: alpha goes with eps and sigma with x0. "
            "Differentiate cos(phi) x0 + sin(phi) eps by phi once more.": (
                lambda x0, eps, alpha, sigma: alpha * x0 - sigma * eps
            ),
            "Wrong sign: v points the way of growing noise, so eps comes with a "
            "plus.": lambda x0, eps, alpha, sigma: sigma * x0 - alpha * eps,
            "That is the flow target, the velocity on the straight line. On the circle the "
            "velocity turns with the noise level.": lambda x0, eps, alpha, sigma: eps - x0,
            "That is the noisy sample x_t itself. v is its derivative by the angle.": (
                lambda x0, eps, alpha, sigma: alpha * x0 + sigma * eps
            ),
        },
    )
)

register(
    Exercise(
        name="x0-from-flow",
        cases=lambda g: [(out, x, alpha, sigma) for out, x, alpha, sigma in _samples(g)],
        reference=lambda out, x, alpha, sigma: (x - sigma * out) / (alpha + sigma),
        mistakes={
            "That holds on the straight line, where alpha + sigma = 1. On other schedules the sum "
            "is not 1, and x0 has to be divided by it.": (
                lambda out, x, alpha, sigma: x - sigma * out
            ),
            "You divided by alpha, as one does for an eps-network. Put eps = out + x0 into "
            "x = alpha x0 + sigma eps and collect what stands in front of x0.": (
                lambda out, x, alpha, sigma: (x - sigma * out) / alpha
            ),
            "The output points from data to noise: to come back to x0 you go against it, with a "
            "minus.": lambda out, x, alpha, sigma: (x + sigma * out) / (alpha + sigma),
            "You solved for eps. x0 is eps minus the output.": (
                lambda out, x, alpha, sigma: (x + alpha * out) / (alpha + sigma)
            ),
        },
    )
)


def _min_snr_cases(g: torch.Generator) -> list[tuple]:
    """On the circle only, where 1 / (SNR + 1) is what a v-error is worth."""
    angle = torch.rand(8, generator=g, dtype=torch.float64) * math.pi / 2
    return [(angle.cos(), angle.sin(), gamma) for gamma in (1.0, 5.0)]


def _min_snr_v(alpha, sigma, gamma):
    snr = (alpha / sigma) ** 2
    return snr.clamp(max=gamma) / (snr + 1)


register(
    Exercise(
        name="min-snr-v",
        cases=_min_snr_cases,
        reference=_min_snr_v,
        mistakes={
            "min(SNR, gamma) is the weight of a squared x0-error. A squared v-error is worth "
            "1 / (SNR + 1) of those: multiply by that.": (
                lambda alpha, sigma, gamma: ((alpha / sigma) ** 2).clamp(max=gamma)
            ),
            "That is the weight for an eps-network, whose errors are worth 1 / SNR. A v-error is "
            "worth 1 / (SNR + 1).": (
                lambda alpha, sigma, gamma: (
                    ((alpha / sigma) ** 2).clamp(max=gamma) / (alpha / sigma) ** 2
                )
            ),
            "You kept the larger of SNR and gamma. The point is to cap the weight at low noise: "
            "take the smaller.": (
                lambda alpha, sigma, gamma: (
                    ((alpha / sigma) ** 2).clamp(min=gamma) / ((alpha / sigma) ** 2 + 1)
                )
            ),
            "The signal-to-noise ratio is alpha^2 / sigma^2: you left out the square.": (
                lambda alpha, sigma, gamma: (alpha / sigma).clamp(max=gamma) / (alpha / sigma + 1)
            ),
        },
    )
)


def _error_cases(g: torch.Generator) -> list[tuple]:
    levels = [(a.flatten(), s.flatten()) for a, s in _levels(g)[:3]]
    return [(torch.rand(len(a), generator=g, dtype=torch.float64), a, s) for a, s in levels]


register(
    Exercise(
        name="eps-error-in-x0",
        cases=_error_cases,
        reference=lambda error, alpha, sigma: error * (sigma / alpha) ** 2,
        mistakes={
            "The factor sigma / alpha is for the error itself. Yours is a mean of squares: square "
            "the factor too.": lambda error, alpha, sigma: error * sigma / alpha,
            "Upside down: that turns an x0-error into an eps-error. Where noise is strong the "
            "error in x0 has to be the larger one.": (
                lambda error, alpha, sigma: error * (alpha / sigma) ** 2
            ),
            "That is what a v-error is worth. An eps-network's estimate is (x - sigma out) / alpha:"
            " what stands in front of out?": (
                lambda error, alpha, sigma: error * sigma**2 / (alpha**2 + sigma**2)
            ),
            "You forgot to divide by alpha: the estimate of x0 is (x - sigma out) / alpha.": (
                lambda error, alpha, sigma: error * sigma**2
            ),
        },
    )
)


def _known_cases(g: torch.Generator) -> list[tuple]:
    levels = [(0.8, 0.6), (0.5, 0.5), (1.0, 3.0), (0.0, 1.0), (1.0, 0.0)]
    rows = lambda a, s: [(0.0, 1.0), (1.0, 0.0), (-s, a), (-1.0, 1.0), (2 * a, 2 * s)]  # noqa: E731
    return [(a, b, alpha, sigma) for alpha, sigma in levels for a, b in rows(alpha, sigma)]


def _known(a, b, alpha, sigma):
    both = alpha * b != sigma * a
    return both or sigma == 0, both or alpha == 0


register(
    Exercise(
        name="what-is-known",
        cases=_known_cases,
        reference=_known,
        mistakes={
            "When the two equations say the same thing, not everything is lost: at sigma = 0 the "
            "noisy sample is alpha x0, and at alpha = 0 it is sigma eps.": (
                lambda a, b, alpha, sigma: (alpha * b != sigma * a,) * 2
            ),
            "Not every answer helps: an eps-network at alpha = 0 repeats what it was shown, and x0 "
            "stays unknown. When is the triangle flat?": lambda a, b, alpha, sigma: (True, True),
            "The two ends are swapped: at sigma = 0 the noisy sample shows x0, at alpha = 0 it "
            "shows eps.": (
                lambda a, b, alpha, sigma: (
                    alpha * b != sigma * a or alpha == 0,
                    alpha * b != sigma * a or sigma == 0,
                )
            ),
            "You looked at the noisy sample alone. The network's output is a second equation: if "
            "alpha b differs from sigma a, the two together give both.": (
                lambda a, b, alpha, sigma: (sigma == 0, alpha == 0)
            ),
        },
    )
)
