"""What the comparisons with diffusers' schedulers share: its settings and a stand-in network."""

import torch

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
COUNTS = [4, 10, 20, 33, 50]

# How far float64 may differ, relative and absolute: 1e-10, where rounding leaves 1e-12. Where the
# reference casts its states to float32, 1e-5.
EXACT, SINGLE = 1e-10, 1e-5


def model(x, t):
    """A network's stand-in: smooth, of the size of eps, and different at every time."""
    return torch.tanh(x + t / 500) + 0.1 * x.roll(1, -1)


def start():
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def recorded(seed=1):
    """The same noise for both walks."""
    g = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=g, dtype=x.dtype)


def double(scheduler):
    """Make the tables of a scheduler float64, so that it computes as we do where it can.

    In float32 its rounding would add up over the steps, differently on every processor.
    """
    for name in ("sigmas", "alphas_cumprod", "final_alpha_cumprod", "one", "alpha_t", "sigma_t"):
        if isinstance(getattr(scheduler, name, None), torch.Tensor):
            setattr(scheduler, name, getattr(scheduler, name).double())
    return scheduler
