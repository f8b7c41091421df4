"""Exercises of chapter 4: the ideal denoiser."""

import torch

from sdlib.exercises.registry import Exercise, register


def _two_points_cases(g):
    x = torch.randn(6, generator=g, dtype=torch.float64)
    edge = torch.tensor([0.0, 0.5, -3.0, 100.0], dtype=torch.float64)
    return [(x, 1.0, 0.7), (x, 0.6, 0.8), (x, 0.0, 1.0), (edge, 0.9, 0.01), (edge, 0.5, 10.0)]


register(
    Exercise(
        name="two-points",
        cases=_two_points_cases,
        reference=lambda x, alpha, sigma: torch.tanh(alpha * x / sigma**2),
        mistakes={
            "alpha is missing: the two Gaussians stand at -alpha and +alpha, not at -1 and +1.": (
                lambda x, alpha, sigma: torch.tanh(x / sigma**2)
            ),
            "You divided by sigma: the exponents hold squared distances over 2 sigma squared.": (
                lambda x, alpha, sigma: torch.tanh(alpha * x / sigma)
            ),
            "A factor of 2 is off: the squares (x - alpha)^2 and (x + alpha)^2 differ by 4 alpha "
            "x, so the "
            "weights have the ratio exp(2 alpha x / sigma^2), and tanh(z) is (e^z - e^-z) / (e^z "
            "+ e^-z).": (lambda x, alpha, sigma: torch.tanh(alpha * x / (2 * sigma**2))),
            "That is the nearest point, the best guess as sigma goes to 0 only; with noise, both "
            "points count.": (lambda x, alpha, sigma: torch.sign(x)),
            "That is the probability of the point +1. The guess is an average of -1 and +1: w+ "
            "minus w-.": (lambda x, alpha, sigma: torch.sigmoid(2 * alpha * x / sigma**2)),
        },
    )
)


def _score_cases(g):
    x, x0 = torch.randn(2, 5, 2, generator=g, dtype=torch.float64)
    return [(x, x0, 1.0, 0.5), (x, x0, 0.6, 0.8), (x, x0, 0.0, 1.0), (x, x, 1.0, 3.0)]


register(
    Exercise(
        name="score-from-x0",
        cases=_score_cases,
        reference=lambda x, x0, alpha, sigma: (alpha * x0 - x) / sigma**2,
        mistakes={
            "Wrong sign: the score points uphill, from x toward alpha x0.": (
                lambda x, x0, alpha, sigma: (x - alpha * x0) / sigma**2
            ),
            "alpha is missing: the hill that x climbs stands at alpha x0, not at x0.": (
                lambda x, x0, alpha, sigma: (x0 - x) / sigma**2
            ),
            "You divided by sigma: that is minus the noise in x. The score is that over sigma "
            "once more.": (lambda x, x0, alpha, sigma: (alpha * x0 - x) / sigma),
            "That is the noise in x. The score is minus that, over sigma.": (
                lambda x, x0, alpha, sigma: (x - alpha * x0) / sigma
            ),
            "Solve for the score: D = (x + sigma^2 score) / alpha becomes (alpha D - x) / sigma^2. "
            "You divided by alpha where you should multiply.": (
                lambda x, x0, alpha, sigma: (x0 / alpha - x) / sigma**2
            ),
        },
    )
)


def _weights_cases(g):
    squares = 4 * torch.rand(5, 8, generator=g, dtype=torch.float64)
    far = torch.tensor([[1e6, 1e6 + 1, 2e6], [0.0, 0.0, 1e9]], dtype=torch.float64)
    return [
        (squares, 1.0),
        (squares, 0.3),
        (squares, 1e-3),
        (squares, 1e4),
        (far, 1.0),
        (far, 1e-3),
    ]


def _shifted(squares):
    return squares.amin(1, keepdim=True) - squares


register(
    Exercise(
        name="safe-weights",
        cases=_weights_cases,
        reference=lambda squares, sigma: torch.softmax(_shifted(squares) / (2 * sigma**2), 1),
        mistakes={
            "Rows must sum to 1, but the far ones sum to 0: a small number in the denominator "
            "(or 0 for "
            "NaN) stops the NaN and loses the answer. Subtract the smallest square of each row "
            "before the exponential.": (
                lambda squares, sigma: (
                    (w := torch.exp(-squares / (2 * sigma**2)))
                    / w.sum(1, keepdim=True).clamp(min=1e-12)
                )
            ),
            "The factor 2 is missing: a Gaussian's exponent is the square over 2 sigma squared.": (
                lambda squares, sigma: torch.softmax(_shifted(squares) / sigma**2, 1)
            ),
            "You divided by sigma instead of its square.": (
                lambda squares, sigma: torch.softmax(_shifted(squares) / (2 * sigma), 1)
            ),
            "Wrong sign: the farthest point has the largest weight.": (
                lambda squares, sigma: torch.softmax(-_shifted(squares) / (2 * sigma**2), 1)
            ),
            "Those are columns that sum to 1: normalize over the points, which is dimension 1.": (
                lambda squares, sigma: torch.softmax(
                    (squares.amin(0, keepdim=True) - squares) / (2 * sigma**2), 0
                )
            ),
            "The rows do not sum to 1: after the exponential, divide by the sum of the row.": (
                lambda squares, sigma: torch.exp(_shifted(squares) / (2 * sigma**2))
            ),
        },
    )
)


def _gaussian_cases(g):
    x = torch.randn(6, 2, generator=g, dtype=torch.float64)
    mean = torch.randn(2, generator=g, dtype=torch.float64)
    return [
        (x, mean, 0.5, 1.0, 0.7),
        (x, mean, 2.0, 0.6, 0.8),
        (x, mean, 0.5, 0.0, 1.0),
        (x, mean, 0.5, 1.0, 0.0),
        (x, mean, 1e-3, 0.9, 3.0),
    ]


def _gain(std, alpha, sigma):
    return alpha * std**2 / (alpha**2 * std**2 + sigma**2)


register(
    Exercise(
        name="gaussian-denoiser",
        cases=_gaussian_cases,
        reference=lambda x, mean, std, alpha, sigma: (
            mean + _gain(std, alpha, sigma) * (x - alpha * mean)
        ),
        mistakes={
            "The noisy cloud is centered at alpha times the mean: compare x with that, not with "
            "the mean.": (
                lambda x, mean, std, alpha, sigma: mean + _gain(std, alpha, sigma) * (x - mean)
            ),
            "alpha is missing in front: the gain is alpha s^2 / (alpha^2 s^2 + sigma^2), since x "
            "holds alpha x0.": (
                lambda x, mean, std, alpha, sigma: (
                    mean + std**2 / (alpha**2 * std**2 + sigma**2) * (x - alpha * mean)
                )
            ),
            "You used standard deviations where variances belong: squares add, standard "
            "deviations do not.": (
                lambda x, mean, std, alpha, sigma: (
                    mean + alpha * std / (alpha * std + sigma) * (x - alpha * mean)
                )
            ),
            "That forgets where the data is: the guess shrinks toward 0 and should shrink toward "
            "the mean.": (lambda x, mean, std, alpha, sigma: _gain(std, alpha, sigma) * x),
            "That stays at alpha times the mean when the noise is large: it estimates alpha x0, "
            "not x0.": (
                lambda x, mean, std, alpha, sigma: (
                    alpha * mean + alpha * _gain(std, alpha, sigma) * (x - alpha * mean)
                )
            ),
        },
    )
)


def _number_cases(g):
    some = torch.softmax(3 * torch.randn(5, 7, generator=g, dtype=torch.float64), 1)
    half = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    return [(some,), (half,), (torch.full((1, 50), 0.02, dtype=torch.float64),)]


register(
    Exercise(
        name="effective-points",
        cases=_number_cases,
        reference=lambda weights: torch.exp(-torch.xlogy(weights, weights).sum(1)),
        mistakes={
            "That is the entropy itself; its exponential is a number of points.": (
                lambda weights: -torch.xlogy(weights, weights).sum(1)
            ),
            "Wrong sign: the entropy is minus the sum of w log w, so your number is one "
            "over the right one.": (
                lambda weights: torch.exp(torch.xlogy(weights, weights).sum(1))
            ),
            "One over the sum of squares is another effective number (the one of importance "
            "sampling); "
            "here it is the exponential of the "
            "entropy.": lambda weights: 1 / weights.square().sum(1),
            "You mixed bases: an entropy in bits needs 2 to its power, one in nats (the natural "
            "logarithm) needs e.": (
                lambda weights: torch.exp(
                    -torch.xlogy(weights, weights).sum(1) / torch.log(torch.tensor(2.0))
                )
            ),
            "That counts the weights above 0, however small: a weight of a millionth is then a "
            "whole point.": (lambda weights: (weights > 0).sum(1)),
        },
    )
)
