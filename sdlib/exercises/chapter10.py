"""Exercises of chapter 10: guidance."""

import torch

from sdlib.exercises.registry import Exercise, register


def _levels(g: torch.Generator, n: int = 4) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Noise levels on the circle and of EDM, shaped to multiply `[n, 2]`."""
    angle = 0.1 + 1.3 * torch.rand(n, 1, generator=g, dtype=torch.float64)
    one = torch.ones(n, 1, dtype=torch.float64)
    return [(angle.cos(), angle.sin()), (one, 3 * angle)]


def _normal(g: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def _noise_cases(g: torch.Generator) -> list[tuple]:
    return [
        (_normal(g, 4, 2), _normal(g, 4, 2), _normal(g, 4, 2), alpha, sigma, scale)
        for alpha, sigma in _levels(g)
        for scale in (0.0, 1.0, 7.5)
    ]


def _x0_of(eps, x, alpha, sigma):
    return (x - sigma * eps) / alpha


register(
    Exercise(
        name="guide-the-noise",
        cases=_noise_cases,
        reference=lambda cond, uncond, x, alpha, sigma, scale: _x0_of(
            uncond + scale * (cond - uncond), x, alpha, sigma
        ),
        mistakes={
            "You started from the conditional noise and added the whole scale: that is 1 too "
            "much. At scale 1 nothing but the conditional estimate may be left.": (
                lambda cond, uncond, x, alpha, sigma, scale: _x0_of(
                    cond + scale * (cond - uncond), x, alpha, sigma
                )
            ),
            "The two are swapped: go from the unconditional noise toward the conditional.": (
                lambda cond, uncond, x, alpha, sigma, scale: _x0_of(
                    cond + scale * (uncond - cond), x, alpha, sigma
                )
            ),
            "That is the guided noise. The question was for the estimate of x0: "
            "(x - sigma eps) / alpha.": (
                lambda cond, uncond, x, alpha, sigma, scale: uncond + scale * (cond - uncond)
            ),
            "You forgot to divide by alpha.": (
                lambda cond, uncond, x, alpha, sigma, scale: (
                    x - sigma * (uncond + scale * (cond - uncond))
                )
            ),
        },
    )
)


def _classifier_cases(g: torch.Generator) -> list[tuple]:
    return [
        (_normal(g, 4, 2), _normal(g, 4, 2), alpha, sigma, scale)
        for alpha, sigma in _levels(g)
        for scale in (1.0, 4.0)
    ]


register(
    Exercise(
        name="classifier-in-eps",
        cases=_classifier_cases,
        reference=lambda eps, slope, alpha, sigma, scale: eps - scale * sigma * slope,
        mistakes={
            "Wrong sign. The score is -eps / sigma, so what raises the score "
            "lowers eps.": lambda eps, slope, alpha, sigma, scale: eps + scale * sigma * slope,
            "That factor is right for x0. From x0 to eps there is one more, -alpha / sigma.": (
                lambda eps, slope, alpha, sigma, scale: eps - scale * sigma**2 / alpha * slope
            ),
            "The slope is added to the score, and the score is -eps / sigma: you left out "
            "sigma.": lambda eps, slope, alpha, sigma, scale: eps - scale * slope,
            "sigma comes once: squared it belongs to Tweedie's formula, before eps is taken from "
            "it.": lambda eps, slope, alpha, sigma, scale: eps - scale * sigma**2 * slope,
        },
    )
)


def _variances(g: torch.Generator) -> list[tuple]:
    return [(1.0, 2.0, 3.0), (1.0, 2.0, 1.0), (0.25, 1.0, 2.0), (0.5, 0.9, 7.5), (0.8, 3.0, 0.0)]


register(
    Exercise(
        name="guided-variance",
        cases=_variances,
        reference=lambda v, whole, scale: v**scale * whole ** (1 - scale),
        mistakes={
            "That is the variance of the sharpened density. The guided walk ends elsewhere: "
            "integrate d log x / d sigma from infinity down to 0.": (
                lambda v, whole, scale: 1 / (scale / v + (1 - scale) / whole)
            ),
            "You have the factor by which x shrinks. A variance takes its square.": (
                lambda v, whole, scale: (v**scale * whole ** (1 - scale)) ** 0.5
            ),
            "The whole has a share too: its power is 1 - s, so that at s = 0 its variance is "
            "all there is.": lambda v, whole, scale: v**scale,
            "Class and whole are swapped: at scale 1 the class's own variance must come out.": (
                lambda v, whole, scale: whole**scale * v ** (1 - scale)
            ),
        },
    )
)


def _several_cases(g: torch.Generator) -> list[tuple]:
    scales = [torch.tensor(s, dtype=torch.float64) for s in ([2.0, 3.0], [5.0, -1.5], [1.0, 0.0])]
    return [(_normal(g, 4, 2), _normal(g, 2, 4, 2), s) for s in scales]


def _several(u, conds, scales):
    return u + (scales[:, None, None] * (conds - u)).sum(0)


def _in_turn(u, conds, scales):
    for cond, scale in zip(conds, scales, strict=True):
        u = u + scale * (cond - u)
    return u


register(
    Exercise(
        name="several-conditions",
        cases=_several_cases,
        reference=_several,
        mistakes={
            "You guided with one condition after the other, and each forgets a part of the one "
            "before. All arrows start at u: add them up.": _in_turn,
            "You averaged over the conditions. Each has a scale of its own, so their arrows are "
            "added as they are.": (
                lambda u, conds, scales: u + (scales[:, None, None] * (conds - u)).mean(0)
            ),
            "What is scaled is each condition's difference from u, not its estimate.": (
                lambda u, conds, scales: u + (scales[:, None, None] * conds).sum(0)
            ),
            "You used the conditions and left u out. With all scales 0 it has to remain.": (
                lambda u, conds, scales: (scales[:, None, None] * conds).sum(0)
            ),
        },
    )
)


def _interval_cases(g: torch.Generator) -> list[tuple]:
    alpha = torch.tensor([0.999, 0.95, 0.9, 0.7, 0.4, 0.2, 0.05], dtype=torch.float64)
    sigma = (1 - alpha**2).sqrt()
    one = torch.ones(4, dtype=torch.float64)
    levels = torch.tensor([0.1, 0.5, 2.0, 9.0], dtype=torch.float64)
    return [
        (alpha, sigma, 4.0, 0.3, 2.0),
        (alpha, sigma, 7.5, 0.0, 0.9),
        (one, levels, 3.0, 0.2, 5.0),
        (0.5 * one, 0.5 * levels, 3.0, 0.2, 1.5),
    ]


def _inside(level, low, high):
    return (level >= low) & (level <= high)


register(
    Exercise(
        name="scale-in-an-interval",
        cases=_interval_cases,
        reference=lambda alpha, sigma, scale, low, high: torch.where(
            _inside(sigma / alpha, low, high), scale, 1.0
        ),
        mistakes={
            "Outside the interval guidance is off, and off is scale 1. Scale 0 would forget the "
            "condition.": (
                lambda alpha, sigma, scale, low, high: torch.where(
                    _inside(sigma / alpha, low, high), scale, 0.0
                )
            ),
            "The interval counts in sigma / alpha, how much noise there is for one unit of "
            "signal. You compared sigma itself.": (
                lambda alpha, sigma, scale, low, high: torch.where(
                    _inside(sigma, low, high), scale, 1.0
                )
            ),
            "Inside and outside are swapped.": (
                lambda alpha, sigma, scale, low, high: torch.where(
                    _inside(sigma / alpha, low, high), 1.0, scale
                )
            ),
            "You let go of the lower end: below it guidance is off as well.": (
                lambda alpha, sigma, scale, low, high: torch.where(
                    sigma / alpha <= high, scale, 1.0
                )
            ),
        },
    )
)
