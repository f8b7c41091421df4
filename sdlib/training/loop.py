"""The training loop: a generator that takes one step at a time and says how it went.

The caller iterates, so a curve, an early stop or a sample every thousand steps is a plain `for`.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from sdlib.checks import pick, whole_number
from sdlib.training.batches import Batches, describe, move, tensors
from sdlib.training.checkpoint import Checkpoint
from sdlib.training.ema import EMA, trainable
from sdlib.training.processes import Processes

Loss = Callable[[nn.Module, Any, torch.Generator], Tensor]

PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingDiverged(RuntimeError):
    """A loss or a gradient stopped being finite; the message says where."""


@dataclass(frozen=True)
class TrainStep:
    """How one update went.

    Attributes:
        step: how many updates have been made, from 1.
        loss: before the update; the mean over micro-batches and processes.
        lr: the learning rate it used.
        grad_norm: the length of the gradient before clipping. In fp16 it is not finite now and
            then: that update was left out, and the next ones scale the loss by less.
    """

    step: int
    loss: float
    lr: float
    grad_norm: float


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """The rate at update `step` of `steps`: a straight rise to `peak`, then half a cosine.

    The cosine reaches 0 one step after the last, so that every update moves the weights.
    """
    if step <= warmup:
        return peak * step / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup + 1)))


def train(
    network: nn.Module,
    batches: Iterable,
    loss: Loss,
    *,
    steps: int,
    generator: torch.Generator,
    parameters: Iterable[nn.Parameter] | None = None,
    lr: float = 1e-3,
    warmup: int = 100,
    weight_decay: float = 0.0,
    clip: float = 1.0,
    accumulate: int = 1,
    precision: str | None = None,
    ema: EMA | None = None,
    checkpoint: str | os.PathLike | None = None,
    save_every: int = 1000,
    run: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Iterator[TrainStep]:
    """Train in place, with AdamW, and yield a `TrainStep` after each update.

    Several processes (`accelerate launch`) all draw the same batches, take a share each, and make
    the update that one process would make; times, noise and dropout are drawn apart.

    Args:
        network: trained on the device where it stands (small networks are fastest on the CPU, so
            a GPU is not taken unasked); each of several processes moves it to its own device.
            Parts that are trained together are an `nn.ModuleDict`. Parts that hold no trained
            parameter are in eval mode.
        batches: an endless iterable of batches (a tensor, or tensors in tuples, lists and dicts);
            each is moved to the network's device. Its position is saved if it has `state_dict`
            and `load_state_dict`.
        loss: `(network, batch, generator)` -> the scalar to minimize.
        steps: how many updates in all.
        generator: the source of all randomness, on the CPU: hand the same one to `batches`. Its
            state is saved, so a run that was interrupted goes on to the same weights.
        parameters: what of the network to train; by default all that requires a gradient.
        lr, warmup: the peak of the learning rate, and the updates it takes to get there.
        weight_decay: AdamW's.
        clip: the gradient's length is cut to this.
        accumulate: batches an update; the gradient is the mean of theirs.
        precision: "no", "bf16" or "fp16" (on CUDA, with scaled losses) under `torch.autocast`; by
            default what `accelerate launch --mixed_precision` says. The weights stay as they are.
        ema: is updated after each step.
        checkpoint: a file to resume from if it exists, and to save to every `save_every` steps and
            at the end. It is written whole or not at all, when the next step is asked for: what
            the caller does with a step, such as drawing samples, belongs to it.
        run: further facts of the run by name, such as its data set; a checkpoint with others is
            refused, as is one with another learning rate.
        progress: shows a bar.

    Raises:
        ValueError: for bad arguments, or a checkpoint of another network or run.
        TrainingDiverged: at the first loss or gradient that is not finite; the weights stay as
            they were before that step.
    """
    steps, accumulate = whole_number("steps", steps), whole_number("accumulate", accumulate)
    warmup, save_every = whole_number("warmup", warmup, 0), whole_number("save_every", save_every)
    warmup = min(warmup, steps - 1)
    if not clip > 0:
        raise ValueError(f"clip must be positive (math.inf for none); got {clip}.")
    processes, batches = Processes(), Batches(batches)
    trained = trainable(network, parameters)
    weights = list(trained.values())
    processes.place(network)
    device = weights[0].device
    if ema is not None:
        _check_average(ema, trained)
        processes.place(ema.network.to(device))
    precision = precision or processes.mixed_precision
    autocast, scaler = mixed_precision(precision, device)
    optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=weight_decay, fused=True)
    noise = processes.draw_apart(generator)
    facts = {
        **_describe(network, trained),
        **(run or {}),
        "steps": steps,
        "lr": float(lr),
        "warmup": warmup,
        "weight_decay": float(weight_decay),
        "clip": float(clip),
        "accumulate": accumulate,
        "precision": precision,
        "processes": processes.count,
        "ema": "none" if ema is None else float(ema.decay),
        "batches.state_dict": "yes" if batches.resumable else "no",
    }
    file = Checkpoint(
        path=None if checkpoint is None else Path(checkpoint),
        facts={name: str(value) for name, value in facts.items()},
        network=network,
        trained=trained,
        ema=ema,
        optimizer=optimizer,
        scaler=scaler,
        batches=batches,
        generators=list(dict.fromkeys([generator, noise])),
        device=device,
        processes=processes,
    )
    done = file.start()
    if done < steps:
        processes.check_same(done, batches)
    _set_modes(network, weights)
    # Other leaves get no gradient. Where there are none, autograd need not ask: that is quicker.
    leaves = sum(p.requires_grad for p in network.parameters())
    inputs = None if leaves == len(weights) else weights
    hidden = not (progress and processes.main)
    bar = _Bar(range(done + 1, steps + 1), total=steps, initial=done, disable=hidden, unit="step")
    for step in bar:
        _clear(weights)
        now = 0.0
        for _ in range(accumulate):
            batch = batches.next()
            if batch is None:
                raise ValueError(
                    f"batches ran out after {step - 1} of {steps} steps; it must go on."
                )
            batch = move(processes.share(batch), device)
            with autocast():
                value = loss(network, batch, noise)
            if not value.requires_grad:
                raise ValueError("the loss does not depend on any parameter that is trained.")
            mean = processes.mean(value)
            if not math.isfinite(mean):
                raise _diverged(step, "loss", network, batch, processes)
            now += mean / accumulate
            scaler.scale(value if accumulate == 1 else value / accumulate).backward(inputs=inputs)
        processes.average_gradients(weights)
        gradients = [p.grad for p in weights if p.grad is not None]
        if not gradients:
            raise ValueError("the loss does not depend on any parameter that is trained.")
        scaler.unscale_(optimizer)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))).item()
        finite = math.isfinite(norm)
        if not finite and scaler.get_scale() <= 1:  # no fault of the scale, which is 1 without fp16
            raise _diverged(step, "gradient", network, batch, processes)
        if norm > clip:
            torch._foreach_mul_(gradients, clip / norm)
        rate = learning_rate(step, steps, lr, warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        scaler.step(optimizer)  # leaves out an update that is not finite
        scaler.update()
        if ema is not None and finite:
            ema.update(network)
        bar.show(now)
        yield TrainStep(step, now, rate, norm)
        if checkpoint is not None and (step % save_every == 0 or step == steps):
            file.save(step, last=step == steps)
    _clear(weights)


def mixed_precision(name: str, device: torch.device) -> tuple[Callable, torch.amp.GradScaler]:
    """What to compute a loss under, and what scales it: both do nothing where there is no need.

    Raises:
        ValueError: for an unknown precision, or for fp16 where losses cannot be scaled.
    """
    dtype = pick("precision", PRECISIONS, name)
    if dtype is torch.float16 and device.type != "cuda":
        raise ValueError(f"fp16 needs a CUDA device, and the network is on {device}; use bf16.")
    autocast = nullcontext if dtype is None else partial(torch.autocast, device.type, dtype)
    return autocast, torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)


class _Bar(tqdm):
    """A bar whose failed print ends the bar and not the training."""

    def display(self, *args, **kwargs):
        try:
            return super().display(*args, **kwargs)
        except OSError:
            self.disable = True

    def show(self, loss: float) -> None:
        if not self.disable:
            self.set_postfix(loss=f"{loss:.4f}", refresh=False)


def _clear(weights: list[nn.Parameter]) -> None:
    for parameter in weights:
        parameter.grad = None


def _describe(network: nn.Module, trained: Mapping) -> dict[str, str]:
    """Type, shape and part of each parameter: a network as a checkpoint knows it."""
    return {
        name: f"{describe(p)} ({'trained' if name in trained else 'frozen'})"
        for name, p in network.named_parameters()
    }


def _check_average(ema: EMA, trained: Mapping) -> None:
    missing = [name for name in trained if name not in ema.averages]
    if missing:
        raise ValueError(
            f"ema does not average {missing[0]}, which is trained; "
            "make it from the network as it is trained."
        )


def _set_modes(network: nn.Module, weights: list[nn.Parameter]) -> None:
    """Train mode for all that holds a trained parameter; eval mode for frozen parts."""
    trained = set(map(id, weights))
    for module in network.train().modules():
        own = set(map(id, module.parameters()))
        if own and not own & trained:
            module.eval()


def _diverged(
    step: int, what: str, network: nn.Module, batch: Any, processes: Processes
) -> TrainingDiverged:
    """The error that all processes raise, with the first tensor that went wrong in any of them."""
    named = [*network.named_parameters(), *network.named_buffers()]
    places = [
        *tensors(batch),
        *((f"parameter {name}", value) for name, value in named),
        *((f"gradient of {name}", p.grad) for name, p in named if p.grad is not None),
    ]
    bad = (name for name, value in places if not bool(torch.isfinite(value).all()))
    found = next((name for name in processes.gather(next(bad, None)) if name), None)
    place = (
        f"the first that is not finite is the {found}" if found else "batch and weights are finite"
    )
    return TrainingDiverged(
        f"training stopped at step {step}: the {what} is not finite, and {place}. "
        "The weights are those of the step before; try a lower learning rate or check the data."
    )
