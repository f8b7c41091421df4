"""Every sampler beside every other: quality for a number of calls, and what a step costs.

    make benchmark                       # this and the other benchmark
    python benchmarks/samplers.py        # about ten minutes on one core, one more the first time
    python benchmarks/samplers.py --quick
    python benchmarks/samplers.py --write    # puts the tables into book/performance.md

*Quality*: the sliced Wasserstein-1 distance of 2,000 samples to 2,000 fresh points over its floor
(two real sets), on three sets in the plane, with a trained network and with the ideal denoiser of
the distribution. All start from the same noise. A sampler gets as many steps as its calls allow.

*Overhead*: the CPU time of a step beside `step()` of diffusers' scheduler, in turns, one thread.

Prints figures; asserts nothing.
"""

import argparse
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.gpu.report import processor
from sdlib.datasets import plane
from sdlib.diffusion import (
    SAMPLERS,
    Diffusion,
    Grid,
    IdealDenoiser,
    NetworkDenoiser,
    Schedule,
    make_grid,
    parameterization,
    schedule,
)
from sdlib.evaluation import floor, sliced_wasserstein
from sdlib.training import EMA
from sdlib.training.recipes import PlaneRecipe, load_trained, train_steps

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "book" / "performance.md"
CACHE = ROOT / "_build" / "benchmarks"  # networks that this script trains
CALLS = (5, 10, 20, 50)

# --- the samplers ---------------------------------------------------------------------------------

SAME = {  # one walk under two names: the second is left out
    "ddim": "euler",
    "ddpm": "euler_ancestral",
}
VARIANTS = {
    "ddpm, large variance": partial(SAMPLERS["ddpm"], variance="large"),
    "dpm_solver, order 3": partial(SAMPLERS["dpm_solver"], order=3),
    "unipc, order 3": partial(SAMPLERS["unipc"], order=3),
}


def karras_20(schedule: Schedule, steps: int) -> Tensor:
    """Karras' spacing between sigma / alpha = 20 and 0.02."""
    noisy, clean = 20 ** (1 / 7), 0.02 ** (1 / 7)
    root = noisy + torch.linspace(0, 1, steps, dtype=torch.float64) * (clean - noisy)
    return schedule.t_at(-7 * root.log())


# Even steps in time suit most here. They begin at sigma / alpha = 20,000, though, where a solver
# that goes along slopes must not linger: these walk Karras' spacing from 20 on.
SLOPES = ("heun", "edm", "plms", "dpm_solver")


def contenders() -> dict[str, Callable]:
    """Every registered sampler but for second names, with its variants behind it."""
    found = {}
    for name, sampler in SAMPLERS.items():
        if name not in SAME.values():
            found[name] = sampler
            found |= {k: v for k, v in VARIANTS.items() if k.startswith(f"{name},")}
    return found


def spacing_of(name: str) -> str | Callable:
    return karras_20 if name.split(",")[0] in SLOPES else "trailing"


class Counted:
    """A denoiser that counts how often it is called."""

    def __init__(self, denoiser: Callable):
        self.denoiser, self.calls = denoiser, 0

    def __call__(self, *args):
        self.calls += 1
        return self.denoiser(*args)


def last(steps: Iterator) -> Tensor:
    """The state at the end of a walk."""
    for step in steps:
        x = step.x
    return x


def walk_for(sampler: Callable, schedule: Schedule, spacing, calls: int) -> tuple[Grid, int]:
    """The longest grid that `sampler` walks with at most `calls` calls, and the calls it makes."""
    for steps in range(calls, 0, -1):
        grid = make_grid(schedule, steps, spacing)
        counted = Counted(lambda x, t, alpha, sigma, cond: x)
        last(sampler(counted, grid, torch.zeros(1, 2)))
        if counted.calls <= calls:
            return grid, counted.calls
    raise ValueError(f"this sampler takes more than {calls} calls for a single step.")


# --- quality --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plane:
    """A set in the plane with two denoisers: one learned, one ideal."""

    name: str
    schedule: Schedule
    learned: Callable
    ideal: Callable

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return plane.sample(self.name, n, generator)


class Curve:
    """The ideal denoiser of a curve that is evenly filled and blurred by a Gaussian of `std`.

    Equal Gaussians strung along it are as good as the real density. Under noise each has variance
    alpha^2 std^2 + sigma^2, and the posterior mean shrinks from `x` toward their weighted mean.
    """

    def __init__(self, means: Tensor, std: float):
        means = means - means.mean(0)
        scale = (means.square().mean() + std**2).sqrt()
        self.ideal, self.variance = IdealDenoiser(means / scale), (std / scale) ** 2

    def __call__(self, x, t, alpha, sigma, cond=None):
        noisy = alpha**2 * self.variance + sigma**2
        mean = self.ideal(x, t, alpha, noisy.sqrt())
        return mean + alpha * self.variance / noisy * (x - alpha * mean)


def spiral(parts: int = 600) -> Curve:
    """Of the set "swiss_roll"."""
    angle = 1.5 * math.pi * (1 + 2 * (torch.arange(parts, dtype=torch.float64) + 0.5) / parts)
    return Curve(torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1), 0.1)


def rings(parts: int = 60) -> Curve:
    """Of the set "rings": as dense on all three, so one has `parts`, the next twice as many."""
    found = []
    for radius in (1, 2, 3):
        angle = torch.arange(parts * radius, dtype=torch.float64) * (2 * math.pi / parts / radius)
        found.append(radius * torch.stack([angle.cos(), angle.sin()], dim=1))
    return Curve(torch.cat(found), 0.06)


def trained(dataset: str, steps: int) -> Diffusion:
    """A diffusion of a set without classes: the shipped one, or one trained here and kept."""
    if dataset == "swiss_roll":
        return load_trained(dataset)
    recipe = PlaneRecipe(f"benchmark_{dataset}", dataset=dataset, steps=steps)
    path = CACHE / f"{recipe.name}_{steps}.safetensors"
    if not path.exists():
        network = recipe.make_network()
        ema = EMA(network, recipe.ema_decay)
        for _ in train_steps(recipe, network, ema):
            pass
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in ema.network.state_dict().items()}, path)
    network = recipe.make_network()
    network.load_state_dict(load_file(path))
    return recipe.diffusion(network.eval().requires_grad_(False))


IDEALS = {"swiss_roll": spiral, "rings": rings, "mixture": lambda: plane.MIXTURE}


def make_plane(name: str, steps: int = 12_000) -> Plane:
    """A set of `IDEALS`, with a network that was trained for so many steps."""
    diffusion = trained(name, steps)
    return Plane(name, diffusion.schedule, diffusion.denoiser(), IDEALS[name]())


distance = partial(sliced_wasserstein, projections=32)


def quality(
    data: Plane, denoiser: Callable, sampler: Callable, grid: Grid, n: int, seeds: int
) -> float:
    """How far `n` samples are from `n` fresh points: the mean over seeds, four sets of points each.

    A seed fixes the starting noise, the fresh points and the noise on the way.
    """
    away = []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        real = [data.draw(n, generator) for _ in range(4)]
        x = grid.sigma[0] * torch.randn(n, 2, generator=generator, dtype=torch.float64)
        noise = lambda x, g=generator: torch.randn(x.shape, generator=g, dtype=x.dtype)  # noqa: E731
        x = last(sampler(denoiser, grid, x, noise=noise))
        away += [distance(x, points) for points in real]
    return statistics.mean(away)


def quality_table(data: Plane, n: int, seeds: int) -> list[list[str]]:
    """A row a sampler: the distance over its floor, of both denoisers at each number of calls."""
    head = [f"{kind} {calls}" for kind in ("learned", "ideal") for calls in CALLS]
    rows = [["sampler", *head]]
    lowest = floor(distance, data.draw, n, draws=100)
    for name, sampler in contenders().items():
        row = [name]
        walks = [walk_for(sampler, data.schedule, spacing_of(name), calls) for calls in CALLS]
        for denoiser in (data.learned, data.ideal):
            for calls, (grid, made) in zip(CALLS, walks, strict=True):
                ratio = quality(data, denoiser, sampler, grid, n, seeds) / lowest
                shown = f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
                row.append(shown + ("" if made == calls else f" ({made})"))
        rows.append(row)
    return rows


# --- overhead -------------------------------------------------------------------------------------

SHAPES = ((2000, 2), (1, 4, 64, 64))
STEPS = 20
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


class Constant(nn.Module):
    """A network that answers the same at once."""

    def __init__(self, shape: tuple):
        super().__init__()
        self.out = nn.Parameter(torch.randn(shape), requires_grad=False)

    def forward(self, x, t, cond):
        return self.out


def pairs() -> dict[str, tuple[Callable, object]]:
    """Each of our samplers that diffusers has as well, with its scheduler."""
    import diffusers

    diffusers.logging.set_verbosity_error()
    s, several = SAMPLERS, diffusers.DPMSolverMultistepScheduler
    single = partial(diffusers.DPMSolverSinglestepScheduler, final_sigmas_type="sigma_min")
    table = {
        "ddim": (s["ddim"], diffusers.DDIMScheduler),
        "ddpm": (s["ddpm"], diffusers.DDPMScheduler),
        "euler": (s["euler"], diffusers.EulerDiscreteScheduler),
        "euler_ancestral": (s["euler_ancestral"], diffusers.EulerAncestralDiscreteScheduler),
        "lcm": (s["lcm"], diffusers.LCMScheduler),
        "heun": (s["heun"], diffusers.HeunDiscreteScheduler),
        "lms": (s["lms"], diffusers.LMSDiscreteScheduler),
        "plms": (s["plms"], partial(diffusers.PNDMScheduler, skip_prk_steps=True)),
        "dpmpp_2m": (s["dpmpp_2m"], several),
        "dpmpp_2m_sde": (s["dpmpp_2m_sde"], partial(several, algorithm_type="sde-dpmsolver++")),
        "dpmpp_3m": (s["dpmpp_3m"], partial(several, solver_order=3)),
        "dpmpp_2s": (s["dpmpp_2s"], diffusers.DPMSolverSinglestepScheduler),
        "dpm_solver": (s["dpm_solver"], partial(single, algorithm_type="dpmsolver")),
        "dpm_solver, order 3": (
            VARIANTS["dpm_solver, order 3"],
            partial(single, algorithm_type="dpmsolver", solver_order=3),
        ),
        "unipc": (s["unipc"], diffusers.UniPCMultistepScheduler),
        "unipc, order 3": (
            VARIANTS["unipc, order 3"],
            partial(diffusers.UniPCMultistepScheduler, solver_order=3),
        ),
    }
    return {name: (ours, make(1000, **SD)) for name, (ours, make) in table.items()}


def spent(run: Callable) -> float:
    """The CPU time of one thread that a call takes, in seconds."""
    started = time.thread_time()
    run()
    return time.thread_time() - started


def overhead(sampler: Callable, scheduler, shape: tuple, rounds: int) -> list[float]:
    """Microseconds a step: diffusers' `step()`, our walk, our walk with `NetworkDenoiser`.

    All are given the same float32 output of a network that predicts eps. Ours counts all that a
    walk does but the network itself. The middle of `rounds` measurements, in turns.
    """
    network, x = Constant(shape), torch.randn(shape)
    grid, out = make_grid(schedule("scaled_linear"), STEPS), network.out
    to_x0 = parameterization("eps").to_x0
    adapter = NetworkDenoiser(network, "eps")

    def plain(x, t, alpha, sigma, cond):
        return to_x0(out.to(x), x, alpha, sigma)

    def theirs():
        state = x
        for t in times:
            state = scheduler.step(out, t, state).prev_sample

    runs = (theirs, lambda: last(sampler(plain, grid, x)), lambda: last(sampler(adapter, grid, x)))
    found = [[] for _ in runs]
    for _ in range(rounds):
        scheduler.set_timesteps(STEPS)
        times = list(scheduler.timesteps)
        for times_of, run in zip(found, runs, strict=True):
            times_of.append(spent(run) / STEPS * 1e6)
    return [statistics.median(times_of) for times_of in found]


def overhead_table(rounds: int) -> list[list[str]]:
    """A row a sampler: for each shape diffusers' time a step, ours, and how many times that is."""
    names = ["x".join(map(str, shape)) for shape in SHAPES]
    rows = [["sampler", *[f"{what} {name}" for name in names for what in COLUMNS]]]
    for name, (sampler, scheduler) in pairs().items():
        row = [name]
        for shape in SHAPES:
            theirs, ours, adapted = overhead(sampler, scheduler, shape, rounds)
            row += [f"{theirs:.0f}", f"{ours:.0f}", f"{adapted:.0f}", f"{ours / theirs:.2f}"]
        rows.append(row)
    return rows


COLUMNS = ("theirs", "ours", "adapter", "ratio")


# --- what is printed ------------------------------------------------------------------------------


def text(rows: list[list[str]]) -> str:
    """Rows as a table for a terminal, the first as its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return "\n".join(lines)


def markdown(rows: list[list[str]]) -> str:
    """Rows as a table for a page; names of `SAMPLERS` are set as code."""
    head, *body = rows
    body = [[_name(row[0]), *row[1:]] for row in body]
    marks = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, marks, *body])


def _name(name: str) -> str:
    first, *rest = name.split(", ")
    return ", ".join([f"`{first}`", *rest])


def machine() -> str:
    """The processor and the versions that were measured."""
    import diffusers

    return (
        f"{processor()}, one thread; Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}, diffusers {diffusers.__version__}"
    )


def write(page: Path, part: str, content: str) -> None:
    """Put `content` between the marks of `part` in a page."""
    begin, end = f"<!-- {part}: begin -->\n", f"<!-- {part}: end -->"
    before, _, rest = page.read_text(encoding="utf8").partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{page.name} has no place marked {part!r}.")
    page.write_text(f"{before}{begin}\n{content}\n\n{end}{after}", encoding="utf8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little training, few points")
    parser.add_argument("--write", action="store_true", help="put the tables into the book's page")
    parser.add_argument("--only", nargs="+", choices=[*IDEALS, "overhead"], help="a part of it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    n, seeds, rounds, steps = (500, 1, 3, 500) if options.quick else (2000, 6, 50, 12_000)
    parts = {"machine": machine()}
    print(parts["machine"])
    for name in options.only or [*IDEALS, "overhead"]:
        if name == "overhead":
            rows, title = overhead_table(rounds), "microseconds of CPU a step"
        else:
            rows = quality_table(make_plane(name, steps), n, seeds)
            title = f"{name}: sliced Wasserstein-1 over the floor, by calls"
        parts[name] = markdown(rows)
        print(f"\n{title}\n{text(rows)}")
    if options.write:
        for part, content in parts.items():
            write(PAGE, part, content)


if __name__ == "__main__":
    main()
