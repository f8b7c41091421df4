"""What a recipe is, and how one is trained, saved and loaded (Chapter 12).

A recipe says what to build, what to feed it, which loss to minimize and how to judge the result; a
family of models is one file of this folder. Everything else is the same for a Swiss roll and for
Stable Diffusion: the loop, checkpoints, logs, sample sheets, cards.
"""

import hashlib
import json
import os
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import load_file
from torch import Tensor, nn

from sdlib.checks import pick
from sdlib.diffusion import schedule
from sdlib.files import expand
from sdlib.training.checkpoint import whole
from sdlib.training.ema import EMA
from sdlib.training.logs import Log
from sdlib.training.loop import TrainStep, train
from sdlib.weights.files import write

cached_schedule = lru_cache(schedule)  # a training asks for the same one at each step


@dataclass(frozen=True)
class Recipe(ABC):
    """What to train, on what, and for how long. Families add fields, and fill in the methods.

    Attributes:
        name: of the model and of its files.
        steps, batch, lr, warmup, weight_decay, ema_decay, accumulate, seed: of the run.
    """

    name: str
    steps: int = 10_000
    batch: int = 512
    lr: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.0
    ema_decay: float = 0.999
    accumulate: int = 1
    seed: int = 0

    @abstractmethod
    def build(self) -> nn.Module:
        """The network before training; it draws its weights from torch's global generator."""

    @abstractmethod
    def batches(self, generator: torch.Generator) -> Iterable:
        """Endless batches, drawn from `generator`."""

    @abstractmethod
    def loss(self, network: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        """What to minimize, a scalar."""

    @abstractmethod
    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """How good a trained network is: what its card says, as plain data."""

    @abstractmethod
    def compare(
        self, shipped: Mapping[str, Any], again: Mapping[str, Any]
    ) -> list[tuple[str, float, float, float]]:
        """What `reproduce` compares of two cards: (figure, shipped, again, allowed difference)."""

    def validate(self, network: nn.Module) -> dict[str, float]:
        """A few numbers that take a moment, for a row of the log while it trains."""
        return {}

    def sheet(self, network: nn.Module) -> Tensor | None:
        """Samples at fixed seeds as pictures `[n, 3, h, w]` in [-1, 1], if there is one to draw."""
        return None

    def figures(self, card: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What a card says of quality, for people: pairs of a name and a value."""
        known = {field.name for field in fields(self)} | {"training", "sha256"}
        return [(name, str(value)) for name, value in card.items() if name not in known]

    def finished(self, network: nn.Module, card: Mapping[str, Any]) -> Any:
        """The trained network as it is used, ready to sample from: for most, a `Diffusion`."""
        return network

    def make_network(self) -> nn.Module:
        """`build` from the recipe's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.build()

    def with_settings(self, settings: Mapping[str, str]) -> "Recipe":
        """The same with other fields, given as text: `{"lr": "1e-3"}`.

        Raises:
            ValueError: for a field that there is not, or a value of another kind.
        """
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        del known["name"]
        return replace(self, **{k: _parsed(k, pick("setting", known, k), v)
                                for k, v in settings.items()})  # fmt: skip


def _parsed(name: str, like: Any, text: str) -> Any:
    """A value in the type of another: text as it is, all else as JSON."""
    if isinstance(like, str):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if isinstance(like, float) and type(value) is int:
        value = float(value)
    if isinstance(like, tuple) and isinstance(value, list):
        value = tuple(value)
    if type(value) is not type(like):
        raise ValueError(f"{name} must be of the kind of {json.dumps(like)}; got {text!r}.")
    return value


def train_steps(
    recipe: Recipe, network: nn.Module, ema: EMA, checkpoint=None, progress: bool = False, **options
) -> Iterator[TrainStep]:
    """The updates of a recipe, for those who want to watch; `run` does the whole of it."""
    generator = torch.Generator().manual_seed(recipe.seed)
    return train(
        network,
        recipe.batches(generator),
        recipe.loss,
        steps=recipe.steps,
        generator=generator,
        lr=recipe.lr,
        warmup=recipe.warmup,
        weight_decay=recipe.weight_decay,
        accumulate=recipe.accumulate,
        ema=ema,
        checkpoint=checkpoint,
        run={key: str(value) for key, value in asdict(recipe).items()},
        progress=progress,
        **options,
    )


def run(
    recipe: Recipe,
    folder: str | os.PathLike | None = None,
    *,
    device: str | torch.device = "cpu",
    every: int = 1000,
    tensorboard: bool = False,
    progress: bool = False,
) -> tuple[nn.Module, dict]:
    """Train a recipe from its seed: the averaged network, and the card that says how good it is.

    Of several processes, the main one judges, draws and has the figures in its card.

    Args:
        recipe: what to train.
        device: where; by default the CPU, on which small networks are fastest. Of several
            processes, each takes its own.
        folder: keeps a checkpoint that a run goes on from, a CSV file of losses and one of
            validation, and a sheet of samples; none by default.
        every: steps between two checkpoints, validations and sheets.
        tensorboard: log there as well.
        progress: show a bar.
    """
    network = recipe.make_network().to(device)
    ema = EMA(network, recipe.ema_decay)
    main, started, steps = PartialState().is_main_process, time.perf_counter(), 0
    if folder is None:
        for _ in train_steps(recipe, network, ema, progress=progress):
            steps += 1
    else:
        folder = expand(folder)
        board = folder / "tensorboard" if tensorboard else None
        options = {"save_every": every, "progress": progress}
        walk = train_steps(recipe, network, ema, folder / CHECKPOINT, **options)
        with (
            Log(folder / "losses.csv", tensorboard=board) as losses,
            Log(folder / "validation.csv", tensorboard=board) as validation,
        ):
            for step in walk:
                steps += 1
                losses(step)
                if main and (step.step % every == 0 or step.step == recipe.steps):
                    row = recipe.validate(ema.network)
                    if row:
                        validation({"step": step.step, **row})
                    _draw_sheet(recipe, ema.network, folder, step.step)
    spent = {
        "seconds": round(time.perf_counter() - started),
        "steps_trained": steps,
        **hardware(network),
    }
    figures = recipe.evaluate(ema.network) if main else {}
    return ema.network, {**asdict(recipe), **figures, "training": spent}


CHECKPOINT = "checkpoint.pt"


def _draw_sheet(recipe: Recipe, network: nn.Module, folder: Path, step: int) -> None:
    """A sheet of samples as a picture, if the recipe has one to draw."""
    from sdlib import images

    pictures = recipe.sheet(network)
    if pictures is not None:
        images.save(images.sheet(pictures), folder / f"sheet-{step:06}.png")


def hardware(network: nn.Module) -> dict[str, Any]:
    """What a network was trained on: processor or card, threads, torch's version."""
    device = next(network.parameters()).device
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "processor": card or _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
    }


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        rows = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
        return next(row.split(":", 1)[1].strip() for row in rows if row.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def save_trained(network: nn.Module, card: dict, folder: str | os.PathLike) -> Path:
    """Write `<name>.safetensors` and its card `<name>.json` with its SHA-256; returns the first."""
    folder = expand(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"{card['name']}.safetensors"
    write(network.state_dict(), weights)
    card = {**card, "sha256": sha256(weights)}
    with whole(weights.with_suffix(".json")) as file:
        file.write((json.dumps(card, indent=2) + "\n").encode())
    return weights


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_weights(recipe: Recipe, path: Path) -> Any:
    """The trained model of a recipe, from its weights and the card beside them."""
    network = recipe.make_network()
    network.load_state_dict(load_file(path))
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf8"))
    return recipe.finished(network.eval().requires_grad_(False), card)
