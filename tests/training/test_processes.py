"""Two processes: the update that one would make, randomness drawn apart, and a common end.

The processes are forked, since that is quicker than to import torch anew, and talk over gloo.
"""

import os
import signal
import socket
import time
import traceback

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from sdlib.training import EMA, Log, TrainingDiverged, train

LIMIT = 100  # seconds, after which processes that wait for each other are ended
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def launch(work, folder, count=2):
    """`work(rank, folder)` in `count` processes, as `accelerate launch` would start them; returns
    what each of them returned.
    """
    torch.optim.AdamW([torch.zeros(1)])  # imports much of torch, once and not in every process
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [os.fork() or _work(work, folder, rank, count, port) for rank in range(count)]
    waiting, until = set(children), time.monotonic() + LIMIT
    while waiting and time.monotonic() < until:
        waiting -= {child for child in waiting if os.waitpid(child, os.WNOHANG)[0]}
        time.sleep(0.01)
    for child in waiting:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert not waiting, "the processes wait for each other"
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


def _work(work, folder, rank, count, port):
    found = "ended early"
    try:
        torch.set_num_threads(1)
        AcceleratorState._reset_state(reset_partial_state=True)
        os.environ |= {
            **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"},
        }
        found = work(rank, folder)
    except BaseException:
        found = traceback.format_exc()
    finally:
        torch.save(found, folder / f"{rank}.pt")
        os._exit(0)


class Two(nn.Module):
    """A network with a part that only some processes use, and one that none does."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        conv = nn.Conv2d(8, 8, 3, padding=1).to(memory_format=torch.channels_last)
        self.body = nn.Sequential(
            nn.Linear(2, 32), nn.SiLU(), nn.Unflatten(1, (8, 2, 2)), conv, nn.Flatten(),
            nn.Linear(32, 2),
        )  # fmt: skip
        self.some, self.none = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))


def regress(net, batch, generator):
    x, y = batch
    out = net.body(x)
    return (out - y).square().mean() + (net.some.sum() if x[0, 0] > 0 else 0)


def data(seed=0, size=8):
    g = torch.Generator().manual_seed(seed)
    while True:
        x = torch.randn(size, 2, generator=g)
        x[:, 0] = x[:, 0].abs() * torch.tensor([1.0, -1.0]).repeat(size // 2)  # ranks differ
        yield x, x.flip(1)


def fit(seed=0, **options):
    net = Two(seed)
    ema = EMA(net, 0.5)
    options = {"accumulate": 2, "weight_decay": 0.1, "lr": 0.01, "warmup": 2, "ema": ema} | options
    run = train(net, data(), regress, steps=8, generator=torch.Generator(), **options)
    return net, ema, list(run)


def as_numbers(net, ema, steps):
    weights = [p.detach() for p in [*net.parameters(), *ema.network.parameters()]]
    return weights, [s.grad_norm for s in steps], [s.loss for s in steps]


def equal_work(rank, folder):
    return as_numbers(*fit(seed=rank))  # rank 1 starts with the main one's weights


def both(net, batch, generator):
    """`regress` on each half of a batch: what two processes do, in one."""
    return sum(regress(net, [rows[i::2] for rows in batch], generator) for i in (0, 1)) / 2


def test_two_processes_make_the_update_of_one(tmp_path):
    one, two = launch(equal_work, tmp_path)
    net = Two()
    ema = EMA(net, 0.5)
    options = {"accumulate": 2, "weight_decay": 0.1, "lr": 0.01, "warmup": 2, "ema": ema}
    run = list(train(net, data(), both, steps=8, generator=torch.Generator(), **options))
    weights, norms, losses = as_numbers(net, ema, run)
    for found in (one, two):
        assert not isinstance(found, str), found
        for mine, theirs in zip(weights, found[0], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)
        assert found[1] == pytest.approx(norms, rel=1e-4)
        assert found[2] == pytest.approx(losses, rel=1e-5)
    assert net.none.item() == 1  # without a gradient there is no decay either
    assert all(torch.equal(p, q) for p, q in zip(one[0], two[0], strict=True))


def noisy_work(rank, folder):
    """What each rank draws; a run in one go and one that was stopped; and errors for both."""
    drawn, saved, replace = [], [], os.replace
    os.replace = lambda part, path: saved.append(path.suffix) or replace(part, path)

    def noisy(net, batch, generator):
        x, y = batch
        keep = nn.functional.dropout(torch.ones(len(x), 2), 0.5)
        eps = torch.randn(len(x), 2, generator=generator)
        drawn.append((x[:, 1].clone(), eps, keep))
        return (net.body(x + eps) * keep - y).square().mean()

    def run(path, last=20, batches=None, loss=noisy):
        net, g = Two(), torch.Generator().manual_seed(3)
        options = {"steps": 9, "generator": g, "warmup": 2, "checkpoint": path, "save_every": 3}
        mine = batches or (torch.randn(2, 8, 2, generator=g).unbind() for _ in iter(int, 1))
        with Log(folder / "log.csv") as log:
            for step in train(net, mine, loss, **options):
                log(step)
                if step.step == last:
                    break
        return [p.detach() for p in net.parameters()]

    def error(kind, **options):
        try:
            run(None, **options)
        except kind as found:
            return str(found)

    whole = run(folder / "a.pt")
    first = list(drawn)
    run(folder / "b.pt", last=8)
    resumed = run(folder / "b.pt")

    def broken():
        yield from [(torch.ones(8, 2), torch.ones(8, 2))] * 2
        bad = torch.ones(8, 2)
        bad[3] = torch.nan  # in the share of rank 1
        yield torch.ones(8, 2), bad

    def steep(net, batch, generator):
        if rank == 1:
            net.body[0].bias.register_hook(lambda gradient: gradient * torch.inf)
        return regress(net, batch, generator)

    errors = [
        error(TrainingDiverged, batches=broken(), loss=regress),
        error(TrainingDiverged, batches=data(), loss=steep),
        error(ValueError, batches=data(seed=rank)),
        error(ValueError, batches=[(torch.ones(7, 2), torch.ones(7, 2))]),
    ]
    return first, whole, resumed, errors, saved.count(".pt")


def test_processes_draw_apart_resume_and_end_together(tmp_path):
    one, two = launch(noisy_work, tmp_path)
    assert not isinstance(one, str), one
    assert not isinstance(two, str), two
    for mine, theirs in zip(one[0], two[0], strict=True):
        assert len(mine[0]) == 4
        assert not any(torch.equal(p, q) for p, q in zip(mine, theirs, strict=True))
    for found in (one, two):
        assert all(torch.equal(p, q) for p, q in zip(found[1], found[2], strict=True))
    assert (one[4], two[4]) == (6, 0)  # the main process writes
    assert one[3] == two[3]
    nan, infinite, seeds, odd = one[3]
    assert "step 3: the loss" in nan and "first that is not finite is the batch[1]" in nan
    assert "step 1: the gradient" in infinite and "the gradient of body.0.bias" in infinite
    assert "do not draw the same batches" in seeds
    assert "2 processes cannot share a batch of 7" in odd
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["0.pt", "1.pt", "a.pt", "b.pt", "log.csv"]
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "1", "2"]  # the run up to the NaN
