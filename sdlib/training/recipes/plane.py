"""Points in the plane: the recipes of chapters 1 to 10, each a small MLP."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sdlib.datasets import plane
from sdlib.diffusion import (
    PARAMETERIZATIONS,
    Denoiser,
    Diffusion,
    Schedule,
    ddim,
    make_grid,
    parameterization,
    sample,
)
from sdlib.dtypes import FLOAT32, FLOAT64
from sdlib.evaluation import floor, sliced_wasserstein
from sdlib.models import MLP, MLPConfig
from sdlib.training.recipes.recipe import Recipe, cached_schedule

UNLABELLED = 0.1  # Ho & Salimans 2022, table 1: 10 or 20 percent do best


@dataclass(frozen=True)
class PlaneRecipe(Recipe):
    """An MLP that learns a set of points.

    Attributes:
        dataset: a name of `sdlib.datasets.plane`.
        schedule: a name of `sdlib.diffusion.SCHEDULES`, with its options.
        predicts: a parameterization.
        width, depth: the size of the `MLP`.
        classes: how many labels of the data the network is told; 0 for none. It is told "none"
            for a tenth of the samples (`UNLABELLED`), so that it knows the whole as well.
    """

    dataset: str = "swiss_roll"
    schedule: str = "cosine"
    schedule_options: dict = field(default_factory=dict)
    predicts: str = "v"
    width: int = 64
    depth: int = 3
    classes: int = 0

    def make_schedule(self) -> Schedule:
        return cached_schedule(self.schedule, **self.schedule_options)

    def build(self) -> MLP:
        sizes = {"width": self.width, "depth": self.depth, "classes": self.classes}
        # EDM tells its network the logarithm of the noise, from about -1.5 to 1.5
        t_max = 1.0 if self.predicts == "edm" else self.make_schedule().t_max
        return MLP(MLPConfig(**sizes, t_max=t_max))

    def finished(self, network: nn.Module, card: Mapping[str, Any]) -> Diffusion:
        return self.diffusion(network)

    def diffusion(self, network: nn.Module) -> Diffusion:
        return Diffusion(network, self.make_schedule(), parameterization(self.predicts))

    def batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Any]]:
        """Endless fresh points `[batch, 2]` with their classes `[batch]` (or None)."""
        while True:
            x, labels = plane.sample_labelled(self.dataset, self.batch, generator)
            if not self.classes:
                yield x, None
                continue
            dropped = torch.rand(self.batch, generator=generator, **FLOAT32) < UNLABELLED
            yield x, torch.where(dropped, self.classes, labels)

    def loss(self, network: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        x0, label = batch
        return self.diffusion(network).loss(x0, label, generator=generator)

    def evaluate(self, network: nn.Module, n: int = 10_000) -> dict[str, Any]:
        """The distance of `n` samples at 5 to 50 DDIM steps, and its floor."""
        distances = {str(k): round(self.distance_at(network, k, n), 4) for k in (5, 10, 20, 50)}
        draws = [partial(self.data, label=label) for label in self.labels]
        lowest = sum(floor(sliced_wasserstein, draw, n) for draw in draws) / len(draws)
        return {"sliced_wasserstein": distances, "floor": round(lowest, 4), "n": n}

    def figures(self, card: Mapping[str, Any]) -> list[tuple[str, str]]:
        lowest = card["floor"]
        return [
            (
                f"sliced W1 to the data, {steps} DDIM steps",
                f"{d:.4f} ({d / lowest:.2f} x the floor)",
            )
            for steps, d in card["sliced_wasserstein"].items()
        ]

    def compare(self, shipped: Mapping[str, Any], again: Mapping[str, Any]) -> list:
        """Distances may be off by a quarter, or half the floor if that is more.

        Other processors round otherwise, and thousands of updates make a slightly other network.
        """
        lowest = again["floor"]
        return [
            (f"{steps} DDIM steps", old, again["sliced_wasserstein"][steps],
             max(0.25 * old, 0.5 * lowest))
            for steps, old in shipped["sliced_wasserstein"].items()
        ]  # fmt: skip

    @property
    def labels(self) -> list[int | None]:
        """What samples are asked for, one after the other: each class, or nothing."""
        return list(range(self.classes)) or [None]

    def data(
        self, n: int, generator: torch.Generator | None = None, label: int | None = None
    ) -> Tensor:
        """`n` fresh points of what the model learns, `[n, 2]`: of all, or of one class."""
        if label is None:
            return plane.sample(self.dataset, n, generator)
        found = torch.empty(0, 2, **FLOAT32)
        while len(found) < n:
            x, labels = plane.sample_labelled(self.dataset, n, generator)
            found = torch.cat([found, x[labels == label]])
        return found[:n]

    def distance_at(self, network: nn.Module, steps: int, n: int = 10_000, seeds: int = 5) -> float:
        """How far `n` samples of `steps` DDIM steps are from `n` real points: the mean over seeds.

        If the network knows classes, `n` of each are compared, and the mean is over these as well.
        """
        denoiser, found = self.diffusion(network).denoiser(), []
        for seed in range(seeds):
            generator = torch.Generator().manual_seed(seed)
            for label in self.labels:
                x = sample_points(denoiser, self.make_schedule(), n, steps, generator, label)
                found.append(sliced_wasserstein(x, self.data(n, generator, label)))
        return sum(found) / len(found)


def sample_points(
    denoiser: Denoiser,
    schedule: Schedule,
    n: int,
    steps: int,
    generator: torch.Generator,
    label: int | None = None,
) -> Tensor:
    """`n` DDIM samples in the plane, float64 `[n, 2]`; all of one class if `label` is given."""
    grid = make_grid(schedule, steps)
    x = grid.sigma[0] * torch.randn(n, 2, generator=generator, **FLOAT64)
    return sample(
        ddim(
            denoiser, grid, x, cond=None if label is None else torch.full((n,), label, device="cpu")
        )
    )


RECIPES = [
    PlaneRecipe("swiss_roll", steps=12_000),
    # Chapter 5: the same data, schedule, network and steps; only the target differs.
    *[PlaneRecipe(f"predict_{target}", predicts=target) for target in PARAMETERIZATIONS],
    # Chapter 10: a network that is told the class, and a worse one to guide it away from.
    PlaneRecipe("branches", dataset="branches", steps=12_000, classes=2),
    PlaneRecipe("branches_weak", dataset="branches", width=32, depth=2, steps=1000, classes=2),
]
