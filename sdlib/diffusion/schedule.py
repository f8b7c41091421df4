"""Noise schedules: how much data is left, and how much noise there is, at time t (Chapter 3).

A `Schedule` maps time to a pair (alpha, sigma), and a noisy sample is
`x_t = alpha * x0 + sigma * eps`. Two families share the one class:

- *tables* (`steps` betas, t = 0 ... steps-1, as in DDPM and Stable Diffusion); a fractional t
  interpolates the table linearly in lambda = log(alpha / sigma);
- *curves* in continuous time (t from 0 to 1).

Either way `t` is exactly what a network is told in training, and time runs from data to noise.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from inspect import signature
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from sdlib.checks import pick, whole_number

# Interpolation in lambda needs finite ends; a table's clean or zero-SNR end is taken as +-30.
TABLE_LIMIT = 30.0


@dataclass(frozen=True, eq=False)
class Schedule:
    """t -> (alpha, sigma), from `t_min` (least noise) to `t_max` (most).

    Attributes:
        name: what it is called.
        curve: maps float64 times to (alpha, sigma), both float64 and of the same shape.
        t_max, t_min: the ends of time.
        table: alpha_bar at t = 0 ... steps-1, float64, shape `[steps]`; None for a curve.
        made: the name in `SCHEDULES` and the options by which it is made again; None for one that
            was made by hand.
    """

    name: str
    curve: Callable[[Tensor], tuple[Tensor, Tensor]]
    t_max: float = 1.0
    t_min: float = 0.0
    table: Tensor | None = None
    made: tuple[str, Mapping[str, Any]] | None = None

    @property
    def steps(self) -> int | None:
        """How many entries the table has; None in continuous time."""
        return None if self.table is None else len(self.table)

    @property
    def alpha_bar(self) -> Tensor:
        """DDPM's cumulative product of (1 - beta), `[steps]` (Ho et al. 2020, section 2)."""
        return self._table()

    @property
    def betas(self) -> Tensor:
        """The variance that each single step adds, `[steps]`."""
        table = self._table()
        previous = torch.cat([torch.ones_like(table[:1]), table[:-1]])
        return 1 - table / previous  # eq-beta

    def _table(self) -> Tensor:
        if self.table is None:
            raise ValueError(
                f"the schedule {self.name!r} is a curve in continuous time: it has no table."
            )
        return self.table

    def __call__(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) at time `t`: float64, in the shape of `t`.

        Raises:
            ValueError: if a time is not finite or lies outside [t_min, t_max].
        """
        t = torch.as_tensor(t, dtype=torch.float64)
        if not bool(((t >= self.t_min) & (t <= self.t_max)).all()):
            raise ValueError(
                f"t must lie in [{self.t_min:g}, {self.t_max:g}] for the schedule {self.name!r}; "
                f"got values from {t.min():g} to {t.max():g}."
            )
        return self.curve(t)

    def lam(self, t: Tensor | float) -> Tensor:
        """lambda = log(alpha / sigma), half the log-SNR; infinite where alpha or sigma is 0."""
        alpha, sigma = self(t)
        return alpha.log() - sigma.log()  # eq-lambda

    def log_snr(self, t: Tensor | float) -> Tensor:
        """log(alpha^2 / sigma^2)."""
        return 2 * self.lam(t)

    def snr(self, t: Tensor | float) -> Tensor:
        """The signal-to-noise ratio alpha^2 / sigma^2 (Kingma et al. 2021, equation 2)."""
        alpha, sigma = self(t)
        return (alpha / sigma) ** 2  # eq-snr

    def t_at(self, lam: Tensor | float) -> Tensor:
        """The time at which log(alpha / sigma) is `lam`, clipped to the schedule's ends.

        lambda falls as t grows, so 60 halvings of the interval find it to the last bit.
        """
        lam = torch.as_tensor(lam, dtype=torch.float64)
        low, high = torch.full_like(lam, self.t_min), torch.full_like(lam, self.t_max)
        for _ in range(60):
            middle = (low + high) / 2
            noisier = self.lam(middle) > lam
            low, high = torch.where(noisier, middle, low), torch.where(noisier, high, middle)
        return (low + high) / 2

    def sample_t(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """`n` training times, float64: whole table entries, or uniform in continuous time."""
        u = torch.rand(n, generator=generator, dtype=torch.float64)
        if self.table is not None:
            return (u * self.steps).floor()
        return self.t_min + u * (self.t_max - self.t_min)


def from_alpha_bar(name: str, table: Tensor) -> Schedule:
    """A variance-preserving schedule from its table of alpha_bar, `[steps]`.

    Raises:
        ValueError: unless the table falls strictly and stays within [0, 1].
    """
    table = torch.as_tensor(table, dtype=torch.float64)
    if table.ndim != 1 or len(table) < 2:
        raise ValueError(
            f"alpha_bar must be a table of at least 2 entries; got shape {tuple(table.shape)}."
        )
    if not bool((table.diff() < 0).all()) or table[0] > 1 or table[-1] < 0:
        raise ValueError("alpha_bar must fall at every step and stay within [0, 1].")
    lam = (0.5 * (table.log() - torch.log1p(-table))).clamp(-TABLE_LIMIT, TABLE_LIMIT)

    def curve(t: Tensor) -> tuple[Tensor, Tensor]:
        below = t.floor().long().clamp(max=len(table) - 2)
        between = (1 - (t - below)) * lam[below] + (t - below) * lam[below + 1]
        whole = t == t.round()
        alpha_bar = torch.where(whole, table[t.round().long()], torch.sigmoid(2 * between))
        rest = torch.where(whole, 1 - alpha_bar, torch.sigmoid(-2 * between))
        return alpha_bar.sqrt(), rest.sqrt()  # eq-alpha-sigma

    return Schedule(name, curve, t_max=float(len(table) - 1), table=table)


def from_betas(name: str, betas: Tensor) -> Schedule:
    """A table schedule from its betas, `[steps]`.

    The product is taken in float32, as DDPM's and Stable Diffusion's code does; all that
    follows is float64.
    """
    return from_alpha_bar(name, torch.cumprod(1 - betas.float(), dim=0))  # eq-alpha-bar


def _vp_curve(name: str, alpha_bar: Callable[[Tensor], Tensor]) -> Schedule:
    def curve(t: Tensor) -> tuple[Tensor, Tensor]:
        kept = alpha_bar(t).clamp(0, 1)
        return kept.sqrt(), (1 - kept).sqrt()

    return Schedule(name, curve)


def _check_steps(steps: int | None) -> None:
    if steps is not None and (not isinstance(steps, Integral) or steps < 2):
        raise ValueError(
            f"steps must be a whole number, at least 2, or None for continuous time; got {steps!r}."
        )


SCHEDULES: dict[str, Callable[..., Schedule]] = {}


def _named(make: Callable[..., Schedule]) -> Callable[..., Schedule]:
    """Put a maker of schedules into `SCHEDULES`; what it makes remembers name and options."""

    @wraps(make)
    def made(*args, **options) -> Schedule:
        given = dict(signature(make).bind(*args, **options).arguments)
        return replace(make(*args, **options), made=(make.__name__, given))

    SCHEDULES[make.__name__] = made
    return made


@_named
def linear(steps: int | None = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """DDPM's schedule: betas rise linearly (Ho et al. 2020, section 4).

    With `steps=None`, its limit in continuous time: the VP-SDE, whose rate of noise rises from
    1000 `beta_start` to 1000 `beta_end` (Song et al. 2021, equation 33).
    """
    _check_steps(steps)
    if steps is not None:
        return from_betas("linear", torch.linspace(beta_start, beta_end, steps))
    low, high = 1000 * beta_start, 1000 * beta_end
    return _vp_curve("linear", lambda t: torch.exp(-low * t - (high - low) * t**2 / 2))


@_named
def cosine(steps: int | None = 1000, s: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """alpha_bar follows a squared cosine (Nichol & Dhariwal 2021, equation 17).

    The table's betas are capped at `max_beta`; in continuous time the noisiest end is clean noise.
    """
    _check_steps(steps)

    def f(t: Tensor) -> Tensor:
        return torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2  # eq-cosine

    start = f(torch.zeros((), dtype=torch.float64))
    if steps is None:
        return _vp_curve("cosine", lambda t: f(t) / start)
    edges = f(torch.arange(steps + 1, dtype=torch.float64) / steps)
    return from_betas("cosine", (1 - edges[1:] / edges[:-1]).clamp(max=max_beta))


@_named
def scaled_linear(
    steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
) -> Schedule:
    """Stable Diffusion's schedule: the square roots of beta rise linearly (Rombach et al. 2022).

    The original code calls this one "linear". It has no form in continuous time.
    """
    whole_number("steps", steps, 2)
    return from_betas("scaled_linear", torch.linspace(beta_start**0.5, beta_end**0.5, steps) ** 2)


@_named
def sigmoid(
    steps: int | None = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0
) -> Schedule:
    """alpha_bar follows a falling sigmoid (Jabri et al. 2023; Chen 2023, section 2.1)."""
    _check_steps(steps)
    high, low = 1 / (1 + math.exp(-start / tau)), 1 / (1 + math.exp(-end / tau))

    def alpha_bar(t: Tensor) -> Tensor:
        return (low - torch.sigmoid((start + t * (end - start)) / tau)) / (low - high)

    if steps is None:
        return _vp_curve("sigmoid", alpha_bar)
    edges = alpha_bar(torch.arange(steps + 1, dtype=torch.float64) / steps)
    return from_betas("sigmoid", (1 - edges[1:] / edges[:-1]).clamp(max=0.999))


@_named
def flow() -> Schedule:
    """The straight line from data to noise: alpha = 1 - t, sigma = t.

    Lipman et al. 2023, example II; Liu et al. 2023, equation 1.
    """
    return Schedule("flow", lambda t: (1 - t, t.clone()))  # eq-flow


@_named
def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Schedule:
    """Variance exploding: alpha = 1 and sigma grows as a power (Karras et al. 2022, equation 5)."""
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"need 0 < sigma_min < sigma_max; got {sigma_min} and {sigma_max}.")
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return Schedule(
        "edm", lambda t: (torch.ones_like(t), (low + t * (high - low)) ** rho)
    )  # eq-edm


def zero_terminal_snr(original: Schedule) -> Schedule:
    """The same table, shifted and scaled so that its last entry holds no signal at all.

    Lin et al. 2024, algorithm 1: sqrt(alpha_bar) keeps its first entry and ends at exactly 0.
    """
    root = original.alpha_bar.sqrt()
    first, last = root[0], root[-1]
    shifted = (root - last) * first / (first - last)  # eq-zero-snr
    made = original.made and (original.made[0], {**original.made[1], "zero_terminal_snr": True})
    return replace(from_alpha_bar(f"{original.name} (zero terminal SNR)", shifted**2), made=made)


def schedule(name: str, *, zero_terminal_snr: bool = False, **options) -> Schedule:
    """The schedule called `name`, with its own options: `schedule("cosine", steps=None)`.

    Args:
        name: in `SCHEDULES`.
        zero_terminal_snr: rescale its table, as the function of that name does.
        options: those of the function in `SCHEDULES`.
    """
    made = pick("schedule", SCHEDULES, name)(**options)
    return _rescaled(made) if zero_terminal_snr else made


_rescaled = zero_terminal_snr  # under a name that no argument hides
