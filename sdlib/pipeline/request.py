"""What pictures are asked for, checked before anything is computed (Chapter 20)."""

import secrets
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isqrt
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdlib import images
from sdlib.checks import whole_number
from sdlib.diffusion import SPACINGS, Condition, Grid, Schedule, classifier_free, make_grid
from sdlib.diffusion.condition import take, tensors
from sdlib.diffusion.grid import one_more
from sdlib.diffusion.guidance import Correction
from sdlib.models import StableDiffusionConfig
from sdlib.pipeline.settings import Settings, own

if TYPE_CHECKING:
    from os import PathLike

    from PIL.Image import Image

    Picture = str | PathLike | Image

LARGER = 4  # times the area that the model was trained on is taken as it comes
SEEDS = 2**64  # how many there are

DISTILLED = 50  # times that latent consistency models know, evenly spaced over the table


def linspace_unrounded(schedule: Schedule, steps: int) -> Tensor:
    """`linspace` without rounding: times lie between entries of the table, as in k-diffusion."""
    return torch.linspace(schedule.t_max, schedule.t_min, steps, dtype=torch.float64)


def distilled(schedule: Schedule, steps: int) -> Tensor:
    """Some of the times at which latent consistency models were distilled.

    Luo et al. 2023, section 4.3.

    Raises:
        ValueError: for more steps than there are such times.
    """
    if steps > DISTILLED:
        raise ValueError(
            f"lcm takes from 1 to {DISTILLED} steps, since its models know no more times; got "
            f"{steps}. Give a spacing to go beyond."
        )
    left = DISTILLED - torch.arange(steps) * DISTILLED // steps
    return left.double() * (schedule.steps // DISTILLED) - 1


def linspace_without_last(schedule: Schedule, steps: int) -> Tensor:
    """`linspace` for one step more, without its last time; or each time there is."""
    times = SPACINGS["linspace"]
    return (one_more(times) if steps < schedule.steps else times)(schedule, steps)


# The nodes that a sampler walks unless a spacing is asked for: those of diffusers' schedulers when
# they are made from v1.5's config. Others are DPM-Solver++, UniPC and their like.
GRIDS = {
    "plms": ("leading", "first"),
    "ddim": ("leading", "first"),
    "ddpm": ("leading", "zero"),
    "lcm": (distilled, "zero"),
    **dict.fromkeys(
        ("euler", "euler_ancestral", "heun", "edm", "lms"), (linspace_unrounded, "zero")
    ),
}
OTHERS = (linspace_without_last, "zero")


@dataclass(frozen=True)
class Request:
    """Everything that a walk needs to know.

    Attributes:
        jobs: for each image, what it is made from: its prompt, its seed, and all settings.
        settings: with sampler, width and height as the model has them, where they were left open.
        grid: the sampler's nodes; None where an image is to stay as it is.
        picture, mask: `[1, 3, H, W]` from -1 to 1, `[1, 1, H, W]` of 0 and 1; each may be None.
        latents: the noise to begin with, `[b, c, h, w]`; None where the seeds draw it.
        conditions: with and without the prompts, a row for each image; None where these are read.
        corrections: of guidance.
    """

    jobs: list[dict[str, Any]]
    settings: Settings
    grid: Grid | None
    picture: Tensor | None = None
    mask: Tensor | None = None
    latents: Tensor | None = None
    conditions: tuple[Condition, Condition] | None = None
    corrections: tuple[Correction, ...] = ()

    def each(self, key: str) -> list[Any]:
        """What is told under a key, for each image."""
        return [job[key] for job in self.jobs]


def make_request(
    config: StableDiffusionConfig,
    schedule: Schedule,
    settings: Settings,
    prompt: str | Sequence[str] | None = None,
    negative_prompt: str | Sequence[str] = "",
    image: "Picture | None" = None,
    mask: "Picture | None" = None,
    *,
    seed: int | Sequence[int] | None = None,
    count: int = 1,
    latents: Tensor | None = None,
    embeddings: tuple[Condition, Condition] | None = None,
    corrections: Correction | Sequence[Correction] = (),
) -> Request:
    """Check and complete what `StableDiffusion.sample` was asked; see there.

    Raises:
        ValueError, OSError: as there.
    """
    conditions, rows = None, None
    if embeddings is not None:
        conditions, rows = _conditions(
            embeddings, prompt, negative_prompt, whole_number("count", count)
        )
    jobs = make_jobs(prompt if rows is None else [""] * rows, negative_prompt, seed, count)
    picture, hidden, (width, height) = _pictures(config, image, mask, settings)
    sampler = settings.sampler or config.sampler
    settings = replace(settings, sampler=sampler, width=width, height=height)
    grid = nodes(schedule, settings.sampler, settings.steps, settings.spacing)
    _check_options(settings, grid)
    corrections = (corrections,) if callable(corrections) else tuple(corrections)

    told = settings.told()
    if picture is None:
        del told["strength"]
    else:
        told["image"] = images.fingerprint(image)
        grid = _last_steps(grid, settings)
    # only so that the interval is checked, before there is anything to guide
    classifier_free(_unchanged, 1.0, 0, interval=settings.interval, grid=grid)
    if hidden is not None:
        told["mask"] = images.fingerprint(mask)
    if conditions is not None:
        told |= dict.fromkeys(("prompt", "negative_prompt"), own("embeddings"))
    if corrections:
        told["corrections"] = own(", ".join(map(_title, corrections)))
    if latents is not None:
        told["latents"] = own("latents")
        factor = config.vae.factor
        _check_latents(latents, (len(jobs), config.vae.latent, height // factor, width // factor))
    jobs = [job | told for job in jobs]
    return Request(jobs, settings, grid, picture, hidden, latents, conditions, corrections)


def make_jobs(
    prompt: str | Sequence[str],
    negative_prompt: str | Sequence[str] = "",
    seed: int | Sequence[int] | None = None,
    count: int = 1,
) -> list[dict[str, Any]]:
    """For each image, its prompt, negative prompt and seed: `count` of each prompt.

    Raises:
        ValueError: for what are no prompts or seeds, or not as many as there should be.
    """
    count = whole_number("count", count)
    for name, texts in {"prompt": prompt, "negative_prompt": negative_prompt}.items():
        if not isinstance(texts, Sequence):
            raise ValueError(f"{name} must be a string, or a list of them; got {texts!r}.")
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    same = isinstance(negative_prompt, str)
    negatives = [negative_prompt] * len(prompts) if same else list(negative_prompt)
    if not prompts or len(negatives) != len(prompts):
        raise ValueError(
            "there must be a prompt, and one negative prompt for all or one for each; got "
            f"{len(prompts)} and {len(negatives)}."
        )
    if seed is None:
        seed = secrets.randbelow(2**32)
    several = isinstance(seed, Sequence)
    seeds = (
        list(seed) if several else [whole_number("seed", seed, least=0) + j for j in range(count)]
    )
    if len(seeds) != count:
        raise ValueError(f"a list of seeds must have one for each of {count}; got {len(seeds)}.")
    if max(whole_number("seed", one, least=0) for one in seeds) >= SEEDS:
        raise ValueError(f"seeds must be below 2^64; got {max(seeds)}.")
    return [
        {"prompt": text, "negative_prompt": negative, "seed": int(one)}
        for text, negative in zip(prompts, negatives, strict=True)
        for one in seeds
    ]


def nodes(
    schedule: Schedule, sampler: str | Callable, steps: int, spacing: str | Callable | None = None
) -> Grid:
    """The grid that a sampler walks; a spacing of one's own ends on clean latents."""
    if spacing is not None:
        return make_grid(schedule, steps, spacing)
    return make_grid(schedule, steps, *GRIDS.get(sampler, OTHERS))


def _last_steps(grid: Grid, settings: Settings) -> Grid | None:
    """The share of a grid that an image of some strength walks."""
    left = min(int(settings.steps * settings.strength), len(grid))
    if settings.strength and not left:
        warnings.warn(
            f"strength {settings.strength:g} of {settings.steps} steps is less than one step: the "
            "image is only encoded and decoded. Give more strength or more steps.",
            stacklevel=4,
        )
    return grid[len(grid) - left :] if left else None


def _check_options(settings: Settings, grid: Grid) -> None:
    """Have a sampler's options checked by itself, by its first step on a single number."""
    if not settings.sampler_options or callable(settings.sampler):
        return
    walk = settings.walk(
        _unchanged, grid, torch.zeros(1, 1), noise=torch.zeros_like, **settings.sampler_options
    )
    try:
        next(walk)
    except TypeError as error:
        raise ValueError(
            f"{settings.sampler} cannot take the options {settings.sampler_options}: {error}."
        ) from error


def _unchanged(x: Tensor, *_: Any) -> Tensor:
    return x


def _check_latents(latents: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(latents, Tensor) or tuple(latents.shape) != shape:
        got = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise ValueError(
            f"latents must be a tensor of shape {shape}, the noise of all images; got {got}."
        )


def _conditions(
    embeddings: Any, prompt: Any, negative_prompt: Any, count: int
) -> tuple[tuple[Condition, Condition], int]:
    """A condition with and one without the prompt, a row for each image; and how many prompts."""
    if not isinstance(embeddings, tuple) or len(embeddings) != 2:
        raise ValueError(
            "embeddings must be a pair, with and without the prompt, as conditions() gives it."
        )
    if prompt is not None or negative_prompt != "":
        raise ValueError("embeddings stand for prompts: give either the ones or the others.")
    wanted, other = ([len(x) for x in tensors(cond)] for cond in embeddings)
    if not wanted or len({*wanted}) != 1 or {*other} not in ({1}, {*wanted}):
        raise ValueError(
            "embeddings must hold tensors with a row for each prompt (one row without prompt may "
            f"stand for all); got {wanted} and {other} rows."
        )
    rows = torch.arange(wanted[0]).repeat_interleave(count)
    cond, uncond = embeddings
    return (take(cond, rows), take(uncond, rows.clamp(max=other[0] - 1))), wanted[0]


def _pictures(config: StableDiffusionConfig, image, mask, settings: Settings):
    """The image `[1, 3, H, W]` and the mask `[1, 1, H, W]`, each or None, and (width, height)."""
    width, height, factor = settings.width, settings.height, config.vae.factor
    size = config.sample_size * factor
    if image is None:
        check_mask(image, mask)
        sides = {"width": width, "height": height}
        return None, None, tuple(images.side(*side, size, factor) for side in sides.items())
    opened = images.open_image(image)
    area = opened.width * opened.height
    if width is None and height is None and area > LARGER * size**2:
        width, height = (
            isqrt(side * side * size * size // area) // factor * factor or factor
            for side in opened.size
        )
        warnings.warn(
            f"the image has {opened.width} x {opened.height} pixels, far more than the {size} x "
            f"{size} that the model knows: it is made {width} x {height}. Give width and height to "
            "choose.",
            stacklevel=4,
        )
    fitted = images.fit(opened, width, height, factor)
    hidden = None if mask is None else images.open_mask(mask, *fitted.size)
    return images.to_tensor(fitted), hidden, fitted.size


def check_mask(image: "Picture | None", mask: "Picture | None") -> None:
    """Refuse a mask without an image."""
    if mask is not None and image is None:
        raise ValueError("a mask says what to repaint in an image; give the image as well.")


def _title(correction: Correction) -> str:
    """The name of the function that made a correction, or its own."""
    return getattr(correction, "__qualname__", type(correction).__name__).split(".<locals>")[0]
