"""Distributions in the plane: small enough to see, hard enough to learn from (Chapter 1).

Every named set has mean zero and variance one (the average over both coordinates, so that shapes
keep their proportions), and every draw takes a generator, so that a seed repeats it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from sdlib.checks import finite, pick, whole_number

Draw = Callable[[int, torch.Generator | None], tuple[Tensor, Tensor]]


def _uniform(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(n, generator=generator)


def _jitter(points: Tensor, std: float, generator: torch.Generator | None) -> Tensor:
    return points + std * torch.randn(points.shape, generator=generator)


def _pick_label(n: int, labels: int, generator: torch.Generator | None) -> Tensor:
    return torch.randint(labels, (n,), generator=generator)


def _swiss_roll(n, generator):
    """A spiral of one and a half turns, a little blurred; labelled by its inner and outer half."""
    u = _uniform(n, generator)
    angle = 1.5 * math.pi * (1 + 2 * u)
    points = torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1)
    return _jitter(points, 0.1, generator), (u > 0.5).long()


def _two_moons(n, generator):
    """Two half circles, each reaching into the other; labelled by moon."""
    label, angle = _pick_label(n, 2, generator), math.pi * _uniform(n, generator)
    upper = torch.stack([angle.cos(), angle.sin()], dim=1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], dim=1)
    return _jitter(torch.where(label[:, None] == 0, upper, lower), 0.05, generator), label


def _checkerboard(n, generator):
    """The eight dark squares of a 4 x 4 board; labelled by square."""
    label = _pick_label(n, 8, generator)
    row = label // 2
    column = 2 * (label % 2) + row % 2
    inside = torch.rand(n, 2, generator=generator)
    return torch.stack([column, row], dim=1) + inside, label


def _pinwheel(n, generator):
    """Five bent arms; labelled by arm (Johnson et al. 2016)."""
    label = _pick_label(n, 5, generator)
    noise = torch.randn(n, 2, generator=generator) * torch.tensor([0.3, 0.05])
    along, across = noise[:, 0] + 1, noise[:, 1]
    angle = 2 * math.pi * label / 5 + 0.25 * along.exp()
    x = along * angle.cos() - across * angle.sin()
    y = along * angle.sin() + across * angle.cos()
    return torch.stack([x, y], dim=1), label


def _rings(n, generator):
    """Three rings, one in another, each as dense as the next; labelled from the inside."""
    label = (6 * _uniform(n, generator)).long()
    label = (label >= 1).long() + (label >= 3).long()  # 1, 2 and 3 sixths: as their radii
    angle = 2 * math.pi * _uniform(n, generator)
    points = (label + 1.0)[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    return _jitter(points, 0.06, generator), label


def _mixture(n, generator):
    """Eight small Gaussians on a circle; labelled by Gaussian."""
    label = _pick_label(n, 8, generator)
    return MIXTURE.draw(label, generator), label


def _branches(n, generator):
    """Two corals that fork and fork again, from one root to touching tips; labelled by coral."""
    part = torch.multinomial(BRANCHES.weights, n, True, generator=generator)
    return BRANCHES.draw(part, generator), (part >= len(BRANCHES.weights) // 2).long()


DRAWS: dict[str, Draw] = {
    "swiss_roll": _swiss_roll,
    "two_moons": _two_moons,
    "checkerboard": _checkerboard,
    "pinwheel": _pinwheel,
    "rings": _rings,
    "mixture": _mixture,
    "branches": _branches,
}
NAMES = tuple(DRAWS)


@lru_cache
def _center_and_scale(name: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a set, measured once on 2^20 draws of a fixed seed."""
    points, _ = DRAWS[name](2**20, torch.Generator().manual_seed(0))
    center = points.mean(0)
    return center, (points - center).square().mean().sqrt()


def sample_labelled(
    name: str, n: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """`n` points, float32 `[n, 2]`, and the part of the set that each is from, int64 `[n]`.

    Raises:
        ValueError: for an unknown name (it lists those there are) or n below 1.
    """
    draw = pick("data set", DRAWS, name)
    n = whole_number("n", n)
    center, scale = _center_and_scale(name)
    points, labels = draw(n, generator)
    return (points - center) / scale, labels


def sample(name: str, n: int, generator: torch.Generator | None = None) -> Tensor:
    """`n` points of the set called `name`: float32 `[n, 2]`, mean 0, variance 1."""
    return sample_labelled(name, n, generator)[0]


def stream(name: str, batch: int, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    """Fresh batches `[batch, 2]` without end: the true distribution, never the same point twice."""
    while True:
        yield sample(name, batch, generator)


def standardize(points: Tensor) -> Tensor:
    """Points `[n, d]` shifted to mean 0 and scaled to variance 1 (one factor for all coordinates).

    Raises:
        ValueError: for points that are not finite, or all the same.
    """
    points = finite("points", torch.as_tensor(points, dtype=torch.float32))
    centered = points - points.mean(0)
    scale = centered.square().mean().sqrt()
    if not scale > 0:
        raise ValueError("points must not all be the same.")
    return centered / scale


def from_image(
    image: Tensor | Sequence, n: int, generator: torch.Generator | None = None
) -> Tensor:
    """`n` points, `[n, 2]`, as dense as a picture is dark.

    Args:
        image: gray values `[h, w]` from 0 (ink) to 1 (paper); numpy arrays and lists do as well.
        n: how many points, at least 2; the first picture row is at the top.
    """
    ink = 1 - torch.as_tensor(image, dtype=torch.float32)
    if ink.ndim != 2 or not bool(((ink >= 0) & (ink <= 1)).all()) or not ink.sum() > 0:
        raise ValueError("image must be [h, w] with gray values from 0 to 1, and not all white.")
    n = whole_number("n", n, 2)
    if ink.numel() > 2**24:  # as many as torch.multinomial takes
        raise ValueError(f"image must have at most 2^24 pixels; got {ink.numel():,}.")
    pixel = torch.multinomial(ink.flatten(), n, replacement=True, generator=generator)
    row, column = pixel // ink.shape[1], pixel % ink.shape[1]
    inside = torch.rand(n, 2, generator=generator)
    return standardize(torch.stack([column, -row], dim=1) + inside)


def from_drawing(
    strokes: Sequence[Sequence[tuple[float, float]]],
    n: int,
    generator: torch.Generator | None = None,
    width: float = 0.02,
) -> Tensor:
    """`n` points, `[n, 2]`, spread evenly along hand-drawn lines.

    Args:
        strokes: lists of at least two (x, y) corners each.
        n: how many points, at least 2.
        generator: repeats the draw.
        width: the blur across a line, as a share of the drawing's size.
    """
    ends = [
        torch.tensor(stroke, dtype=torch.float32).unfold(0, 2, 1).permute(0, 2, 1)
        for stroke in strokes
        if len(stroke) > 1
    ]
    if not ends:
        raise ValueError("strokes must hold at least one line of two points or more.")
    n, corners = whole_number("n", n, 2), finite("strokes", torch.cat(ends))
    if corners.shape[2] != 2 or not width >= 0:
        raise ValueError("strokes must hold (x, y) corners, and width must not be negative.")
    start, stop = corners.unbind(1)
    length = (stop - start).norm(dim=1)
    if not length.sum() > 0:
        raise ValueError("strokes must have some length.")
    line = torch.multinomial(length, n, replacement=True, generator=generator)
    points = start[line] + _uniform(n, generator)[:, None] * (stop - start)[line]
    size = torch.cat([start, stop]).amax(0) - torch.cat([start, stop]).amin(0)
    return standardize(_jitter(points, width * size.max().item(), generator))


class GaussianMixture:
    """Round Gaussians in any dimension, with density, score and denoiser known exactly.

    Args:
        means: `[k, d]`.
        stds: `[k]`, one standard deviation each.
        weights: `[k]`, made to sum to 1; equal by default.

    Under noise, `alpha x0 + sigma eps` is a mixture again: means alpha m, variances
    alpha^2 s^2 + sigma^2. All methods take that noise level; the default is clean data.
    """

    def __init__(self, means: Tensor, stds: Tensor, weights: Tensor | None = None):
        means, stds = torch.as_tensor(means).double(), torch.as_tensor(stds).double()
        if means.ndim != 2 or stds.shape != means.shape[:1] or not bool((stds > 0).all()):
            raise ValueError("means must be [k, d], and stds [k] and positive.")
        finite("means", means), finite("stds", stds)
        weights = torch.ones_like(stds) if weights is None else torch.as_tensor(weights).double()
        if weights.shape != stds.shape or not bool((weights > 0).all()):
            raise ValueError("weights must be [k] and positive.")
        self.means, self.stds, self.weights = means, stds, weights / weights.sum()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """`n` clean points, float32 `[n, d]`."""
        label = torch.multinomial(self.weights, whole_number("n", n), True, generator=generator)
        return self.draw(label, generator)

    def draw(self, label: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A point, float32, from each of the Gaussians that `label` names."""
        noise = torch.randn(len(label), self.means.shape[1], generator=generator)
        return self.means[label].float() + self.stds[label].float()[:, None] * noise

    def _parts(self, x: Tensor, alpha, sigma) -> tuple[Tensor, Tensor, Tensor]:
        """Each Gaussian's log-density times weight at `x` `[b, k]`, x - alpha m, and variances."""
        alpha, sigma = (torch.as_tensor(v, dtype=torch.float64) for v in (alpha, sigma))
        if x.ndim != 2 or x.shape[1] != self.means.shape[1]:
            raise ValueError(f"x must be [b, {self.means.shape[1]}]; got shape {tuple(x.shape)}.")
        if any(v.ndim and v.shape not in (x.shape[:1], (1,)) for v in (alpha, sigma)):
            raise ValueError(f"alpha and sigma hold one number, or one a sample ({len(x)} here).")
        away = x.double()[:, None] - alpha[..., None, None] * self.means
        variance = alpha[..., None] ** 2 * self.stds**2 + sigma[..., None] ** 2
        d = self.means.shape[1]
        log_part = (
            self.weights.log()
            - away.square().sum(2) / (2 * variance)
            - d / 2 * torch.log(2 * math.pi * variance)
        )
        return log_part, away, variance

    def log_prob(
        self, x: Tensor, alpha: Tensor | float = 1.0, sigma: Tensor | float = 0.0
    ) -> Tensor:
        """The log-density of noisy points `x`, `[b, d]`, at a level (a number, or one a point)."""
        return self._parts(x, alpha, sigma)[0].logsumexp(1)

    def score(self, x: Tensor, alpha: Tensor | float = 1.0, sigma: Tensor | float = 0.0) -> Tensor:
        """The gradient of `log_prob` with respect to `x`, `[b, d]`."""
        log_part, away, variance = self._parts(x, alpha, sigma)
        share = torch.softmax(log_part, dim=1) / variance
        return -(share[..., None] * away).sum(1)  # eq-mixture-score

    def __call__(self, x, t, alpha, sigma, cond=None) -> Tensor:
        """The posterior mean of x0, so that a mixture is a `Denoiser` (Tweedie).

        In pure noise (alpha below 1e-6) nothing is left to go by but the mean of the whole.
        """
        sigma, alpha = (torch.as_tensor(v, dtype=torch.float64) for v in (sigma, alpha))
        shift = sigma[..., None] ** 2 * self.score(x, alpha, sigma)
        x0 = (x + shift) / alpha[..., None].clamp(min=1e-6)  # eq-tweedie
        whole = self.weights @ self.means
        return torch.where(alpha[..., None] < 1e-6, whole, x0).to(x.dtype)


def mixture_on_circle(k: int, std: float) -> GaussianMixture:
    """`k` equal Gaussians on a circle, of variance 1 in all."""
    angle = torch.arange(k) * (2 * math.pi / k)
    radius = math.sqrt(2 * (1 - std**2))
    means = radius * torch.stack([angle.cos(), angle.sin()], dim=1)
    return GaussianMixture(means, torch.full((k,), std))


MIXTURE = mixture_on_circle(8, 0.1)  # the set "mixture", with its exact density


def _coral(angle: float, generations: int = 5, beads: int = 6) -> list[tuple]:
    """Small Gaussians strung along a branching line: (x, y, standard deviation, weight) of each.

    Every generation of branches is shorter and thinner than the one before, and as heavy in all.
    """
    found = []

    def grow(x, y, angle, length, generation):
        if generation == generations:
            return
        dx, dy = length * math.cos(angle), length * math.sin(angle)
        for i in range(beads):
            u = (i + 0.5) / beads
            found.append((x + u * dx, y + u * dy, 0.08 * 0.75**generation, 0.5**generation))
        for side in (1, -1):
            turn = side * 0.35 * math.pi * 0.8**generation
            grow(x + dx, y + dy, angle + turn, 0.75 * length, generation + 1)

    grow(0.0, 0.0, angle, 1.0, 0)
    return found


def corals() -> tuple[GaussianMixture, GaussianMixture, GaussianMixture]:
    """The set "branches" with its exact density: both corals, then each of them alone.

    After the toy of Karras et al. 2024 (autoguidance), figure 1.
    """
    parts = torch.tensor(_coral(0.85) + _coral(-1.5), dtype=torch.float64)
    means, stds, weights = parts[:, :2], parts[:, 2], parts[:, 3] / parts[:, 3].sum()
    means = means - weights @ means
    scale = (weights @ (means.square().mean(1) + stds**2)).sqrt()
    means, stds, half = means / scale, stds / scale, len(parts) // 2
    which = (slice(None), slice(half), slice(half, None))
    return tuple(GaussianMixture(means[k], stds[k], weights[k]) for k in which)


BRANCHES = corals()[0]
