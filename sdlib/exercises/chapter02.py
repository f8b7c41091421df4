"""Exercises of chapter 2, the forward process."""

import math

import torch

from sdlib.exercises.registry import Exercise, register


def _betas(g: torch.Generator, steps: int, largest: float) -> torch.Tensor:
    return 1e-3 + (largest - 1e-3) * torch.rand(steps, generator=g, dtype=torch.float64)


def _kept(betas: torch.Tensor) -> torch.Tensor:
    return torch.prod(1 - betas)


def _variance_with(shrink):
    def after(v0, betas):
        for beta in betas:
            v0 = shrink(beta) * v0 + beta
        return v0

    return after


register(
    Exercise(
        name="forward-variance",
        cases=lambda g: [
            (1.0, _betas(g, 10, 0.3)),
            (4.0, _betas(g, 1, 0.5)),
            (0.0, _betas(g, 50, 0.1)),
            (2.5, torch.zeros(3, dtype=torch.float64)),
            (3.0, torch.tensor([0.2, 1.0], dtype=torch.float64)),
        ],
        reference=lambda v0, betas: 1 + (v0 - 1) * _kept(betas),
        mistakes={
            "You added the kicks and forgot that each step also shrinks what is there: that is the "
            "exploding process.": _variance_with(lambda beta: 1.0),
            "You shrank the variance by (1 - beta) squared. The step multiplies x by "
            "sqrt(1 - beta), so its variance is multiplied by 1 - beta.": _variance_with(
                lambda beta: (1 - beta) ** 2
            ),
            "You shrank the variance by sqrt(1 - beta). That is the factor on x; a factor enters a "
            "variance squared.": _variance_with(lambda beta: (1 - beta).sqrt()),
            "That is only the variance of the noise, 1 - alpha_bar: add what is left of the data, "
            "alpha_bar times v0.": lambda v0, betas: 1 - _kept(betas),
            "That is 1 whatever the data: a step preserves the variance only if it is 1 already.": (
                lambda v0, betas: 1.0
            ),
        },
    )
)

register(
    Exercise(
        name="forward-half-life",
        cases=lambda g: [(b,) for b in (0.02, 0.0001, 0.3, 0.75, 0.9, 0.0123)],
        reference=lambda beta: math.ceil(2 * math.log(0.5) / math.log(1 - beta) - 1e-12),
        mistakes={
            "That is when alpha_bar is halved. The amplitude alpha is its square root, so it takes "
            "about twice as long.": lambda beta: math.ceil(math.log(0.5) / math.log(1 - beta)),
            "You rounded down: after that many steps alpha is still above one half. Round up.": (
                lambda beta: math.floor(2 * math.log(0.5) / math.log(1 - beta))
            ),
            "You subtracted: alpha does not fall by beta / 2 at each step, it is multiplied by "
            "sqrt(1 - beta), so it falls ever more slowly.": lambda beta: math.ceil(1 / beta),
            "You used 1 - beta = exp(-beta). That holds in the limit of small steps; here beta "
            "may be large, so take the logarithm of 1 - beta.": lambda beta: math.ceil(
                2 * math.log(2) / beta
            ),
        },
    )
)


def _pairs(g: torch.Generator) -> list[tuple]:
    def draw():
        return torch.randn(5, 2, generator=g, dtype=torch.float64)

    levels = ((0.9, 0.5), (1.0, 0.3), (0.2, 0.001), (0.6, 0.0), (0.51, 0.5))
    return [(draw(), draw(), *pair) for pair in levels]


register(
    Exercise(
        name="forward-between",
        cases=_pairs,
        reference=lambda x, z, a, b: (b / a) ** 0.5 * x + (1 - b / a) ** 0.5 * z,
        mistakes={
            "You treated x_s as clean data: it already holds noise, and its data has already been "
            "shrunk by sqrt(alpha_bar_s).": lambda x, z, a, b: b**0.5 * x + (1 - b) ** 0.5 * z,
            "The factor on x_s is right, but the noise is too much: x_s brings some of its own, so "
            "add only what is missing to a variance of 1 - alpha_bar_t.": (
                lambda x, z, a, b: (b / a) ** 0.5 * x + (1 - b) ** 0.5 * z
            ),
            "You added the difference of the two variances, but the noise in x_s shrinks on the "
            "way: more than the difference is missing.": (
                lambda x, z, a, b: (b / a) ** 0.5 * x + (a - b) ** 0.5 * z
            ),
            "You used ratios of variances as factors on x and z. Factors are their square roots.": (
                lambda x, z, a, b: b / a * x + (1 - b / a) * z
            ),
            "You left x_s as large as it was: the steps between s and t shrink it, too.": (
                lambda x, z, a, b: x + (1 - b / a) ** 0.5 * z
            ),
        },
    )
)


def _alpha_bar(betas: torch.Tensor) -> torch.Tensor:
    return torch.cumprod(1 - betas, dim=0)


register(
    Exercise(
        name="forward-exploding",
        cases=lambda g: [
            (_betas(g, 20, 0.2),),
            (_betas(g, 1, 0.9),),
            (torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64),),
            (torch.zeros(4, dtype=torch.float64),),
        ],
        reference=lambda betas: (1 / _alpha_bar(betas) - 1).sqrt(),
        mistakes={
            "You summed the betas as they are. In the units of y each kick is magnified: its "
            "variance is beta / alpha_bar.": lambda betas: betas.cumsum(0).sqrt(),
            "That is the variance of the noise in y; the noise level is its square root.": (
                lambda betas: 1 / _alpha_bar(betas) - 1
            ),
            "You divided sigma by alpha_bar; the data's factor is alpha, its square root.": (
                lambda betas: (1 - _alpha_bar(betas)).sqrt() / _alpha_bar(betas)
            ),
            "That is sigma, the noise in x. To get the noise in y, divide by alpha as well.": (
                lambda betas: (1 - _alpha_bar(betas)).sqrt()
            ),
            "That is alpha / sigma, the other way up: noise levels grow.": (
                lambda betas: (1 / _alpha_bar(betas) - 1).rsqrt()
            ),
        },
    )
)
