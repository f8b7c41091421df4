"""This project beside its peers, on one spiral: speed of training, quality, speed of sampling.

    make benchmark                # all of it: about five minutes on one core
    python benchmarks/plane.py --quick

The data is the spiral of smalldiffusion's README. Each contender trains and samples as its own
README or published settings say:

- smalldiffusion (PyPI): 100 fixed points, log-linear sigmas, 15,000 steps, its accelerated sampler;
- a plain loop with tiny-diffusion's settings: 8,000 points, batch 32, 200 epochs, T = 50, DDPM;
- sdlib: the recipe "swiss_roll" on fresh points of the same spiral, DDIM.

Quality is the sliced Wasserstein-1 distance to fresh points over its floor (two real sets).
Prints figures; asserts nothing.
"""

import argparse
import math
import sys
import time
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

from sdlib.evaluation import floor, sliced_wasserstein
from sdlib.training import EMA, RECIPES, train
from sdlib.training.recipes.plane import sample_points

torch.set_num_threads(1)
STEPS = (5, 10, 20, 50)
SIZES = (1_000, 10_000)
SCALE = 0.47  # brings the spiral to variance 1


def import_smalldiffusion():
    """smalldiffusion; its image transforms ask for torchvision, which points do not need."""
    sys.modules["torchvision"] = MagicMock()
    import smalldiffusion

    return smalldiffusion


def spiral(n: int, generator: torch.Generator | None = None) -> Tensor:
    """Points of smalldiffusion's `Swissroll(pi/2, 5 pi, N)`, drawn evenly in t, at variance 1."""
    t = math.pi / 2 + torch.rand(n, generator=generator) * 5 * math.pi
    return torch.stack([t * t.cos(), t * t.sin()], dim=1) / (5 * math.pi) / SCALE


def batches(n: int, generator: torch.Generator):
    while True:
        yield spiral(n, generator)


# --- the contenders: each trains, and gives (seconds, draw(n, steps, seed) -> points) -----------


def sdlib_(quick: bool, steps: int | None = None):
    recipe, generator = RECIPES["swiss_roll"], torch.Generator().manual_seed(0)
    network = recipe.make_network()
    ema = EMA(network, recipe.ema_decay)
    started = time.perf_counter()
    for _ in train(
        network,
        batches(recipe.batch, generator),
        lambda net, x0, g: recipe.diffusion(net).loss(x0, generator=g),
        steps=steps or recipe.steps // (20 if quick else 1),
        generator=generator,
        lr=recipe.lr,
        ema=ema,
    ):
        pass
    seconds = time.perf_counter() - started
    trained = recipe.diffusion(ema.network)

    def draw(n, steps, seed):
        generator = torch.Generator().manual_seed(seed)
        x = sample_points(trained.denoiser(), trained.schedule, n, steps, generator)
        return x.float()

    return seconds, draw


def smalldiffusion_(quick: bool):
    sd = import_smalldiffusion()
    torch.manual_seed(0)
    data = sd.Swissroll(math.pi / 2, 5 * math.pi, 100)
    loader = torch.utils.data.DataLoader(data, batch_size=2048)
    schedule = sd.ScheduleLogLinear(N=200, sigma_min=0.005, sigma_max=10)
    model = sd.TimeInputMLP(hidden_dims=(16, 128, 128, 128, 128, 16))
    started = time.perf_counter()
    for _ in sd.training_loop(loader, model, schedule, epochs=750 if quick else 15_000):
        pass
    seconds = time.perf_counter() - started

    def draw(n, steps, seed):
        torch.manual_seed(seed)
        *_, x = sd.samples(model, schedule.sample_sigmas(steps), gam=2, batchsize=n)
        return x / SCALE

    return seconds, draw


class Sinusoid(nn.Module):
    """tiny-diffusion's features of a scalar: 64 cosines and sines of scale * value."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def forward(self, value: Tensor) -> Tensor:
        rate = torch.exp(-math.log(10_000) / 63 * torch.arange(64))
        angle = self.scale * value.unsqueeze(-1) * rate
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(128, 128)

    def forward(self, x: Tensor) -> Tensor:
        return x + nn.functional.gelu(self.layer(x))


def plain_loop(quick: bool):
    torch.manual_seed(0)
    coordinate, clock = Sinusoid(25.0), Sinusoid(1.0)
    network = nn.Sequential(
        nn.Linear(3 * 128, 128), nn.GELU(), *[Residual() for _ in range(3)], nn.Linear(128, 2)
    )

    def predict(x, t):
        return network(torch.cat([coordinate(x[:, 0]), coordinate(x[:, 1]), clock(t)], dim=1))

    betas = torch.linspace(1e-4, 0.02, 50)
    bar = torch.cumprod(1 - betas, 0)
    data = torch.utils.data.TensorDataset(spiral(8_000))
    loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True, drop_last=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    started = time.perf_counter()
    for _ in range(2 if quick else 200):
        for (x0,) in loader:
            t = torch.randint(50, (len(x0),))
            eps = torch.randn_like(x0)
            x = bar[t, None].sqrt() * x0 + (1 - bar[t, None]).sqrt() * eps
            loss = nn.functional.mse_loss(predict(x, t.float()), eps)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    seconds = time.perf_counter() - started

    @torch.no_grad()
    def draw(n, steps, seed):
        """Its DDPM loop; fewer steps than 50 walk every (50 / steps)-th time."""
        torch.manual_seed(seed)
        x = torch.randn(n, 2)
        times = (50 * (1 - torch.arange(steps) / steps)).round().long() - 1
        for t, before in zip(times, [*times[1:], torch.tensor(-1)], strict=True):
            a, b = bar[t], bar[before] if before >= 0 else torch.tensor(1.0)
            eps = predict(x, t.float().expand(n))
            x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
            variance = (1 - b) / (1 - a) * (1 - a / b)
            x = b.sqrt() * x0 + (1 - b - variance).clamp(min=0).sqrt() * eps
            x = x + variance.sqrt() * torch.randn(n, 2)
        return x

    return seconds, draw


# --- what is measured ----------------------------------------------------------------------------


def quality(draw, seeds: int, sizes=SIZES, counts=STEPS) -> dict:
    """Mean distance over its floor, for each number of steps and size of set."""
    ratios = {}
    for n in sizes:
        lowest = floor(sliced_wasserstein, spiral, n, draws=20)
        for steps in counts:
            away = sum(
                sliced_wasserstein(
                    draw(n, steps, seed), spiral(n, torch.Generator().manual_seed(1000 + seed))
                )
                for seed in range(seeds)
            )
            ratios[n, steps] = away / seeds / lowest
    return ratios


def rates(steps: int) -> tuple[float, float]:
    """Training steps a second on smalldiffusion's network at its batch of 100: ours, theirs."""
    sd = import_smalldiffusion()
    schedule = sd.ScheduleLogLinear(N=200, sigma_min=0.005, sigma_max=10)
    make = lambda: sd.TimeInputMLP(hidden_dims=(16, 128, 128, 128, 128, 16))  # noqa: E731

    def ours():
        def loss(net, x0, generator):
            sigma = schedule.sample_batch(x0)[:, None]
            return net.get_loss(x0, sigma, torch.randn(x0.shape, generator=generator))

        generator = torch.Generator().manual_seed(0)
        return train(make(), batches(100, generator), loss, steps=steps, generator=generator)

    def theirs():
        loader = torch.utils.data.DataLoader(
            sd.Swissroll(math.pi / 2, 5 * math.pi, 100), batch_size=2048
        )
        return sd.training_loop(loader, make(), schedule, epochs=steps)

    best = {}
    for _ in range(3):  # alternating, so that a busy machine is unfair to both
        for name, loop in (("ours", ours), ("theirs", theirs)):
            started = time.perf_counter()
            for _ in loop():
                pass
            rate = steps / (time.perf_counter() - started)
            best[name] = max(rate, best.get(name, 0))
    return best["ours"], best["theirs"]


def lengths(quick: bool):
    """Yield (steps, seconds, ratio) of sdlib trained for longer and longer.

    The ratio is that of 1,000 samples of 20 steps. Each length is a run of its own, with its own
    fall of the learning rate, so this says how long a given quality takes.
    """
    for steps in (250,) if quick else (500, 1000, 2000, 4000, 8000):
        seconds, draw = sdlib_(quick, steps)
        yield steps, seconds, quality(draw, 1 if quick else 5, (1000,), (20,))[1000, 20]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a twentieth of the training")
    quick = parser.parse_args().quick
    seeds = 1 if quick else 5
    contenders = {
        "sdlib": sdlib_,
        "smalldiffusion": smalldiffusion_,
        "tiny-diffusion's settings": plain_loop,
    }
    ours, theirs = rates(200 if quick else 2000)
    print(f"training steps a second, same network and batch of 100: sdlib {ours:.0f}, "
          f"smalldiffusion {theirs:.0f} ({ours / theirs:.1f} times)")  # fmt: skip
    print("\nsliced Wasserstein-1 over the floor (1 is as good as data)")
    head = " ".join(f"{f'{n:,} x {k}':>11}" for n in SIZES for k in STEPS)
    print(f"{'points x steps':28}{head} {'train s':>9} {'sample ms':>10}")
    for name, make in contenders.items():
        seconds, draw = make(quick)
        ratios = quality(draw, seeds)
        draw(1000, 20, 0)
        started = time.perf_counter()
        for seed in range(5):
            draw(1000, 20, seed)
        milliseconds = 1000 * (time.perf_counter() - started) / 5
        row = " ".join(f"{ratio:11.2f}" for ratio in ratios.values())
        print(f"{name:28}{row} {seconds:9.1f} {milliseconds:10.1f}")
    print("\nsdlib, 1,000 points of 20 steps, by length of training")
    for steps, seconds, ratio in lengths(quick):
        print(f"{steps:6,} steps {seconds:6.1f} s {ratio:6.2f} times the floor")


if __name__ == "__main__":
    main()
