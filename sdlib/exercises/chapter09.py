"""Exercises of chapter 9: fast solvers."""

import math

import torch

from sdlib.exercises.registry import Exercise, register


def _slopes():
    """Slopes of several kinds: constant, in y, in s, and in both."""
    return [
        lambda y, s: torch.full_like(y, 0.7),
        lambda y, s: -0.5 * y,
        lambda y, s: torch.tanh(y) / (1 + s),
        lambda y, s: y / (s if s > 0 else float("nan")),
    ]


def _heun_cases(g):
    y = torch.randn(5, generator=g, dtype=torch.float64)
    return [
        (slope, y, *ends)
        for slope in _slopes()
        for ends in ((3.0, 2.0), (1.0, 0.25), (0.5, 0.0), (0.2, 0.6))
    ]


def _heun(slope, y, s, s2):
    eps = slope(y, s)
    there = y + (s2 - s) * eps
    return there if s2 == 0 else y + (s2 - s) * (eps + slope(there, s2)) / 2


register(
    Exercise(
        name="heun-step",
        cases=_heun_cases,
        reference=_heun,
        mistakes={
            "That is Euler's step: the slope at its end is not in it.": (
                lambda slope, y, s, s2: y + (s2 - s) * slope(y, s)
            ),
            "You asked for the slope at the end while standing at the beginning: go there with "
            "Euler first, and ask at the new y.": (
                lambda slope, y, s, s2: (
                    y + (s2 - s) * (slope(y, s) + (slope(y, s2) if s2 else slope(y, s))) / 2
                )
            ),
            "Go back before you take the step with the mean slope: you started it from where "
            "Euler arrived.": (
                lambda slope, y, s, s2: (
                    (there := y + (s2 - s) * slope(y, s))
                    + ((s2 - s) * (slope(y, s) + slope(there, s2)) / 2 if s2 else 0)
                )
            ),
            "You added the two slopes. Take their mean.": (
                lambda slope, y, s, s2: (
                    y + (s2 - s) * slope(y, s)
                    if s2 == 0
                    else y + (s2 - s) * (slope(y, s) + slope(y + (s2 - s) * slope(y, s), s2))
                )
            ),
            "That is not a number where s2 is 0: there is no slope to ask for at the clean end, so "
            "Euler's step has to do.": (
                lambda slope, y, s, s2: (
                    y
                    + (s2 - s)
                    * (slope(y, s) + (slope(y + (s2 - s) * slope(y, s), s2) if s2 else math.nan))
                    / 2
                )
            ),
            "That is the midpoint method: it looks half way. Heun's looks at both ends.": (
                lambda slope, y, s, s2: (
                    y + (s2 - s) * slope(y, s)
                    if s2 == 0
                    else y + (s2 - s) * slope(y + (s2 - s) / 2 * slope(y, s), (s + s2) / 2)
                )
            ),
        },
    )
)


def _line_cases(g):
    x0, before = torch.randn(2, 4, generator=g, dtype=torch.float64)
    ends = [(-1.0, 0.0, 1.0), (-2.0, -1.7, 0.5), (0.0, 1.5, 1.8), (0.3, 1.0, math.inf)]
    return [(x0, before, *lams) for lams in ends]


def _line(x0, before, lam_before, lam, lam2):
    if math.isinf(lam2):
        return x0
    return x0 + (x0 - before) * (lam2 - lam) / (lam - lam_before) / 2


register(
    Exercise(
        name="middle-of-line",
        cases=_line_cases,
        reference=_line,
        mistakes={
            "That is right for even steps only. The line rises by (x0 - before) over the length of "
            "the last step, and the coming one has another length.": (
                lambda x0, before, lam_before, lam, lam2: (
                    x0 if math.isinf(lam2) else x0 + (x0 - before) / 2
                )
            ),
            "The ratio is inverted: a long step ahead, after a short one, extrapolates far.": (
                lambda x0, before, lam_before, lam, lam2: (
                    x0
                    if math.isinf(lam2)
                    else x0 + (x0 - before) * (lam - lam_before) / (lam2 - lam) / 2
                )
            ),
            "You read the line off at the end of the step. Its mean is what it is in the middle.": (
                lambda x0, before, lam_before, lam, lam2: (
                    x0
                    if math.isinf(lam2)
                    else x0 + (x0 - before) * (lam2 - lam) / (lam - lam_before)
                )
            ),
            "Wrong sign: the line goes on as it went, from before through x0.": (
                lambda x0, before, lam_before, lam, lam2: (
                    x0
                    if math.isinf(lam2)
                    else x0 - (x0 - before) * (lam2 - lam) / (lam - lam_before) / 2
                )
            ),
            "At the clean end lam2 is infinite, and so is your answer. DDIM's is x0 itself.": (
                lambda x0, before, lam_before, lam, lam2: (
                    x0 + (x0 - before) * (lam2 - lam) / (lam - lam_before) / 2
                )
            ),
        },
    )
)


def _place_cases(g):
    uneven = -torch.rand(3, generator=g, dtype=torch.float64).cumsum(0) - 0.1
    return [
        (torch.tensor(places, dtype=torch.float64),)
        for places in ([-1.0], [-0.4], [-1.0, -2.0], [-1.0, -2.0, -3.0], [-0.3, -2.5])
    ] + [(uneven,)]


def _solved(tau, means):
    k = torch.arange(len(tau), dtype=torch.float64)[:, None]
    return torch.linalg.solve(tau**k, means)


def _plain(n):
    return 1 / torch.arange(2, n + 2, dtype=torch.float64)


def _with_first(rest):
    return torch.cat([1 - rest.sum()[None], rest])


register(
    Exercise(
        name="multistep-weights",
        cases=_place_cases,
        reference=lambda tau: _with_first(_solved(tau, _plain(len(tau))) / tau),
        mistakes={
            "Those are the b of the quotients. The weight of f_j is b_j / tau_j, and the newest "
            "value gets what is left: all weights sum to 1.": (
                lambda tau: _with_first(_solved(tau, _plain(len(tau))))
            ),
            "The weight of the newest value is missing: each quotient takes f_0 away b_j / tau_j "
            "times, and f_0 itself stands there once.": (
                lambda tau: _solved(tau, _plain(len(tau))) / tau
            ),
            "The newest value is the first weight, not the last.": (
                lambda tau: _with_first(_solved(tau, _plain(len(tau))) / tau).roll(-1)
            ),
            "Your means are 1, 1/2, 1/3: those begin with tau to the power 0. The mean of tau^k is "
            "1 / (k + 1), from k = 1.": (
                lambda tau: _with_first(
                    _solved(tau, 1 / torch.arange(1, len(tau) + 1, dtype=torch.float64)) / tau
                )
            ),
            "Your matrix is transposed: each row is one power of all places.": (
                lambda tau: _with_first(
                    torch.linalg.solve(
                        tau[:, None] ** torch.arange(len(tau), dtype=torch.float64),
                        _plain(len(tau)),
                    )
                    / tau
                )
            ),
            "Those are the weights of even steps. The places say where the values stand.": (
                lambda tau: _with_first(
                    _solved(even := -torch.arange(1, len(tau) + 1).double(), _plain(len(tau)))
                    / even
                )
            ),
        },
    )
)


def _parabola_cases(g):
    f0, f1, f2 = torch.randn(3, 4, generator=g, dtype=torch.float64)
    return [
        (f0, f1, f2, *numbers)
        for numbers in (
            (-1.0, -2.0, 1 / 2, 1 / 3),
            (-0.5, -2.5, 0.55, 0.38),
            (-2.0, -2.3, 0.52, 0.35),
        )
    ]


def _parabola(f0, f1, f2, tau1, tau2, m1, m2, share=1.0, at_zero=True):
    near, far = (f0 - f1) / -tau1, (f1 - f2) / (tau1 - tau2)
    bend = (near - far) / -tau2
    slope = near - tau1 * bend if at_zero else near
    return f0 + m1 * slope + share * m2 * bend


register(
    Exercise(
        name="mean-of-parabola",
        cases=_parabola_cases,
        reference=_parabola,
        mistakes={
            "That is the published 3M, with half of the bend. The mean of bend * tau^2 is bend * "
            "m2: the divided difference is half of the second derivative already.": (
                lambda *case: _parabola(*case, share=0.5)
            ),
            "You doubled the bend. It is the coefficient of tau^2, and goes with m2 as it is.": (
                lambda *case: _parabola(*case, share=2.0)
            ),
            "Your slope is that between the last two estimates, which belongs to the middle "
            "between them. At tau = 0 the parabola has bent further: add the bend times -tau1.": (
                lambda *case: _parabola(*case, at_zero=False)
            ),
            "That is the line through the last two estimates; the third is not in it.": (
                lambda f0, f1, f2, tau1, tau2, m1, m2: f0 - m1 * (f0 - f1) / tau1
            ),
            "The bend is the change of the slope over the distance from tau2 to 0, not from the "
            "middle of one pair to the middle of the other: that would be the second "
            "derivative.": (
                lambda f0, f1, f2, tau1, tau2, m1, m2: (
                    f0
                    + m1
                    * (
                        (near := -(f0 - f1) / tau1)
                        - tau1 * (bend := (near - (f1 - f2) / (tau1 - tau2)) / (-tau2 / 2))
                    )
                    + m2 * bend
                )
            ),
        },
    )
)


def _level_cases(g):
    low, high = 0.3, 1.2
    return [
        (math.cos(low), math.sin(low), math.cos(high), math.sin(high)),
        (0.9, 0.1, 0.4, 0.6),
        (1.0, 0.5, 1.0, 4.0),
        (1.0, 0.0, 0.6, 0.8),
    ]


def _up(alpha, sigma, alpha2, sigma2):
    kept = alpha2 / alpha
    return kept, math.sqrt(sigma2**2 - (kept * sigma) ** 2)


register(
    Exercise(
        name="back-up",
        cases=_level_cases,
        reference=_up,
        mistakes={
            "The noise that is there shrinks with the state: it is kept * sigma when you add to "
            "it.": (
                lambda alpha, sigma, alpha2, sigma2: (
                    alpha2 / alpha,
                    math.sqrt(sigma2**2 - sigma**2),
                )
            ),
            "Standard deviations do not subtract. Variances do: take the root of the difference of "
            "squares.": (
                lambda alpha, sigma, alpha2, sigma2: (
                    alpha2 / alpha,
                    sigma2 - alpha2 / alpha * sigma,
                )
            ),
            "That is the variance. Its root is the standard deviation.": (
                lambda *levels: (_up(*levels)[0], _up(*levels)[1] ** 2)
            ),
            "The factor is inverted: the signal has to fall from alpha to alpha2.": (
                lambda alpha, sigma, alpha2, sigma2: (
                    alpha / alpha2,
                    _up(alpha, sigma, alpha2, sigma2)[1],
                )
            ),
            "1 - kept^2 is what DDPM's circle has, where alpha^2 + sigma^2 = 1. In general it is "
            "sigma2^2 - (kept * sigma)^2.": (
                lambda alpha, sigma, alpha2, sigma2: (
                    alpha2 / alpha,
                    math.sqrt(1 - (alpha2 / alpha) ** 2),
                )
            ),
        },
    )
)
