"""Guidance: a denoiser made of a denoiser (Chapter 10).

Every function here takes denoisers and returns one, so that samplers need not know. Guidance takes
two estimates of x0, one wanted and one to get away from, and goes on along the line through them.
A *correction* mends what is too much about the result: `rescaled`, `projected`, `thresholded`.

    guided = classifier_free(denoiser, scale=7.5, uncond=empty, correct=rescaled(0.7))
    steps = dpmpp_2m(guided, grid, x, cond=text)

Where a condition is the same for all samples, one row of it does for `classifier_free`. Levels of
intervals are sigma / alpha.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sdlib.checks import finite
from sdlib.diffusion.condition import Condition, join, repeat
from sdlib.diffusion.denoiser import Denoiser
from sdlib.diffusion.grid import Grid
from sdlib.diffusion.parameterization import Parameterization, parameterization, to_eps
from sdlib.diffusion.tensors import broadcast
from sdlib.dtypes import as_tensor

# (guided, plain, x, alpha, sigma) -> x0: mends a guided estimate, knowing the conditional one.
Correction = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
Interval = tuple[float, float]


def classifier_free(
    denoiser: Denoiser,
    scale: float | Tensor,
    uncond: Condition,
    *,
    interval: Interval | None = None,
    grid: Grid | None = None,
    correct: Correction | Sequence[Correction] = (),
) -> Denoiser:
    """Classifier-free guidance (Ho & Salimans 2022, equation 6, with scale = 1 + w).

    The conditional and the unconditional estimate come from one call on a joined batch, the
    conditional half first. scale = 1 is off, as in Stable Diffusion: then, and outside the
    interval, there is one plain conditional call and nothing is corrected.

    Args:
        denoiser: is told a condition.
        scale: how far to go, from the unconditional estimate (0) through the conditional (1) and
            beyond; one number, or one a sample.
        uncond: the condition that stands for "none": the number of classes, the embedding of an
            empty prompt. Any other makes a negative prompt.
        interval: (low, high), the levels sigma / alpha at which to guide (Kynkäänniemi et al.
            2024); all by default.
        grid: where sampling will go; an interval that holds none of it is then an error.
        correct: one correction, or several in turn.

    Raises:
        ValueError: for a scale that is not finite, an impossible interval, or (when called) a
            condition that is missing or does not fit the batch.
    """
    if uncond is None:
        raise ValueError(
            "uncond must say what stands for no condition: the number of classes, say, or the "
            "embedding of an empty prompt; got None."
        )

    def plain(x, t, alpha, sigma, cond):
        return denoiser(x, t, alpha, sigma, repeat(cond, len(x)))

    def both(x, t, alpha, sigma, cond):
        wanted = repeat(cond, len(x))
        joined = join(wanted, repeat(uncond, len(x), wanted, "uncond"))
        twice = (v.repeat(2) if isinstance(v, Tensor) and v.ndim else v for v in (t, alpha, sigma))
        return denoiser(torch.cat([x, x]), *twice, joined).chunk(2)

    return _guided(plain, both, scale, interval, grid, correct)


def autoguidance(
    denoiser: Denoiser,
    worse: Denoiser,
    scale: float | Tensor,
    *,
    interval: Interval | None = None,
    grid: Grid | None = None,
    correct: Correction | Sequence[Correction] = (),
) -> Denoiser:
    """Autoguidance (Karras et al. 2024, equation 3): away from a worse model of the same thing.

    Both are asked for the same condition (there may be none), so what they disagree on is not the
    condition but the quality. Arguments as for `classifier_free`; `worse` is a smaller or less
    trained denoiser. It costs a call of each.
    """

    def both(*call):
        return denoiser(*call), worse(*call)

    return _guided(denoiser, both, scale, interval, grid, correct)


def classifier_guidance(
    denoiser: Denoiser,
    log_prob: Callable[..., Tensor],
    scale: float | Tensor,
    *,
    uncond: Condition = None,
) -> Denoiser:
    """Classifier guidance (Dhariwal & Nichol 2021, algorithm 2): up the slope of a classifier.

    Args:
        denoiser: unconditional; it is told `uncond`.
        log_prob: `(x, t, alpha, sigma, cond)` -> `[b]`, how probable the condition is given the
            *noisy* sample. It is differentiated with respect to `x`.
        scale: 1 samples from Bayes' posterior; more, from a sharper classifier.
        uncond: what the denoiser is told, if it knows conditions.

    Raises:
        ValueError: for a scale that is not finite, or (when called) probabilities that are not
            `[b]`, or alpha = 0.
    """
    scale = finite("scale", as_tensor(scale))

    def guided(x, t, alpha, sigma, cond=None):
        a, s = broadcast(alpha, x), broadcast(sigma, x)
        if bool((a == 0).any()):
            raise ValueError(
                "classifier guidance divides by alpha, which is 0 in pure noise (zero terminal "
                "SNR): start the grid at a later node."
            )
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            said = log_prob(at, t, alpha, sigma, cond)
            if said.shape != x.shape[:1]:
                raise ValueError(
                    f"log_prob must give one number a sample, [{len(x)}]; "
                    f"got shape {tuple(said.shape)}."
                )
            (slope,) = torch.autograd.grad(said.sum(), at)
        x0 = denoiser(x, t, alpha, sigma, uncond)
        return x0 + broadcast(scale, x) * s**2 / a * slope  # eq-classifier-guidance

    return guided


def rescaled(share: float = 0.7, predicts: str | Parameterization = "eps") -> Correction:
    """Rescaled guidance (Lin et al. 2024, equations 14 to 16): the spread it had unguided.

    It is defined on the network's output, so the estimates of x0 are turned into what the network
    said, which is scaled there and turned back. Which output counts: Lin et al. scale v, Stable
    Diffusion's users eps.

    Args:
        share: of the rescaled output in the result, 0 (off) to 1; the paper takes 0.7.
        predicts: the output whose spread is kept.
    """
    p = parameterization(predicts)
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie between 0 and 1; got {share}.")

    def correction(guided, plain, x, alpha, sigma):
        if x[0].numel() < 2:
            raise ValueError("rescaling compares spreads within a sample: one number has none.")
        a, s = broadcast(alpha, x), broadcast(sigma, x)
        out, before = (p.target(x0, to_eps(x0, x, alpha, sigma), a, s) for x0 in (guided, plain))
        ratio = _spread(before) / _spread(out).clamp(min=1e-30)
        out = out * (share * ratio + 1 - share)  # eq-rescaled
        return p.to_x0(out, x, a, s)

    return correction


def projected(parallel: float = 0.0) -> Correction:
    """Projected guidance (Sadat et al. 2025, section 4): less of the part that only adds contrast.

    What guidance adds is split into a part along the conditional estimate and a part across; the
    first is scaled by `parallel` (1 changes nothing). Their threshold and momentum are left out.
    """
    if not math.isfinite(parallel):
        raise ValueError(f"parallel must be finite; got {parallel}.")

    def correction(guided, plain, x, alpha, sigma):
        added, along = (guided - plain).flatten(1), plain.flatten(1)
        squares = along.square().sum(1, keepdim=True).clamp(min=1e-30)
        share = (added * along).sum(1, keepdim=True) / squares
        excess = (1 - parallel) * share * along
        return guided - excess.reshape(x.shape)  # eq-projected

    return correction


def thresholded(quantile: float = 0.995, limit: float = 1.0) -> Correction:
    """Dynamic thresholding (Saharia et al. 2022, section 2.3), for data within -limit to limit.

    Where more than 1 - `quantile` of a sample's numbers are beyond the limit, it is clipped there
    and shrunk until it fits.
    """
    if not 0 < quantile <= 1 or not limit > 0:
        raise ValueError(
            f"quantile must lie in (0, 1] and limit be positive; got {quantile} and {limit}."
        )

    def correction(guided, plain, x, alpha, sigma):
        size = guided.abs().flatten(1).quantile(quantile, dim=1).clamp(min=limit)
        size = broadcast(size, x)
        return guided.clamp(-size, size) * (limit / size)

    return correction


class ClassDenoiser:
    """One denoiser a class and one of the whole, as a conditional denoiser.

    With exact denoisers it is the oracle of guidance, as `IdealDenoiser` is of denoising.

    Args:
        classes: the denoiser of each class.
        whole: that of all of them together; class `len(classes)`, or no condition, stands for it.
    """

    def __init__(self, classes: Sequence[Denoiser], whole: Denoiser):
        self.denoisers = [*classes, whole]

    def __call__(self, x, t, alpha, sigma, cond=None):
        none = len(self.denoisers) - 1
        label = torch.as_tensor(none if cond is None else cond, device=x.device)
        label = label.expand(len(x)) if label.ndim == 0 else label
        whole = not label.is_floating_point() and label.shape == x.shape[:1]
        if not whole or not bool(((label >= 0) & (label <= none)).all()):
            raise ValueError(
                f"cond must hold a class for each of {len(x)} samples, from 0 to {none - 1}, or "
                f"{none} for none; got shape {tuple(label.shape)}: {label.unique().tolist()[:8]}."
            )
        x0 = torch.empty_like(x)
        for k, denoiser in enumerate(self.denoisers):
            rows = label == k
            if bool(rows.any()):
                levels = (as_tensor(v) for v in (t, alpha, sigma))
                part = (v[rows.to(v.device)] if v.ndim else v for v in levels)
                x0[rows] = denoiser(x[rows], *part)
        return x0


def _guided(plain, both, scale, interval, grid, correct) -> Denoiser:
    """A denoiser that asks `both` where guidance is on, and `plain` where it is off."""
    scale = finite("scale", as_tensor(scale))
    low, high = _check_interval(interval, grid)
    corrections = [correct] if callable(correct) else list(correct)

    def guided(x, t, alpha, sigma, cond=None):
        a, s = broadcast(alpha, x), broadcast(sigma, x)
        inside = (s / a >= low) & (s / a <= high)  # in pure noise s / a is infinite
        on = inside & (broadcast(scale, x) != 1)
        if not bool(on.any()):
            return plain(x, t, alpha, sigma, cond)
        wanted, other = both(x, t, alpha, sigma, cond)
        x0 = _extrapolate(wanted, other, broadcast(scale, x))
        for correction in corrections:
            x0 = correction(x0, wanted, x, alpha, sigma)
        return torch.where(on, x0, wanted)

    return guided


def _extrapolate(wanted: Tensor, other: Tensor, scale: Tensor) -> Tensor:
    return other + scale * (wanted - other)  # eq-guidance


def _check_interval(interval: Interval | None, grid: Grid | None) -> Interval:
    low, high = (0.0, math.inf) if interval is None else map(float, interval)
    if not 0 <= low < high:
        raise ValueError(
            f"interval must be (low, high) in sigma / alpha, 0 <= low < high; got {interval}."
        )
    if grid is not None:
        ratio = grid.sigma / grid.alpha
        least, most = ratio.min().item(), ratio.max().item()
        if low > most or high < least:
            raise ValueError(
                f"the interval {low:g} to {high:g} lies outside the noise levels sigma / alpha "
                f"of the grid, {least:g} to {most:g}: guidance would never be on."
            )
    return low, high


def _spread(out: Tensor) -> Tensor:
    """The standard deviation within each sample, `[b, 1, ...]`."""
    return out.std(dim=tuple(range(1, out.ndim)), keepdim=True)
