"""Every model that ships, by name: the data, schedule, network and steps that made it.

`make reproduce` trains them again and compares their cards.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from sdlib.checks import pick
from sdlib.datasets import plane
from sdlib.diffusion import (
    PARAMETERIZATIONS,
    NetworkDenoiser,
    Schedule,
    ddim,
    diffusion_loss,
    make_grid,
    schedule,
)
from sdlib.evaluation import floor, sliced_wasserstein
from sdlib.files import data_path
from sdlib.models import MLP, MLPConfig
from sdlib.training.ema import EMA
from sdlib.training.loop import TrainStep, train

UNLABELLED = 0.1  # Ho & Salimans 2022, table 1: 10 or 20 percent do best


@dataclass(frozen=True)
class Recipe:
    """What to train, on what, and for how long.

    Attributes:
        name: of the model, and of its files in `data/`.
        dataset: a name of `sdlib.datasets.plane`.
        schedule: a name of `sdlib.diffusion.SCHEDULES`, with its options.
        predicts: a parameterization.
        width, depth: the size of the `MLP`.
        steps, batch, lr, ema_decay, seed: of the run.
        classes: how many labels of the data the network is told; 0 for none. It is told "none"
            for a tenth of the samples (`UNLABELLED`), so that it knows the whole as well.
    """

    name: str
    dataset: str = "swiss_roll"
    schedule: str = "cosine"
    schedule_options: dict = field(default_factory=dict)
    predicts: str = "v"
    width: int = 64
    depth: int = 3
    steps: int = 10_000
    batch: int = 512
    lr: float = 3e-3
    ema_decay: float = 0.999
    seed: int = 0
    classes: int = 0

    def make_schedule(self) -> Schedule:
        return schedule(self.schedule, **self.schedule_options)

    def make_network(self) -> MLP:
        sizes = {"width": self.width, "depth": self.depth, "classes": self.classes}
        config = MLPConfig(**sizes, t_max=self.make_schedule().t_max)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return MLP(config)

    def data(
        self, n: int, generator: torch.Generator | None = None, label: int | None = None
    ) -> torch.Tensor:
        """`n` fresh points of what the model learns, `[n, 2]`: of all, or of one class."""
        if label is None:
            return plane.sample(self.dataset, n, generator)
        found = torch.empty(0, 2)
        while len(found) < n:
            x, labels = plane.sample_labelled(self.dataset, n, generator)
            found = torch.cat([found, x[labels == label]])
        return found[:n]

    def batches(self, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, Any]]:
        """Endless fresh points `[batch, 2]` with their classes `[batch]` (or None)."""
        while True:
            x, labels = plane.sample_labelled(self.dataset, self.batch, generator)
            if not self.classes:
                yield x, None
                continue
            dropped = torch.rand(self.batch, generator=generator) < UNLABELLED
            yield x, torch.where(dropped, self.classes, labels)


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in [
        Recipe("swiss_roll", steps=12_000),
        # Chapter 5: the same data, schedule, network and steps; only the target differs.
        *[Recipe(f"predict_{target}", predicts=target) for target in PARAMETERIZATIONS],
        # Chapter 10: a network that is told the class, and a worse one to guide it away from.
        Recipe("branches", dataset="branches", steps=12_000, classes=2),
        Recipe("branches_weak", "branches", width=32, depth=2, steps=1000, classes=2),
    ]
}


def train_steps(
    recipe: Recipe, network: MLP, ema: EMA, checkpoint=None, progress: bool = False
) -> Iterator[TrainStep]:
    """The updates of a recipe, for those who want to watch; `run` does the whole of it."""
    generator = torch.Generator().manual_seed(recipe.seed)
    levels = recipe.make_schedule()
    return train(
        network,
        recipe.batches(generator),
        lambda net, batch, g: diffusion_loss(
            net, batch[0], levels, recipe.predicts, cond=batch[1], generator=g
        ),
        steps=recipe.steps,
        generator=generator,
        lr=recipe.lr,
        ema=ema,
        checkpoint=checkpoint,
        progress=progress,
    )


def run(recipe: Recipe, checkpoint=None, progress: bool = False) -> tuple[MLP, dict]:
    """Train a recipe from its seed: the averaged network, and the card that says how good it is."""
    network = recipe.make_network()
    ema = EMA(network, recipe.ema_decay)
    for _ in train_steps(recipe, network, ema, checkpoint, progress):
        pass
    return ema.network, card(recipe, ema.network)


def labels_of(recipe: Recipe) -> list[int | None]:
    """What its samples are asked for, one after the other: each class, or nothing."""
    return list(range(recipe.classes)) or [None]


def distance_at(recipe: Recipe, network: MLP, steps: int, n: int = 10_000, seeds: int = 5) -> float:
    """How far `n` samples of `steps` DDIM steps are from `n` real points: the mean over seeds.

    If the network knows classes, `n` of each are compared, and the mean is over these as well.
    """
    levels, denoiser = recipe.make_schedule(), NetworkDenoiser(network, recipe.predicts)
    found = []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        for label in labels_of(recipe):
            x = sample(denoiser, levels, n, steps, generator, label)
            found.append(sliced_wasserstein(x, recipe.data(n, generator, label)))
    return sum(found) / len(found)


def card(recipe: Recipe, network: MLP, n: int = 10_000) -> dict:
    """What a trained network is and how good: `distance_at` 5 to 50 steps, and its floor."""
    distances = {str(k): round(distance_at(recipe, network, k, n), 4) for k in (5, 10, 20, 50)}
    draws = [partial(recipe.data, label=label) for label in labels_of(recipe)]
    lowest = sum(floor(sliced_wasserstein, draw, n) for draw in draws) / len(draws)
    return {**asdict(recipe), "sliced_wasserstein": distances, "floor": round(lowest, 4), "n": n}


def sample(
    denoiser: NetworkDenoiser,
    levels: Schedule,
    n: int,
    steps: int,
    generator: torch.Generator,
    label: int | None = None,
) -> torch.Tensor:
    """`n` DDIM samples in the plane, float64 `[n, 2]`; all of one class if `label` is given."""
    grid = make_grid(levels, steps)
    x = grid.sigma[0] * torch.randn(n, 2, generator=generator, dtype=torch.float64)
    cond = None if label is None else torch.full((n,), label)
    for step in ddim(denoiser, grid, x, cond=cond):
        x = step.x
    return x


def save_trained(network: MLP, card: dict, folder: str | os.PathLike) -> Path:
    """Write `<name>.safetensors` and its card `<name>.json`; returns the first."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"{card['name']}.safetensors"
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, weights)
    weights.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    return weights


def load_trained(name: str) -> tuple[MLP, Recipe]:
    """A network that ships with sdlib, ready to sample from, and the recipe that made it."""
    recipe = pick("trained model", RECIPES, name)
    network = recipe.make_network()
    network.load_state_dict(load_file(data_path(f"{name}.safetensors")))
    return network.eval().requires_grad_(False), recipe
