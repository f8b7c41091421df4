"""The exercises of chapter 1, From noise to a spiral."""

import math

import torch
from torch import Tensor

from sdlib.exercises.registry import Exercise, register


def _points(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, 2, generator=g, dtype=torch.float64)


# --- adding noise -------------------------------------------------------------------------------


def add_noise(x0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    alpha_bar = alpha_bar[:, None]
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps


def _add_noise_cases(g: torch.Generator) -> list[tuple]:
    some = torch.rand(5, generator=g, dtype=torch.float64)
    ends = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    return [(_points(g, len(kept)), _points(g, len(kept)), kept) for kept in (some, ends)]


register(
    Exercise(
        name="add-noise",
        cases=_add_noise_cases,
        reference=add_noise,
        mistakes={
            "You multiplied by alpha_bar itself. It is a share of variance: a sample is scaled by "
            "its square root.": lambda x0, eps, kept: (
                kept[:, None] * x0 + (1 - kept[:, None]).sqrt() * eps
            ),
            "The noise is scaled by 1 - alpha_bar, which is its variance. Its standard deviation "
            "is the square root of that.": lambda x0, eps, kept: (
                kept[:, None].sqrt() * x0 + (1 - kept[:, None]) * eps
            ),
            "Your two factors sum to 1. Their squares have to: variances of independent parts "
            "add, standard deviations do not.": lambda x0, eps, kept: (
                kept[:, None].sqrt() * x0 + (1 - kept[:, None].sqrt()) * eps
            ),
            "You added noise to the whole of x0. The data has to shrink as the noise grows, or "
            "the cloud gets wider and wider.": lambda x0, eps, kept: (
                x0 + (1 - kept[:, None]).sqrt() * eps
            ),
        },
    )
)


# --- from the guess of the noise to a guess of the point ----------------------------------------


def clean_guess(x: Tensor, eps: Tensor, alpha: float, sigma: float) -> Tensor:
    return (x - sigma * eps) / alpha


def _guess_cases(g: torch.Generator) -> list[tuple]:
    levels = [(0.8, 0.6), (0.0064, 0.99998), (1.0, 0.0), (0.28, 0.96)]
    return [(_points(g, 4), _points(g, 4), alpha, sigma) for alpha, sigma in levels]


register(
    Exercise(
        name="clean-guess",
        cases=_guess_cases,
        reference=clean_guess,
        mistakes={
            "You took away the whole of eps. Only sigma times eps was added.": (
                lambda x, eps, alpha, sigma: (x - eps) / alpha
            ),
            "What is left after taking the noise away is alpha times the clean point: divide by "
            "alpha.": lambda x, eps, alpha, sigma: x - sigma * eps,
            "You multiplied by alpha where you should undo it: x held alpha times the clean "
            "point, so divide.": lambda x, eps, alpha, sigma: (x - sigma * eps) * alpha,
            "The division by alpha goes to x and to the noise alike: put brackets around the "
            "difference.": lambda x, eps, alpha, sigma: x - sigma * eps / alpha,
        },
    )
)


# --- one step back ------------------------------------------------------------------------------


def step_back(
    x: Tensor, eps: Tensor, alpha: float, sigma: float, alpha2: float, sigma2: float
) -> Tensor:
    return alpha2 * (x - sigma * eps) / alpha + sigma2 * eps


def _step_cases(g: torch.Generator) -> list[tuple]:
    walks = [
        (0.6, 0.8, 0.8, 0.6),
        (0.28, 0.96, 0.96, 0.28),
        (0.8, 0.6, 1.0, 0.0),
        (0.5, 0.7, 0.5, 0.7),
    ]
    return [(_points(g, 4), _points(g, 4), *levels) for levels in walks]


register(
    Exercise(
        name="step-back",
        cases=_step_cases,
        reference=step_back,
        mistakes={
            "This takes away the difference in noise and forgets the data: the clean part has to "
            "grow from alpha to alpha2 as well.": lambda x, eps, a, s, a2, s2: x - (s - s2) * eps,
            "You stopped at the guess of the clean point. Put it back under the new, smaller "
            "noise: alpha2 times the guess plus sigma2 times eps.": (
                lambda x, eps, a, s, a2, s2: (x - s * eps) / a
            ),
            "You put the old amount of noise back, sigma, so nothing was taken away. The new "
            "level is sigma2.": lambda x, eps, a, s, a2, s2: a2 * (x - s * eps) / a + s * eps,
            "The guess of the clean point went back at full size. At the new level it is scaled "
            "by alpha2.": lambda x, eps, a, s, a2, s2: (x - s * eps) / a + s2 * eps,
            "You added the noise to the wrong place: the guess uses the old alpha and sigma, and "
            "the new state uses alpha2 and sigma2. Yours has them the other way round.": (
                lambda x, eps, a, s, a2, s2: a * (x - s2 * eps) / a2 + s * eps
            ),
        },
    )
)


# --- how much of the noise is fresh -------------------------------------------------------------


def fresh_share(eta: float, alpha: float, sigma: float, alpha2: float, sigma2: float) -> float:
    return eta * sigma2 * math.sqrt(1 - (alpha * sigma2 / (alpha2 * sigma)) ** 2)


def _share_cases(g: torch.Generator) -> list[tuple]:
    walks = [(0.6, 0.8, 0.96, 0.28), (0.28, 0.96, 0.8, 0.6), (0.8, 0.6, 1.0, 0.0)]
    return [(eta, *levels) for levels in walks for eta in (0.0, 0.5, 1.0)]


register(
    Exercise(
        name="fresh-share",
        cases=_share_cases,
        reference=fresh_share,
        mistakes={
            "That is the variance of the fresh noise. c is its standard deviation: take the "
            "square root.": lambda eta, a, s, a2, s2: eta * s2**2 * (1 - (a * s2 / (a2 * s)) ** 2),
            "eta stands outside the root, as a factor of c: half of eta means half of c.": (
                lambda eta, a, s, a2, s2: (
                    math.sqrt(eta) * s2 * math.sqrt(1 - (a * s2 / (a2 * s)) ** 2)
                )
            ),
            "The fresh noise is a share of the noise at the new level, so the factor in front is "
            "sigma2.": lambda eta, a, s, a2, s2: eta * s * math.sqrt(1 - (a * s2 / (a2 * s)) ** 2),
            "Square the ratio alpha sigma2 / (alpha2 sigma) before you take it from 1.": (
                lambda eta, a, s, a2, s2: eta * s2 * math.sqrt(1 - a * s2 / (a2 * s))
            ),
            "The ratio under the root leaves the alphas out. Noise is judged against the data it "
            "hides: compare sigma / alpha at both levels.": (
                lambda eta, a, s, a2, s2: eta * s2 * math.sqrt(1 - (s2 / s) ** 2)
            ),
        },
    )
)


# --- a distance between two clouds --------------------------------------------------------------


def shadow_distance(a: Tensor, b: Tensor, angle: float) -> Tensor:
    line = torch.tensor([math.cos(angle), math.sin(angle)], dtype=a.dtype)
    return ((a @ line).sort().values - (b @ line).sort().values).abs().mean()


def _shadows(a: Tensor, b: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    line = torch.tensor([math.cos(angle), math.sin(angle)], dtype=a.dtype)
    return a @ line, b @ line


def _shadow_unsorted(a, b, angle):
    a, b = _shadows(a, b, angle)
    return (a - b).abs().mean()


def _shadow_means(a, b, angle):
    a, b = _shadows(a, b, angle)
    return (a.mean() - b.mean()).abs()


def _shadow_squared(a, b, angle):
    a, b = _shadows(a, b, angle)
    return (a.sort().values - b.sort().values).square().mean().sqrt()


def _shadow_sorted_first(a, b, angle):
    a, b = _shadows(a.sort(dim=0).values, b.sort(dim=0).values, angle)
    return (a - b).abs().mean()


def _shadow_cases(g: torch.Generator) -> list[tuple]:
    a, b = _points(g, 9), 0.5 * _points(g, 9) + 0.1
    return [(a, b, 0.7), (a, a.flip(0), 2.0), (a, a + 1.0, math.pi / 4), (a[:1], b[:1], 0.0)]


register(
    Exercise(
        name="shadow-distance",
        cases=_shadow_cases,
        reference=shadow_distance,
        mistakes={
            "You compared the points in the order in which they came. The order of a cloud means "
            "nothing: sort both shadows first.": _shadow_unsorted,
            "You compared the means only. Two clouds can share a mean and look nothing alike: "
            "compare point by point after sorting.": _shadow_means,
            "You took the root of the mean square, which is the Wasserstein-2 distance. Here it "
            "is the mean of the absolute gaps.": _shadow_squared,
            "You sorted the coordinates before projecting, which tears the points apart. Project "
            "first, then sort the shadows.": _shadow_sorted_first,
        },
    )
)
