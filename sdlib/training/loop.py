"""The training loop: a generator that takes one step at a time and says how it went.

The caller iterates, so a curve, an early stop or a sample every thousand steps is a plain `for`.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn
from tqdm.auto import tqdm

from sdlib.checks import count
from sdlib.training.ema import EMA

Loss = Callable[[nn.Module, Any, torch.Generator], Tensor]


class TrainingDiverged(RuntimeError):
    """A loss or a gradient stopped being finite; the message says where."""


@dataclass(frozen=True)
class TrainStep:
    """How one update went.

    Attributes:
        step: how many updates have been made, from 1.
        loss: before the update.
        lr: the learning rate it used.
        grad_norm: the length of the gradient before clipping.
    """

    step: int
    loss: float
    lr: float
    grad_norm: float


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """The rate at update `step` of `steps`: a straight rise to `peak`, then half a cosine to 0."""
    if step <= warmup:
        return peak * step / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def train(
    network: nn.Module,
    batches: Iterator,
    loss: Loss,
    *,
    steps: int,
    generator: torch.Generator,
    lr: float = 1e-3,
    warmup: int = 100,
    weight_decay: float = 0.0,
    clip: float = 1.0,
    ema: EMA | None = None,
    checkpoint: str | os.PathLike | None = None,
    save_every: int = 1000,
    progress: bool = False,
) -> Iterator[TrainStep]:
    """Train in place, with AdamW, and yield a `TrainStep` after each update.

    Args:
        network: trained on the device where it stands (small networks are fastest on the CPU, so
            a GPU is not taken unasked); each of several processes moves it to its own device.
        batches: an endless iterator of batches (a tensor, or tensors in tuples, lists and dicts);
            each is moved to the network's device.
        loss: `(network, batch, generator)` -> the scalar to minimize.
        steps: how many updates in all.
        generator: the source of all randomness, on the CPU: hand the same one to `batches`. Its
            state is saved, so a run that was interrupted goes on to the same weights.
        lr, warmup: the peak of the learning rate, and the updates it takes to get there.
        weight_decay: AdamW's.
        clip: the gradient's length is cut to this.
        ema: is updated after each step.
        checkpoint: a file to resume from if it exists, and to save to every `save_every` steps and
            at the end. It is written whole or not at all.
        progress: shows a bar.

    Raises:
        ValueError: for bad arguments, or a checkpoint of another network or run.
        TrainingDiverged: at the first loss or gradient that is not finite; the weights stay as
            they were before that step.
    """
    steps, warmup = count("steps", steps), min(count("warmup", warmup, 0), steps - 1)
    count("save_every", save_every)
    if not clip > 0:
        raise ValueError(f"clip must be positive (math.inf for none); got {clip}.")
    batches = iter(batches)
    # accelerate shares the work among processes, gives each its device, and sets bf16. The steps
    # themselves are plain torch: accelerate's own look for optional packages at every step, which
    # takes longer than a small network.
    accelerator = Accelerator()
    if accelerator.mixed_precision == "fp16":
        raise ValueError("this loop does not scale losses for fp16; set mixed_precision to bf16.")
    alone = accelerator.num_processes == 1
    model = accelerator.prepare_model(network, device_placement=not alone)
    device = next(network.parameters()).device
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=lr, weight_decay=weight_decay, fused=True
    )
    if ema is not None:
        ema.network.to(device)
    done = 0
    if checkpoint is not None and Path(checkpoint).exists():
        done = _resume(Path(checkpoint), steps, network, optimizer, ema, generator)
    model.train()
    bar = tqdm(total=steps, initial=done, disable=not progress, unit="step")
    for step in range(done + 1, steps + 1):
        batch = next(batches, None)
        if batch is None:
            raise ValueError(f"batches ran out after {step - 1} of {steps} steps; it must go on.")
        batch = send_to_device(batch, device)
        value = loss(model, batch, generator)
        now = value.item()
        if not math.isfinite(now):
            raise TrainingDiverged(_where(step, "loss", network, batch))
        value.backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))).item()
        if not math.isfinite(norm):
            raise TrainingDiverged(_where(step, "gradient", network, batch))
        if norm > clip:
            torch._foreach_mul_(gradients, clip / norm)
        rate = learning_rate(step, steps, lr, warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if ema is not None:
            ema.update(network)
        if checkpoint is not None and (step % save_every == 0 or step == steps):
            _save(Path(checkpoint), step, steps, network, optimizer, ema, generator)
        bar.update()
        bar.set_postfix(loss=f"{now:.4f}", refresh=False)
        yield TrainStep(step, now, rate, norm)
    bar.close()


def _where(step: int, what: str, network: nn.Module, batch: Any) -> str:
    """Which tensor went wrong first, for the message of `TrainingDiverged`."""
    tensors = {"the batch": batch} if isinstance(batch, Tensor) else {}
    for name, parameter in network.named_parameters():
        tensors[f"the parameter {name}"] = parameter
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            tensors[f"the gradient of {name}"] = parameter.grad
    bad = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    place = f"the first that is not finite is {bad[0]}" if bad else "batch and weights are finite"
    return (
        f"training stopped at step {step}: the {what} is not finite, and {place}. "
        "The weights are those of the step before; try a lower learning rate or check the data."
    )


def _save(path: Path, step, steps, network, optimizer, ema, generator) -> None:
    state = {
        "step": step,
        "steps": steps,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "ema": None if ema is None else ema.state_dict(),
        "generator": generator.get_state(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    torch.save(state, part)
    os.replace(part, path)


def _resume(path: Path, steps, network, optimizer, ema, generator) -> int:
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        if state["steps"] != steps or (state["ema"] is None) != (ema is None):
            raise ValueError("it was saved by a run with other steps, or with ema the other way")
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        if ema is not None:
            ema.load_state_dict(state["ema"])
        generator.set_state(state["generator"])
    except Exception as error:
        raise ValueError(
            f"{path} is not a checkpoint of this run ({error}); remove it to start afresh."
        ) from error
    return state["step"]
