"""What a picture is asked for, checked before anything is computed (Chapter 20)."""

import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isqrt
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdlib import __version__, images
from sdlib.checks import count as whole
from sdlib.checks import pick
from sdlib.diffusion import SAMPLERS, SPACINGS, Grid, Schedule, make_grid
from sdlib.diffusion.grid import one_more

if TYPE_CHECKING:
    from os import PathLike

    from PIL.Image import Image

    Picture = str | PathLike | Image

SIZE = 512  # pixels a side that v1.5 was trained on
LARGEST = 1024 * 1024  # pixels of an image that are taken as they come
SEEDS = 2**64  # how many there are

DISTILLED = 50  # times that latent consistency models know, evenly spaced over the table


def even(schedule: Schedule, steps: int) -> Tensor:
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


def most(schedule: Schedule, steps: int) -> Tensor:
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
    **dict.fromkeys(("euler", "euler_ancestral", "heun", "edm", "lms"), (even, "zero")),
}
OTHERS = (most, "zero")


@dataclass(frozen=True)
class Request:
    """Everything that a walk needs to know.

    Attributes:
        jobs: for each image, what it is made from: its prompt, its seed, and all settings.
        sampler: the function.
        grid: its nodes; None where an image is to stay as it is.
        picture, mask: `[1, 3, H, W]` from -1 to 1, `[1, 1, H, W]` of 0 and 1; each may be None.
    """

    jobs: list[dict[str, Any]]
    sampler: Callable
    grid: Grid | None
    picture: Tensor | None
    mask: Tensor | None

    def each(self, key: str) -> list[Any]:
        """One of the settings, for each image."""
        return [job[key] for job in self.jobs]

    def __getitem__(self, key: str) -> Any:
        """A setting that is the same for all images."""
        return self.jobs[0][key]


def make_request(
    schedule: Schedule,
    made_by: Mapping[str, str],
    prompt: str | Sequence[str],
    negative_prompt: str | Sequence[str],
    image: "Picture | None",
    mask: "Picture | None",
    *,
    strength: float,
    guidance_scale: float,
    steps: int,
    sampler: str | Callable,
    spacing: str | Callable | None,
    seed: int | Sequence[int] | None,
    width: int | None,
    height: int | None,
    count: int,
    long_prompt: str,
) -> Request:
    """Check and complete what `StableDiffusion.sample` was asked; see there.

    `made_by` is told with the settings.

    Raises:
        ValueError, OSError: as there.
    """
    each = _each(prompt, negative_prompt, seed, whole("count", count))
    if not isinstance(strength, Real) or not 0 <= strength <= 1:
        raise ValueError(
            f"strength must lie between 0 (keep the image) and 1 (forget it); got {strength!r}."
        )
    if not isinstance(guidance_scale, Real) or not isfinite(guidance_scale):
        raise ValueError(
            f"guidance_scale must be a number (1 is without guidance); got {guidance_scale!r}."
        )
    picture, hidden, (width, height) = _pictures(image, mask, width, height)
    pick("long_prompt", dict.fromkeys(("cut", "chunk")), long_prompt)
    walk = sampler if callable(sampler) else pick("sampler", SAMPLERS, sampler)
    grid = nodes(schedule, sampler, steps, spacing)
    settings = {
        "guidance_scale": float(guidance_scale),
        "steps": int(steps),
        "sampler": _told(SAMPLERS, sampler),
        "spacing": _told(SPACINGS, spacing),
        "width": width,
        "height": height,
        "long_prompt": long_prompt,
    }
    if picture is not None:
        settings |= {"strength": float(strength), "image": images.fingerprint(image)}
        left = min(int(steps * strength), len(grid))
        if strength and not left:
            warnings.warn(
                f"strength {strength:g} of {steps} steps is less than one step: the image is only "
                "encoded and decoded. Give more strength or more steps.",
                stacklevel=3,
            )
        grid = grid[len(grid) - left :] if left else None
    if hidden is not None:
        settings |= {"mask": images.fingerprint(mask)}
    settings |= {**made_by, "sdlib": __version__}
    return Request([job | settings for job in each], walk, grid, picture, hidden)


def nodes(
    schedule: Schedule, sampler: str | Callable, steps: int, spacing: str | Callable | None
) -> Grid:
    """The grid that a sampler walks; a spacing of one's own ends on clean latents."""
    if spacing is not None:
        return make_grid(schedule, steps, spacing)
    return make_grid(schedule, steps, *GRIDS.get(_name(SAMPLERS, sampler), OTHERS))


def _each(prompt, negative_prompt, seed, count: int) -> list[dict[str, Any]]:
    """For each image, its prompt, negative prompt and seed."""
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
    seeds = list(seed) if several else [whole("seed", seed, least=0) + j for j in range(count)]
    if len(seeds) != count:
        raise ValueError(f"a list of seeds must have one for each of {count}; got {len(seeds)}.")
    if max(whole("seed", one, least=0) for one in seeds) >= SEEDS:
        raise ValueError(f"seeds must be below 2^64; got {max(seeds)}.")
    return [
        {"prompt": text, "negative_prompt": negative, "seed": int(one)}
        for text, negative in zip(prompts, negatives, strict=True)
        for one in seeds
    ]


def _pictures(image, mask, width: int | None, height: int | None):
    """The image `[1, 3, H, W]` and the mask `[1, 1, H, W]`, each or None, and (width, height)."""
    if image is None:
        if mask is not None:
            raise ValueError("a mask says what to repaint in an image; give the image as well.")
        return None, None, (images.side("width", width, SIZE), images.side("height", height, SIZE))
    opened = images.open_image(image)
    if width is None and height is None and opened.width * opened.height > LARGEST:
        area = opened.width * opened.height
        width, height = (isqrt(s * s * SIZE * SIZE // area) // 8 * 8 or 8 for s in opened.size)
        warnings.warn(
            f"the image has {opened.width} x {opened.height} pixels, far more than the {SIZE} x "
            f"{SIZE} that the model knows: it is made {width} x {height}. Give width and height to "
            "choose.",
            stacklevel=4,
        )
    fitted = images.fit(opened, width, height)
    hidden = None if mask is None else images.open_mask(mask, *fitted.size)
    return images.to_tensor(fitted), hidden, fitted.size


def _name(table: Mapping[str, Callable], choice: str | Callable) -> str | None:
    """The name of a choice, which is one already or stands under one in the table; or else None."""
    if isinstance(choice, str):
        return choice
    return next((name for name, function in table.items() if function is choice), None)


def _told(table: Mapping[str, Callable], choice: str | Callable | None) -> str | dict | None:
    """What a picture's parameters call a sampler or a spacing: a name, or `{"own": what}`."""
    if choice is None:
        return None
    own = {"own": getattr(choice, "__name__", type(choice).__name__)}
    return _name(table, choice) or own
