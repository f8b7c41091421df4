"""What the sections share: sizes, the folder of weights, and the pipelines of both sides."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import sd15
from benchmarks.gpu.report import sentence
from sdlib.models import AutoencoderKL, StableDiffusionConfig, UNet
from sdlib.pipeline import StableDiffusion

OURS, THEIRS = "sdlib", "diffusers"


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        networks: the sizes whose results are compared between devices; the last is measured.
        pixels, steps: of a picture.
        checked: pixels a side of what is compared between devices.
        batches: images at once, to find the best.
        matmul: rows of the matrices whose product sets the card's peak.
        rounds, seconds: at most so many repetitions, and after so many seconds no further.
    """

    networks: tuple[str, ...] = ("tiny", "sd15")
    pixels: int = 512
    steps: int = 20
    checked: int = 256
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    matmul: int = 8192
    rounds: int = 5
    seconds: float = 15.0


SIZES = {
    "sd15": Size(),
    "tiny": Size(("tiny",), 64, 2, 64, (1, 2), matmul=128, rounds=1),
}


@dataclass
class Bench:
    """A device, a size, and what was loaded for them.

    Attributes:
        device: "cuda" or "cpu".
        size: one of `SIZES`.
        folder: where weights of each size are, or are put.
        absent: why there is no other side to compare with; None where there is.
        matmul: TFLOP/s of a large matrix product by precision, once they are measured.
    """

    device: str
    size: Size
    folder: Path
    absent: str | None = None
    matmul: dict[str, float] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        """The precision that is measured."""
        return "float16" if self.device == "cuda" else "float32"

    def job(self, part: str = "image", side: str = OURS, **changes) -> sd15.Job:
        """A job for `sd15.runner` and its like."""
        who = "ours" if side == OURS else "theirs"
        settings = {"device": self.device, "dtype": self.dtype, "size": self.size.pixels}
        settings |= {"folder": str(self.weights(self.size.networks[-1])), "steps": self.size.steps}
        settings |= {"threads": torch.get_num_threads()}
        return sd15.Job(part, who, **(settings | changes))

    def weights(self, name: str) -> Path:
        """The folder of the random weights of a size, drawn once."""
        path = self.folder / name
        if not path.exists():
            sd15.write_weights(path, tiny=name == "tiny")
        return path

    def load(self, name: str, device: str, dtype: str, **more) -> StableDiffusion:
        """Ours, in some size."""
        return StableDiffusion.load(self.weights(name), device=device, dtype=dtype, **more)

    @cached_property
    def ours(self) -> StableDiffusion:
        return sd15.load(self.job())

    @cached_property
    def theirs(self):
        """diffusers' pipeline of the same weights, or None, and `absent` says why."""
        try:
            return sd15.load(self.job(side=THEIRS))
        except Exception as error:
            self.absent = f"without diffusers, which could not be loaded: {sentence(error)}"
            return None

    @property
    def sides(self) -> dict:
        """Both pipelines by name, or ours alone."""
        return {OURS: self.ours} | ({} if self.theirs is None else {THEIRS: self.theirs})


# --- measuring ------------------------------------------------------------------------------------


def timed(bench: Bench, run: Callable, pipe) -> tuple[float, float]:
    """Seconds of a call, and the GB that its pipeline then needs at most.

    On a card that is the weights of the pipeline there, and what was in use beyond what was before:
    so other pipelines may be there as well. On a CPU it is all that the process has.
    """
    weights = sum(p.nbytes for p in parameters(pipe) if p.device.type == "cuda")
    sd15.forget_peak(bench.device)
    before, _ = sd15.memory(bench.device)
    seconds = sd15.timed(bench.job(), run)
    others = before - weights if bench.device == "cuda" else 0
    return seconds, (sd15.memory(bench.device)[1] - others) / 1e9


def parameters(pipe):
    """All weights of a pipeline of either side."""
    text = pipe.text if isinstance(pipe, StableDiffusion) else pipe.text_encoder
    for network in (text, pipe.unet, pipe.vae):
        yield from network.parameters()


@dataclass(frozen=True)
class Figures:
    """What repeated calls took: seconds at least and in the middle, and GB at most."""

    least: float
    median: float
    memory: float


def alternate(bench: Bench, runs: dict[str, Callable], pipes: dict) -> dict[str, Figures]:
    """The figures of each of `runs`, which take turns; they have run before."""
    found, until = {name: [] for name in runs}, time.monotonic() + bench.size.seconds
    for _ in range(bench.size.rounds):
        for name, run in runs.items():
            found[name].append(timed(bench, run, pipes[name]))
        if time.monotonic() > until:
            break
    columns = {name: list(zip(*pairs, strict=True)) for name, pairs in found.items()}
    return {
        name: Figures(min(seconds), statistics.median(seconds), max(memory))
        for name, (seconds, memory) in columns.items()
    }


# --- work -----------------------------------------------------------------------------------------


@cache
def flops(name: str, part: str, pixels: int) -> int:
    """Of one sample through the U-Net ("unet") or the decoder ("decode"), counted on no data.

    A multiplication and an addition are two, as for a card's peak.
    """
    config, small = getattr(StableDiffusionConfig, name)(), pixels // 8
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        x = torch.empty(1, 4, small, small)
        if part == "unet":
            context = torch.empty(1, config.text.length, config.unet.context_width)
            UNet(config.unet)(x, torch.empty(1), context)
        else:
            AutoencoderKL(config.vae).decode(x)
    return counter.get_total_flops()


def picture_flops(name: str, pixels: int, steps: int) -> int:
    """Of a picture with guidance by PLMS, which asks the U-Net once more than it takes steps."""
    return 2 * (steps + 1) * flops(name, "unet", pixels) + flops(name, "decode", pixels)
