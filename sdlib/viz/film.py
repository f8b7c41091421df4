"""The film of `python -m sdlib animate`: points condense from Gaussian noise into a shape."""

import torch

from sdlib.datasets import plane
from sdlib.diffusion import SAMPLERS, IdealDenoiser, Step, make_grid, schedule
from sdlib.dtypes import FLOAT64
from sdlib.training import RECIPES, load_trained
from sdlib.viz.animation import SUFFIXES, Animation, animate

__all__ = ["LOOK", "SUFFIXES", "film", "walk"]

LOOK = {"background": "#141a24", "radius": 1.5, "opacity": 0.55, "colors": 8}
LINGER = 1.5  # above 1, the film slows down toward its end, where the shape appears
BETWEEN = 4  # steps of the sampler from one picture to the next
MEMORY = 2000  # points that the ideal denoiser knows, where no network ships


def walk(
    name: str, points: int, frames: int, sampler: str, generator: torch.Generator
) -> list[Step]:
    """`frames` Steps of a walk from noise to what the model or data set `name` holds.

    The shipped network of the recipe `name` denoises; without one, the ideal denoiser of the data
    set `name` does.
    """
    try:
        trained = load_trained(name)
        denoiser, noise_schedule = trained.denoiser(), trained.schedule
    except (ValueError, FileNotFoundError):
        source = RECIPES[name].dataset if name in RECIPES else name
        denoiser = IdealDenoiser(plane.sample(source, MEMORY, generator))
        noise_schedule = schedule("cosine")
    steps = BETWEEN * (frames - 1)
    steps = min(steps, noise_schedule.steps or steps)  # a long film rests between steps
    grid = make_grid(noise_schedule, steps)
    x = grid.sigma[0] * torch.randn(points, 2, generator=generator, **FLOAT64)

    def noise(x):
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    every = list(SAMPLERS[sampler](denoiser, grid, x, noise=noise))
    moments = torch.linspace(0, 1, frames)
    kept = (len(grid) * (1 - (1 - moments) ** LINGER)).round().long()
    return [every[i] for i in kept]


def film(steps: list[Step], name: str) -> Animation:
    """The walk as five seconds of film, in colors for a dark background; save it with `**LOOK`."""
    seconds = 3.6
    return animate(
        steps,
        alt=f"{len(steps[0].x)} points, at first Gaussian noise, condense into the {name}",
        seconds=seconds,
        fps=len(steps) / seconds,
        size=480,
        extent=2.75,
        color=("#f0a35c", "#d98fb8", "#6cc4f5"),
    )
