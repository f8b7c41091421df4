"""Grids: the nodes that a sampler walks, noisiest first (Chapter 3).

A grid of N steps has N + 1 nodes. A *spacing* picks the N nodes that a denoiser will be called
at; an *ending* adds the last one, where the sample stands. Both are plain functions in a table,
so a new one is a function and a line.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from sdlib.checks import finite, pick
from sdlib.diffusion.schedule import Schedule
from sdlib.dtypes import FLOAT64, as_float64

# Spacings in lambda need finite ends: SNRs beyond e^14 and below e^-14 are cut off.
LAMBDA_LIMIT = 7.0


@dataclass(frozen=True, eq=False)
class Grid:
    """`t`, `alpha` and `sigma` at N + 1 nodes: float64, each `[N + 1]`, in walking order.

    `len(grid)` is the number of steps N. `grid[k:]` starts later (image-to-image), and
    `grid.flip()` walks upward, from data to noise (inversion). A grid made by `make_grid` knows its
    schedule, so that it can say what lies between its nodes.
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor
    schedule: Schedule | None = None

    def __post_init__(self):
        for name in ("t", "alpha", "sigma"):
            value = finite(name, as_float64(getattr(self, name)))
            object.__setattr__(self, name, value)
        if not self.t.ndim == 1 or not self.t.shape == self.alpha.shape == self.sigma.shape:
            raise ValueError("t, alpha and sigma of a grid must be 1-d and of one length.")
        if len(self.t) < 2:
            raise ValueError("a grid needs at least two nodes: one to start from and one to reach.")
        if bool(((self.alpha < 0) | (self.sigma < 0) | (self.alpha + self.sigma == 0)).any()):
            raise ValueError("alpha and sigma of a grid must not be negative, nor both be 0.")
        angle = torch.atan2(
            self.sigma, self.alpha
        ).diff()  # noise against signal, safe at both ends
        if not bool((angle < 0).all() or (angle > 0).all()):
            raise ValueError(
                "a grid must walk one way: sigma / alpha falls at every step (sampling) "
                "or rises at every step (inversion)."
            )

    def __len__(self) -> int:
        return len(self.t) - 1

    def __getitem__(self, nodes: slice) -> "Grid":
        if not isinstance(nodes, slice):
            raise TypeError(
                "a grid is sliced, as in grid[5:]; its nodes are grid.t, grid.alpha, grid.sigma."
            )
        return Grid(self.t[nodes], self.alpha[nodes], self.sigma[nodes], self.schedule)

    def flip(self) -> "Grid":
        """The same nodes, walked the other way."""
        return Grid(self.t.flip(0), self.alpha.flip(0), self.sigma.flip(0), self.schedule)

    @property
    def falls(self) -> bool:
        """True if noise falls along the walk (sampling), False if it rises (inversion)."""
        return bool(self.sigma[-1] * self.alpha[0] < self.sigma[0] * self.alpha[-1])

    @property
    def lam(self) -> Tensor:
        """log(alpha / sigma) at each node; +infinity at a clean end."""
        return self.alpha.log() - self.sigma.log()

    def level(self, lam: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(t, alpha, sigma) on the schedule where log(alpha / sigma) is `lam`, or at its end.

        Raises:
            ValueError: for a grid that was made by hand, without its schedule.
        """
        if self.schedule is None:
            raise ValueError(
                "this grid was made by hand and knows its nodes only; give it its schedule, "
                "or take make_grid(schedule, steps)."
            )
        t = self.schedule.t_at(lam)
        return t, *self.schedule(t)


def leading(schedule: Schedule, steps: int) -> Tensor:
    """Every (T // N)-th entry counted from t = 0, then (if the table has room) shifted by one.

    Stable Diffusion v1.5 does this; it never starts at the noisiest time (Lin et al. 2024, table 2;
    the shift is `steps_offset`).
    """
    if schedule.steps is None:
        raise ValueError(
            'leading spacing counts table entries; a curve takes "trailing" or "linspace".'
        )
    if steps == 1:
        warnings.warn(
            'one leading step starts at t = 1, on almost clean data; use spacing="trailing".',
            stacklevel=3,
        )
    t = torch.arange(steps, **FLOAT64).flip(0) * (schedule.steps // steps)
    return t + min(1.0, schedule.t_max - t[0].item())


def trailing(schedule: Schedule, steps: int) -> Tensor:
    """Evenly spaced, counted from the noisiest time (Lin et al. 2024, table 2)."""
    left = 1 - torch.arange(steps, **FLOAT64) / steps
    if schedule.steps is None:
        return schedule.t_min + (schedule.t_max - schedule.t_min) * left
    return (schedule.steps * left).round() - 1


def linspace(schedule: Schedule, steps: int) -> Tensor:
    """Evenly spaced with both ends of time among the nodes (a clean end is left to the ending)."""
    clean = int(schedule(schedule.t_min)[1] == 0)
    t = torch.linspace(schedule.t_max, schedule.t_min, steps + clean, **FLOAT64)[:steps]
    return t if schedule.steps is None else t.round()


def _lambda_ends(schedule: Schedule) -> tuple[Tensor, Tensor]:
    """The schedule's lambda at t_max and t_min, kept finite."""
    ends = schedule.lam(torch.tensor([schedule.t_max, schedule.t_min], **FLOAT64))
    noisy, clean = ends.clamp(-LAMBDA_LIMIT, LAMBDA_LIMIT)
    return noisy, clean


def uniform_lambda(schedule: Schedule, steps: int) -> Tensor:
    """Evenly spaced in lambda = log(alpha / sigma) (Lu et al. 2022, section 3.3)."""
    noisy, clean = _lambda_ends(schedule)
    return schedule.t_at(torch.linspace(0, 1, steps, **FLOAT64) * (clean - noisy) + noisy)


def one_more(spacing: "Spacing") -> "Spacing":
    """A spacing for one step more, without its last time.

    So do DPM-Solver++, UniPC and diffusers' versions of them count: N + 1 times span the table, and
    the sample stands at an ending that takes the place of the last.
    """

    def times(schedule: Schedule, steps: int) -> Tensor:
        return spacing(schedule, steps + 1)[:-1]

    return times


# The noise levels sigma / alpha that Sabour et al. 2024 found best for 10 steps of Stable Diffusion
# 1.5 (Align Your Steps); other counts interpolate between them in the logarithm, as they advise.
ALIGN_YOUR_STEPS = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152)


def align_your_steps(schedule: Schedule, steps: int) -> Tensor:
    """At the levels optimized for Stable Diffusion 1.5 (Sabour et al. 2024), kept as a table."""
    table = torch.tensor(ALIGN_YOUR_STEPS, **FLOAT64).log()
    place = torch.linspace(0, len(table) - 1, steps, **FLOAT64)
    below = place.floor().long().clamp(max=len(table) - 2)
    return schedule.t_at(-torch.lerp(table[below], table[below + 1], place - below))


def shifted(shift: float) -> "Spacing":
    """Even steps in time, bent toward noise: u becomes shift u / (1 + (shift - 1) u).

    u runs from 0 at the schedule's clean end to 1. On the flow schedule this multiplies
    sigma / alpha by `shift`, as larger images need (Esser et al. 2024, equation 23).

    Raises:
        ValueError: unless shift is positive.
    """
    if not 0 < shift < math.inf:
        raise ValueError(f"shift must be a positive number; got {shift}.")

    def spacing(schedule: Schedule, steps: int) -> Tensor:
        u = 1 - torch.arange(steps, **FLOAT64) / steps
        span = schedule.t_max - schedule.t_min
        return schedule.t_min + span * shift * u / (1 + (shift - 1) * u)

    return spacing


def karras(schedule: Schedule, steps: int, rho: float = 7.0) -> Tensor:
    """Evenly spaced in (sigma / alpha)^(1/rho): small steps where noise is low.

    Karras et al. 2022, equation 5.
    """
    noisy, clean = (torch.exp(-lam / rho) for lam in _lambda_ends(schedule))
    root = noisy + torch.linspace(0, 1, steps, **FLOAT64) * (clean - noisy)  # eq-karras
    return schedule.t_at(-rho * root.log())


def zero(schedule: Schedule) -> tuple[float, float, float]:
    """End on clean data: alpha = 1, sigma = 0."""
    return schedule.t_min, 1.0, 0.0


def first(schedule: Schedule) -> tuple[float, float, float]:
    """End on the schedule's least noisy time, as v1.5 does (`set_alpha_to_one=False`)."""
    alpha, sigma = schedule(schedule.t_min)
    return schedule.t_min, float(alpha), float(sigma)


Spacing = Callable[[Schedule, int], Tensor]  # the times of `steps` calls, noisiest first, [steps]

SPACINGS: dict[str, Spacing] = {
    "leading": leading,
    "trailing": trailing,
    "linspace": linspace,
    "karras": karras,
    "uniform_lambda": uniform_lambda,
    "exponential": uniform_lambda,  # its name where sigma / alpha is what steps are counted in
    "align_your_steps": align_your_steps,
}
ENDINGS: dict[str, Callable[[Schedule], tuple[float, float, float]]] = {
    "zero": zero,
    "first": first,
}


def make_grid(
    schedule: Schedule, steps: int, spacing: str | Spacing = "trailing", ending: str = "zero"
) -> Grid:
    """The grid of `steps` steps on a schedule.

    Args:
        schedule: gives alpha and sigma at the chosen times.
        steps: how often the denoiser will be called; at most the table's length.
        spacing: a name in `SPACINGS`, or a function of your own.
        ending: a name in `ENDINGS`. If the last time of the spacing already is the ending, it is
            not doubled: the walk is then one step shorter.

    Raises:
        ValueError: for a step count of 0 or above the table, or an unknown name.
    """
    top = schedule.steps
    whole = isinstance(steps, Integral) and not isinstance(steps, bool)  # numpy's too
    if not whole or steps < 1 or (top is not None and steps > top):
        allowed = "at least 1" if top is None else f"from 1 to {top}, the table's length"
        raise ValueError(f"steps must be a whole number {allowed}; got {steps!r}.")
    times = spacing if callable(spacing) else pick("spacing", SPACINGS, spacing)
    t = times(schedule, int(steps))
    last_t, last_alpha, last_sigma = pick("ending", ENDINGS, ending)(schedule)
    alpha, sigma = schedule(t)
    # The same level up to rounding, since some spacings find t by bisection.
    if len(t) > 1 and sigma[-1] * last_alpha <= (1 + 1e-9) * last_sigma * alpha[-1]:
        t, alpha, sigma = t[:-1], alpha[:-1], sigma[:-1]
    last = torch.tensor([[last_t], [last_alpha], [last_sigma]], **FLOAT64)
    return Grid(*torch.cat([torch.stack([t, alpha, sigma]), last], dim=1), schedule)
