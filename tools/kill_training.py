"""Kill a training run again and again, and see that it still ends with the same weights.

    python tools/kill_training.py [kills] [seed]

Trains a small network on shuffled, finite data, with dropout and noise from every source of
randomness there is. First without a break; then it is killed (SIGKILL) at random moments, every
second time while a checkpoint is being written, and started again each time. Status 0: the
weights, their average and the log are the same bit for bit. Needs os.fork (Linux, macOS).
"""

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from sdlib.training import EMA, Log, train  # noqa: E402

STEPS, SAVE_EVERY = 60, 4
save = torch.save


class Shuffled:
    """The rows of a tensor in a new order each epoch, with a position that can be saved."""

    def __init__(self, rows: torch.Tensor, size: int, generator: torch.Generator):
        self.rows, self.size, self.generator = rows, size, generator
        self.order, self.at = [], 0

    def __iter__(self):
        return self

    def __next__(self) -> torch.Tensor:
        if self.at >= len(self.order):
            order = torch.randperm(len(self.rows), generator=self.generator)
            self.order, self.at = order.tolist(), 0
        self.at += self.size
        return self.rows[self.order[self.at - self.size : self.at]]

    def state_dict(self) -> dict:
        return {"order": self.order, "at": self.at}

    def load_state_dict(self, state: dict) -> None:
        self.order, self.at = state["order"], state["at"]


def loss(network: nn.Module, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Guess the noise; some comes from the generator, some from NumPy, some from Python."""
    eps = torch.randn(x.shape, generator=generator)
    eps = eps + 0.1 * torch.from_numpy(np.random.standard_normal(x.shape)).float()
    return (network(x + eps + 0.1 * random.gauss(0, 1)) - eps).square().mean()


def run(folder: Path, pause: float) -> None:
    """The whole run, from its checkpoint on if there is one; `pause` seconds a step."""
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    network = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Dropout(0.2), nn.Linear(16, 2))
    ema, generator = EMA(network, 0.9), torch.Generator().manual_seed(0)
    batches = Shuffled(torch.randn(50, 2), 8, generator)
    options = {"checkpoint": folder / "run.pt", "save_every": SAVE_EVERY, "ema": ema}
    with Log(folder / "log.csv") as log:
        for step in train(
            network, batches, loss, steps=STEPS, generator=generator, accumulate=2, **options
        ):
            log(step)
            time.sleep(pause)
    torch.save([network.state_dict(), ema.network.state_dict()], folder / "end.pt")


def slow_save(folder: Path, pause: float):
    """torch.save as a slow disk would have it: half a file, a pause, and the rest."""

    def write(state, file):
        if not isinstance(file, Path):
            (folder / "writing").touch()
            file.write(b"half a checkpoint" * 500)
            file.flush()
            time.sleep(pause)
            file.seek(0)
            file.truncate()
        save(state, file)
        (folder / "writing").unlink(missing_ok=True)

    return write


def start(folder: Path, pause: float) -> int:
    """A child process that trains; returns its id."""
    child = os.fork()
    if child:
        return child
    try:
        torch.set_num_threads(1)
        torch.save = slow_save(folder, 3 * pause)
        run(folder, pause)
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def end(folder: Path) -> tuple:
    return (folder / "end.pt").read_bytes(), (folder / "log.csv").read_bytes()


def main(kills: int = 20, seed: int = 0) -> int:
    chance, pause = random.Random(seed), 0.01
    with tempfile.TemporaryDirectory() as place:
        calm, stormy = Path(place, "calm"), Path(place, "stormy")
        calm.mkdir(), stormy.mkdir()
        if os.waitpid(start(calm, 0.0), 0)[1]:
            return 1
        inside = 0
        for kill in range(kills):
            (stormy / "writing").unlink(missing_ok=True)
            child = start(stormy, pause)
            if kill % 2:
                time.sleep(chance.uniform(0, 0.4))
            else:
                while not (stormy / "writing").exists() and not (stormy / "end.pt").exists():
                    time.sleep(0.001)
                time.sleep(chance.uniform(0, 2 * pause))
            os.kill(child, signal.SIGKILL)
            died = os.waitpid(child, 0)[1] == signal.SIGKILL
            inside += died and any(stormy.glob("*.part"))
            log = stormy / "log.csv"
            rows = len(log.read_text().splitlines()) - 1 if log.exists() else 0
            print(f"kill {kill + 1}: {rows} steps logged{'' if died else ', had ended'}")
        if os.waitpid(start(stormy, 0.0), 0)[1]:
            return 1
        same, left = end(calm) == end(stormy), list(stormy.glob("*.part"))
        print(f"{kills} kills, {inside} inside a write; the same end: {same}; left over: {left}")
        return 0 if same and not left and (inside or not kills) else 1


if __name__ == "__main__":
    torch.optim.AdamW([torch.zeros(1)])  # imports much of torch, once and not in every child
    sys.exit(main(*map(int, sys.argv[1:])))
