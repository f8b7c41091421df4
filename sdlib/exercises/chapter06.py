"""Exercises of chapter 6: score, SDE and ODE."""

import torch

from sdlib.exercises.registry import Exercise, register


def _rates_cases(g):
    return [(0.5,), (0.1,), (0.9,), (0.25,)]


register(
    Exercise(
        name="flow-rates",
        cases=_rates_cases,
        reference=lambda t: (-1 / (1 - t), 2 * t / (1 - t)),
        mistakes={
            "g^2 is the slope of sigma^2 and a part for the shrinking: the old noise is multiplied "
            "as well, so add -2 f sigma^2.": lambda t: (-1 / (1 - t), 2 * t),
            "The sign of -2 f sigma^2: f is negative here, so this part adds noise.": (
                lambda t: (-1 / (1 - t), 2 * t - 2 * t**2 / (1 - t))
            ),
            "f is the slope of log alpha, not of alpha: divide by alpha = 1 - t.": (
                lambda t: (-1.0, 2 * t + 2 * t**2)
            ),
            "alpha falls, so f is negative.": lambda t: (1 / (1 - t), 2 * t - 2 * t**2 / (1 - t)),
            "That is g; the question is for its square.": (
                lambda t: (-1 / (1 - t), (2 * t / (1 - t)) ** 0.5)
            ),
        },
    )
)


def _velocity_cases(g):
    x, x0 = torch.randn(2, 5, 2, generator=g, dtype=torch.float64)
    return [(x, x0, 0.8, 0.6, -0.5, 1.3), (x, x0, 1.0, 2.0, 0.0, 0.7), (x, x, 0.3, 0.9, -2.0, 4.0)]


def _score(x, x0, alpha, sigma):
    return (alpha * x0 - x) / sigma**2


register(
    Exercise(
        name="ode-velocity",
        cases=_velocity_cases,
        reference=lambda x, x0, a, s, f, g2: f * x - g2 / 2 * _score(x, x0, a, s),
        mistakes={
            "The whole g^2 in front of the score is the drift of Anderson's reverse SDE. The ODE "
            "has no noise to make up for, and takes half.": (
                lambda x, x0, a, s, f, g2: f * x - g2 * _score(x, x0, a, s)
            ),
            "The sign of the score: forward in time the crowd runs downhill, away from the data.": (
                lambda x, x0, a, s, f, g2: f * x + g2 / 2 * _score(x, x0, a, s)
            ),
            "That is the noise in x where the score belongs: the score is minus that over sigma.": (
                lambda x, x0, a, s, f, g2: f * x - g2 / 2 * (x - a * x0) / s
            ),
            "alpha is missing in the score: x is pulled toward alpha x0.": (
                lambda x, x0, a, s, f, g2: f * x - g2 / 2 * (x0 - x) / s**2
            ),
            "f is the rate of shrinking: it is multiplied by x.": (
                lambda x, x0, a, s, f, g2: f - g2 / 2 * _score(x, x0, a, s)
            ),
        },
    )
)


def _step_cases(g):
    x, grad, z = torch.randn(3, 6, 2, generator=g, dtype=torch.float64)
    return [
        (x, grad, z, -0.5, 1.3, 0.01, 1.0),
        (x, grad, z, -2.0, 4.0, 0.005, 0.5),
        (x, grad, z, 0.0, 0.7, 0.1, 0.0),
        (x, grad, z, -0.3, 0.6, 0.02, 2.0),
    ]


register(
    Exercise(
        name="reverse-step",
        cases=_step_cases,
        tolerance=1e-7,
        reference=lambda x, grad, z, f, g2, dt, noise: (
            x - dt * (f * x - (1 + noise) / 2 * g2 * grad) + (noise * g2 * dt) ** 0.5 * z
        ),
        mistakes={
            "Time runs down here: the drift of the equation is multiplied by -dt.": (
                lambda x, grad, z, f, g2, dt, noise: (
                    x + dt * (f * x - (1 + noise) / 2 * g2 * grad) + (noise * g2 * dt) ** 0.5 * z
                )
            ),
            "Variances add up over time, so the noise of a short step has the standard deviation "
            "sqrt(noise g2 dt), not noise g2 dt.": (
                lambda x, grad, z, f, g2, dt, noise: (
                    x - dt * (f * x - (1 + noise) / 2 * g2 * grad) + noise * g2 * dt * z
                )
            ),
            "That drift belongs to noise = 1. Every amount of noise needs its own: (1 + noise) / 2 "
            "times g2 times the score.": (
                lambda x, grad, z, f, g2, dt, noise: (
                    x - dt * (f * x - g2 * grad) + (noise * g2 * dt) ** 0.5 * z
                )
            ),
            "That drift is the ODE's. Noise spreads the crowd, so the score has to pull harder: "
            "(1 + noise) / 2 times g2.": (
                lambda x, grad, z, f, g2, dt, noise: (
                    x - dt * (f * x - g2 / 2 * grad) + (noise * g2 * dt) ** 0.5 * z
                )
            ),
            "The amount scales the variance noise g2 dt, so its square root stands before z.": (
                lambda x, grad, z, f, g2, dt, noise: (
                    x - dt * (f * x - (1 + noise) / 2 * g2 * grad) + noise * (g2 * dt) ** 0.5 * z
                )
            ),
        },
    )
)


def _frozen_cases(g):
    x, x0, z = torch.randn(3, 5, 2, generator=g, dtype=torch.float64)
    return [
        (x, x0, z, 0.3, 0.95, 0.6, 0.8, 1.0),
        (x, x0, z, 0.3, 0.95, 0.6, 0.8, 0.0),
        (x, x0, z, 1.0, 5.0, 1.0, 2.0, 0.5),
        (x, x0, z, 0.5, 0.8, 1.0, 0.0, 2.0),
    ]


def _frozen(x, x0, z, a, s, a2, s2, kept):
    return a2 * x0 + s2 * (kept * (x - a * x0) / s + (1 - kept**2) ** 0.5 * z)


register(
    Exercise(
        name="frozen-step",
        cases=_frozen_cases,
        reference=lambda x, x0, z, a, s, a2, s2, noise: _frozen(
            x, x0, z, a, s, a2, s2, (a * s2 / (a2 * s)) ** noise
        ),
        mistakes={
            "That is the step for noise = 1 whatever the amount: the ratio of the two levels gets "
            "the amount as its exponent.": (
                lambda x, x0, z, a, s, a2, s2, noise: _frozen(
                    x, x0, z, a, s, a2, s2, a * s2 / (a2 * s)
                )
            ),
            "The levels to compare are sigma / alpha, since the old noise shrinks in x / alpha.": (
                lambda x, x0, z, a, s, a2, s2, noise: _frozen(
                    x, x0, z, a, s, a2, s2, (s2 / s) ** noise
                )
            ),
            "Old and new noise must keep the variance: if r of the old is kept, the new gets "
            "sqrt(1 - r^2), not 1 - r.": (
                lambda x, x0, z, a, s, a2, s2, noise: (
                    a2 * x0
                    + s2 * ((r := (a * s2 / (a2 * s)) ** noise) * (x - a * x0) / s + (1 - r) * z)
                )
            ),
            "The fresh noise is missing: right for noise = 0 alone.": (
                lambda x, x0, z, a, s, a2, s2, noise: (
                    a2 * x0 + s2 * (a * s2 / (a2 * s)) ** noise * (x - a * x0) / s
                )
            ),
            "That goes to x0 itself: put the new alpha in front of it.": (
                lambda x, x0, z, a, s, a2, s2, noise: (
                    _frozen(x, x0, z, a, s, a2, s2, (a * s2 / (a2 * s)) ** noise) + (1 - a2) * x0
                )
            ),
        },
    )
)


def _trace_cases(g):
    jacobian = torch.randn(4, 3, 3, generator=g, dtype=torch.float64)
    signs = torch.randn(2, 4, 3, generator=g, dtype=torch.float64).sign()
    return [(jacobian, signs), (jacobian, signs[:1]), (jacobian + 3 * torch.eye(3), signs)]


def _probe(jacobian, signs):
    return torch.einsum("kbi,bij,kbj->kb", signs, jacobian, signs)


register(
    Exercise(
        name="trace-by-probes",
        cases=_trace_cases,
        reference=lambda jacobian, signs: _probe(jacobian, signs).mean(0),
        mistakes={
            "Average over the probes: each one is an estimate of the whole trace.": (
                lambda jacobian, signs: _probe(jacobian, signs).sum(0)
            ),
            "Do not divide by the number of dimensions: the trace is a sum over them.": (
                lambda jacobian, signs: _probe(jacobian, signs).mean(0) / jacobian.shape[1]
            ),
            "That is the sum of v^T J. Multiply by v once more: v^T J v.": (
                lambda jacobian, signs: torch.einsum("kbi,bij->kbj", signs, jacobian).sum(2).mean(0)
            ),
            "That is the trace itself. A network's Jacobian is not at hand: use J only in the "
            "product v^T J v.": (lambda jacobian, signs: jacobian.diagonal(dim1=1, dim2=2).sum(1)),
            "Averaging the probes first leaves almost nothing: estimate with each, then average.": (
                lambda jacobian, signs: _probe(jacobian, signs.mean(0, keepdim=True))[0]
            ),
        },
    )
)
