"""Exercises of chapter 3: noise schedules and grids."""

import math

import torch

from sdlib.exercises.registry import Exercise, register


def _cosine(t, s=0.008, power=2, normal=True, turn=math.pi / 2, stretch=True):
    def f(t):
        return torch.cos((t + s) / (1 + s if stretch else 1.0) * turn) ** power

    return f(t) / f(torch.zeros_like(t)) if normal else f(t)


def _times(g):
    inside = torch.rand(6, generator=g, dtype=torch.float64)
    ends = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    return [(inside,), (ends,), (torch.tensor(0.25, dtype=torch.float64),)]


register(
    Exercise(
        name="cosine-alpha-bar",
        cases=_times,
        reference=_cosine,
        mistakes={
            "You left out the division by f(0): alpha_bar must be 1 at t = 0, where nothing has "
            "happened yet.": lambda t: _cosine(t, normal=False),
            "That is alpha, the square root: alpha_bar takes the squared cosine.": lambda t: (
                _cosine(t, power=1)
            ),
            "Your cosine never reaches 0: (t + s) / (1 + s) runs to 1, and times pi / 2 that is a "
            "quarter of a turn.": lambda t: _cosine(t, turn=1.0),
            "Your argument goes from s to 1 + s. Divide by 1 + s, so that it ends at a quarter "
            "of a turn.": lambda t: _cosine(t, stretch=False),
            "Without the offset s the curve starts flat: the first steps add almost no noise. The "
            "exercise wants s = 0.008.": lambda t: _cosine(t, s=0.0),
        },
    )
)


def _levels(g):
    """Variance-preserving pairs, the two ends among them."""
    angle = torch.rand(6, generator=g, dtype=torch.float64) * (math.pi / 2)
    ends = (torch.tensor([1.0, 0.6, 0.0]).double(), torch.tensor([0.0, 0.8, 1.0]).double())
    return [(angle.cos(), angle.sin()), ends]


register(
    Exercise(
        name="vp-to-flow",
        cases=_levels,
        reference=lambda alpha, sigma: (sigma / (alpha + sigma), 1 / (alpha + sigma)),
        mistakes={
            "sigma is not yet flow's time: with t = sigma, alpha would have to be 1 - sigma, and "
            "the SNR would differ. Scale both by the same factor first.": lambda alpha, sigma: (
                sigma,
                torch.ones_like(sigma),
            ),
            "Right factor, but you gave the share of the data: flow's time is the share of the "
            "noise.": lambda alpha, sigma: (alpha / (alpha + sigma), 1 / (alpha + sigma)),
            "Right time. The factor is inverted: it is what x is multiplied by, so that alpha + "
            "sigma becomes 1.": lambda alpha, sigma: (sigma / (alpha + sigma), alpha + sigma),
            "That is the share of noise in the variance, sigma^2 / (alpha^2 + sigma^2). On flow's "
            "line alpha and sigma themselves sum to 1.": lambda alpha, sigma: (
                sigma**2 / (alpha**2 + sigma**2),
                1 / (alpha**2 + sigma**2),
            ),
        },
    )
)


def _shifted(alpha_bar, ratio, power=2.0):
    log_snr = torch.logit(alpha_bar) - power * math.log(ratio)
    return torch.sigmoid(log_snr)


register(
    Exercise(
        name="shift-snr",
        cases=lambda g: [
            (torch.rand(6, generator=g, dtype=torch.float64), 2.0),
            (torch.rand(6, generator=g, dtype=torch.float64), 4.0),
            (torch.tensor([0.25, 0.5, 0.9], dtype=torch.float64), 0.5),
            (torch.tensor([0.1, 0.5], dtype=torch.float64), 1.0),
        ],
        reference=_shifted,
        mistakes={
            "You divided the SNR by the ratio. An average over ratio x ratio pixels divides the "
            "variance of the noise by ratio^2, so the SNR must fall by the square.": lambda a, r: (
                _shifted(a, r, 1.0)
            ),
            "You raised the SNR. A larger picture needs more noise to look noisy.": lambda a, r: (
                _shifted(a, r, -2.0)
            ),
            "You divided alpha_bar itself. It is the SNR, alpha_bar / (1 - alpha_bar), that is "
            "divided; then solve for alpha_bar.": lambda a, r: a / r**2,
            "You gave the SNR. Turn it back into alpha_bar = SNR / (1 + SNR).": lambda a, r: (
                a / (1 - a) / r**2
            ),
        },
    )
)


def _rescaled(alpha_bar, root=True, scale=True, square=True):
    kept = alpha_bar.sqrt() if root else alpha_bar
    shifted = kept - kept[-1]
    if scale:
        shifted = shifted * kept[0] / shifted[0]
    return shifted**2 if root and square else shifted


def _only_the_last(alpha_bar):
    return torch.cat([alpha_bar[:-1], torch.zeros_like(alpha_bar[:1])])


def _from_one(alpha_bar):
    root = alpha_bar.sqrt()
    return ((root - root[-1]) / (root[0] - root[-1])) ** 2


def _tables(g):
    tables = []
    for n in (5, 12):
        betas = 0.02 + 0.3 * torch.rand(n, generator=g, dtype=torch.float64)
        tables.append((torch.cumprod(1 - betas, dim=0),))
    return [*tables, (torch.tensor([0.9, 0.5, 0.0], dtype=torch.float64),)]


register(
    Exercise(
        name="zero-terminal-snr",
        cases=_tables,
        reference=_rescaled,
        mistakes={
            "You moved alpha_bar itself. Lin et al. move its square root, alpha, which is what "
            "multiplies the data; square at the end.": lambda a: _rescaled(a, root=False),
            "You shifted but did not stretch: the first entry must stay what it was.": lambda a: (
                _rescaled(a, scale=False)
            ),
            "You gave the square roots back. The table holds alpha_bar: square them.": lambda a: (
                _rescaled(a, square=False)
            ),
            "You set the last entry to 0 and left the rest: that puts the whole jump into one "
            "step. Spread it over the table.": _only_the_last,
            "Your first entry became 1. Stretch so that it keeps the value it had.": _from_one,
        },
    )
)


def _karras(steps, sigma_min, sigma_max, rho=7.0, power=True):
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    u = torch.linspace(0, 1, steps, dtype=torch.float64)
    root = high + u * (low - high)
    return root**rho if power else root


def _without_the_end(steps, sigma_min, sigma_max):
    return _karras(steps + 1, sigma_min, sigma_max)[:-1]


register(
    Exercise(
        name="karras-sigmas",
        cases=lambda g: [(5, 0.002, 80.0), (10, 0.03, 14.6), (3, 0.1, 10.0), (2, 0.5, 2.0)],
        reference=_karras,
        mistakes={
            "Right nodes, wrong order: a sampler starts at the most noise.": lambda n, a, b: (
                _karras(n, a, b).flip(0)
            ),
            "These are seventh roots still: raise them to the power 7.": lambda n, a, b: _karras(
                n, a, b, power=False
            ),
            "You spaced the noise levels themselves evenly: nearly all nodes then stand at high "
            "noise. Space their seventh roots.": lambda n, a, b: _karras(n, a, b, rho=1.0),
            "You spaced the seventh powers instead of the seventh roots.": lambda n, a, b: _karras(
                n, a, b, rho=1 / 7
            ),
            "You divided by the number of steps, so the last node misses sigma_min: between n "
            "nodes there are n - 1 gaps.": _without_the_end,
        },
    )
)
