"""The samplers by name, for command lines, panels and tests (Chapter 9)."""

from collections.abc import Callable, Iterator

import torch

from sdlib.diffusion.samplers.step import Step

# Called alike: sampler(denoiser, grid, x, *, noise=..., cond=..., and options of its own).
Sampler = Callable[..., Iterator[Step]]
SAMPLERS: dict[str, Sampler] = {}


def sampler(function: Sampler) -> Sampler:
    """Put a sampler into `SAMPLERS` under its function's name; use it as a decorator.

    Its walk records no gradients; `differentiable` gives one that does.

    Raises:
        ValueError: if another sampler has the name already. (Making the same one again, as a
            notebook's cell does, is fine.)
    """
    name = function.__name__
    known = SAMPLERS.get(name)
    if known is not None and known.__module__ != function.__module__:
        raise ValueError(f"there is a sampler called {name!r} already, in {known.__module__}.")
    SAMPLERS[name] = torch.no_grad()(function)
    return SAMPLERS[name]


def differentiable(sampler: Sampler) -> Sampler:
    """The same sampler, through whose walk gradients can be taken: of a reward, say."""
    return getattr(sampler, "__wrapped__", sampler)
