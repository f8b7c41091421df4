"""Exercises of chapter 8: DDIM and its family."""

import math

import torch

from sdlib.exercises.registry import Exercise, register


def _shared_cases(g):
    return [
        (0.0, 0.3, 0.9, 0.6, 0.8),
        (1.0, 0.3, 0.9, 0.6, 0.8),
        (0.5, 0.6, 0.8, 0.8, 0.6),
        (0.8, 1.0, 3.0, 1.0, 1.2),
        (0.3, 0.0, 1.0, 0.6, 0.8),
    ]


def _forward(alpha, sigma, alpha2, sigma2):
    return alpha * sigma2 / (alpha2 * sigma)


register(
    Exercise(
        name="shared-noise",
        cases=_shared_cases,
        reference=lambda eta, *levels: math.sqrt(1 - eta**2 * (1 - _forward(*levels) ** 2)),
        mistakes={
            "That is the share of fresh noise, c / sigma'. The correlation is the weight on the "
            "old noise: the root of 1 minus its square.": (
                lambda eta, *levels: eta * math.sqrt(1 - _forward(*levels) ** 2)
            ),
            "That is right for eta = 1 only, where the pair is the forward process's own.": (
                lambda eta, *levels: _forward(*levels)
            ),
            "eta enters c as a factor, so it enters c^2 squared.": (
                lambda eta, *levels: math.sqrt(1 - eta * (1 - _forward(*levels) ** 2))
            ),
            "You stopped before the root: 1 - c^2 / sigma'^2 is the square of the correlation.": (
                lambda eta, *levels: 1 - eta**2 * (1 - _forward(*levels) ** 2)
            ),
            "That is the standard deviation of the old noise in x'. Divide by sigma': eps' is "
            "standard noise.": (
                lambda eta, *levels: (
                    levels[3] * math.sqrt(1 - eta**2 * (1 - _forward(*levels) ** 2))
                )
            ),
        },
    )
)


def _straight_cases(g):
    y, x0 = torch.randn(2, 5, 2, generator=g, dtype=torch.float64)
    return [(y, x0, 2.0, 1.0), (y, x0, 40.0, 3.0), (y, x0, 0.5, 0.0), (y, y, 1.0, 0.3)]


register(
    Exercise(
        name="ddim-straight",
        cases=_straight_cases,
        reference=lambda y, x0, s, s2: x0 + s2 / s * (y - x0),
        mistakes={
            "That is one minus the ratio: at s2 = 0 the step must land on the estimate.": (
                lambda y, x0, s, s2: x0 + (1 - s2 / s) * (y - x0)
            ),
            "You stepped away from the estimate: s2 - s is negative, and the slope (y - x0) / s "
            "points from x0 to y.": lambda y, x0, s, s2: y + (s - s2) * (y - x0) / s,
            "You took the slope to be y - x0. That is s times the noise; divide it by s.": (
                lambda y, x0, s, s2: y + (s2 - s) * (y - x0)
            ),
            "That is the rescaled deviation alone; it is measured from the estimate, so add x0.": (
                lambda y, x0, s, s2: s2 / s * (y - x0)
            ),
            "That ratio squared belongs to eta = 1, which walks past the level and climbs back.": (
                lambda y, x0, s, s2: x0 + (s2 / s) ** 2 * (y - x0)
            ),
        },
    )
)


def _down_cases(g):
    return [(1.0, 2.0, 1.0), (0.0, 2.0, 1.0), (0.5, 10.0, 1.0), (0.7, 1.0, 0.99), (1.0, 80.0, 0.1)]


def _up(eta, s, s2):
    return eta * s2 * math.sqrt(1 - (s2 / s) ** 2)


register(
    Exercise(
        name="down-and-up",
        cases=_down_cases,
        reference=lambda eta, s, s2: (math.sqrt(s2**2 - _up(eta, s, s2) ** 2), _up(eta, s, s2)),
        mistakes={
            "s2^2 / s is the level for eta = 1 only; keep eta, in both numbers.": (
                lambda eta, s, s2: (s2**2 / s, _up(1.0, s, s2))
            ),
            "The level is that of eta = 1; at eta = 0 the line ends at s2 itself.": (
                lambda eta, s, s2: (s2**2 / s, _up(eta, s, s2))
            ),
            "Standard deviations do not add: the level is the root of s2^2 minus the square of "
            "the fresh noise.": (lambda eta, s, s2: (s2 - _up(eta, s, s2), _up(eta, s, s2))),
            "You gave them in the other order: first the level, then the fresh noise.": (
                lambda eta, s, s2: (_up(eta, s, s2), math.sqrt(s2**2 - _up(eta, s, s2) ** 2))
            ),
            "The line ends below s2, so that the noise can climb back up to it: your line ends "
            "at s2.": lambda eta, s, s2: (s2, _up(eta, s, s2)),
            "Those are variances; return the roots.": (
                lambda eta, s, s2: (s2**2 - _up(eta, s, s2) ** 2, _up(eta, s, s2) ** 2)
            ),
        },
    )
)


def _gaussian_cases(g):
    return [(0.5, 2.0, 1.0), (1.0, 1.0, 0.0), (0.1, 3.0, 0.2), (2.0, 1.0, 0.9)]


def _exact(d, s, s2):
    return math.sqrt((d**2 + s2**2) / (d**2 + s**2))


register(
    Exercise(
        name="gaussian-step",
        cases=_gaussian_cases,
        reference=lambda d, s, s2: (1 + (s2 - s) * s / (d**2 + s**2), _exact(d, s, s2)),
        mistakes={
            "The order is DDIM's number first, then the exact one.": (
                lambda d, s, s2: (_exact(d, s, s2), 1 + (s2 - s) * s / (d**2 + s**2))
            ),
            "The exact factor is a ratio of standard deviations; yours is one of variances.": (
                lambda d, s, s2: (1 + (s2 - s) * s / (d**2 + s**2), _exact(d, s, s2) ** 2)
            ),
            "DDIM's factor has the wrong sign: the noise level falls, so the cloud shrinks.": (
                lambda d, s, s2: (1 + (s - s2) * s / (d**2 + s**2), _exact(d, s, s2))
            ),
            "That is right without data (d = 0): the guess d^2 / (d^2 + s^2) y is not 0.": (
                lambda d, s, s2: (s2 / s, _exact(d, s, s2))
            ),
            "You took the slope at the end of the step. Euler's method, and DDIM, take it at the "
            "start.": lambda d, s, s2: (1 + (s2 - s) * s2 / (d**2 + s2**2), _exact(d, s, s2)),
            "Standard deviations of independent parts do not add: the cloud's is the root of "
            "d^2 + s^2.": (lambda d, s, s2: (1 + (s2 - s) * s / (d**2 + s**2), (d + s2) / (d + s))),
        },
    )
)


def _shoemake_cases(g):
    a, b = torch.randn(2, 5, 8, generator=g, dtype=torch.float64)
    b[0] = 3 * a[0]  # the same direction
    b[1] = a[1] + 1e-9 * b[1]
    return [(a, b, 0.3), (a, b, 0.5), (a, b, 0.0), (a, b, 1.0)]


def _angle(a, b):
    cosine = (a * b).sum(1, keepdim=True) / (a.norm(dim=1) * b.norm(dim=1))[:, None]
    return cosine.clamp(-1, 1).arccos()


def _shoemake(a, b, u, angle=_angle):
    angle = angle(a, b)
    close = angle < 1e-6
    safe = torch.where(close, 1.0, angle)
    blend = (((1 - u) * safe).sin() * a + (u * safe).sin() * b) / safe.sin()
    return torch.where(close, (1 - u) * a + u * b, blend)


def _bare(a, b, u):
    angle = _angle(a, b)
    return (((1 - u) * angle).sin() * a + (u * angle).sin() * b) / angle.sin()


register(
    Exercise(
        name="shoemake",
        cases=_shoemake_cases,
        reference=_shoemake,
        mistakes={
            "Right, but for rows that point the same way, where it is 0/0. There the weights tend "
            "to 1 - u and u.": _bare,
            "That is the straight line between them.": lambda a, b, u: (1 - u) * a + u * b,
            "The weights are swapped: u = 0 must give a.": lambda a, b, u: _shoemake(b, a, u),
            "Those are the weights at right angles; take the angle between a and b.": (
                lambda a, b, u: math.cos(u * math.pi / 2) * a + math.sin(u * math.pi / 2) * b
            ),
            "Rows of unit length come out: Shoemake's weights stand before a and b themselves, "
            "and directions serve for the angle only.": (
                lambda a, b, u: _shoemake(
                    a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True), u
                )
            ),
        },
        tolerance=1e-4,
    )
)
