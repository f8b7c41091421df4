"""Checkpoints: what they hold, which are refused and how, and what becomes of a run killed."""

import importlib.util
import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sdlib.datasets import plane
from sdlib.training import EMA, train

ROOT = Path(__file__).resolve().parents[2]


def setup(seed=0, width=8):
    torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
    net = nn.Sequential(nn.Linear(2, width), nn.Dropout(0.2), nn.Linear(width, 2))
    return net, EMA(net, 0.9), torch.Generator().manual_seed(seed)


def loss(net, x0, generator):
    """Draws from each source of randomness there is."""
    eps = torch.randn(x0.shape, generator=generator) + random.gauss(0, 1)
    eps = eps + torch.from_numpy(np.random.standard_normal(x0.shape)).float()
    return (net(x0 + eps) - eps).square().mean()


def go(net, ema, generator, path, **options):
    options = {"steps": 20, "lr": 0.01, "warmup": 5, "save_every": 6, "batch": 16} | options
    batches = plane.stream("rings", options.pop("batch"), generator)
    return train(net, batches, loss, generator=generator, ema=ema, checkpoint=path, **options)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def stop_at(step, run):
    for made in run:
        if made.step == step:
            run.close()
            return


def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path):
    whole, e1, g1 = setup()
    losses = [s.loss for s in go(whole, e1, g1, tmp_path / "a.pt")]
    net, e2, g2 = setup()
    stop_at(15, go(net, e2, g2, tmp_path / "b.pt"))  # between two saves
    net, e3, g3 = setup(seed=7)  # all of it comes from the file
    resumed = list(go(net, e3, g3, tmp_path / "b.pt"))
    assert [s.step for s in resumed] == list(range(13, 21))
    assert [s.loss for s in resumed] == losses[12:]
    assert same(whole, net) and same(e1.network, e3.network)
    assert torch.equal(g1.get_state(), g3.get_state())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "b.pt"]
    net, ema, g = setup(seed=8)
    assert list(go(net, ema, g, tmp_path / "b.pt")) == [] and same(whole, net)


def test_what_is_drawn_between_steps_belongs_to_the_step(tmp_path):
    """A sample drawn after step 6 is not drawn again by a run that goes on from there."""

    def run(path, last=20):
        net, ema, g = setup()
        for step in go(net, ema, g, path):
            if step.step in (6, 9):
                torch.randn(3), np.random.random(), random.random()
            if step.step == last:
                break
        return net

    whole = run(tmp_path / "a.pt")
    run(tmp_path / "b.pt", last=8)
    assert same(whole, run(tmp_path / "b.pt"))


OTHER = {
    "lr": ({"lr": 0.03}, "with lr 0.01, and this run has 0.03"),
    "steps": ({"steps": 30}, "with steps 20, and this run has 30"),
    "warmup": ({"warmup": 4}, "with warmup 5, and this run has 4"),
    "decay": ({"weight_decay": 0.1}, "with weight_decay 0.0, and this run has 0.1"),
    "clip": ({"clip": 2}, "with clip 1.0, and this run has 2.0"),
    "accumulate": ({"accumulate": 2}, "with accumulate 1, and this run has 2"),
    "precision": ({"precision": "bf16"}, "with precision no, and this run has bf16"),
    "batch": ({"batch": 8}, r"with batch float32 \[16, 2\], and this run has float32 \[8, 2\]"),
    "data": ({"run": {"data": "mixture"}}, "with data rings, and this run has mixture"),
    "no data": ({"run": {}}, "with data rings, and this run has none"),
    "more": ({"run": {"data": "rings", "seed": 3}}, "without seed, and this run has 3"),
    "several": ({"lr": 0.1, "steps": 9, "warmup": 1, "clip": 9}, "; and 1 more differ"),
}


def refused(path, match, net, ema, generator, **options):
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=match) as caught:
        next(go(net, ema, generator, path, **options))
    after = net.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    return str(caught.value)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The file of a run that was stopped at step 15."""
    path = tmp_path_factory.mktemp("stopped") / "a.pt"
    stop_at(15, go(*setup(), path, run={"data": "rings"}))
    return path


@pytest.mark.parametrize("options, match", OTHER.values(), ids=OTHER)
def test_another_run_is_refused_by_name(stopped, options, match):
    before = stopped.read_bytes()
    options = {"run": {"data": "rings"}} | options
    message = refused(stopped, match, *setup(seed=1), **options)
    assert "not a checkpoint of this run" in message and "remove it to start afresh" in message
    assert stopped.read_bytes() == before


def test_another_network_is_refused_by_name(stopped):
    run = {"run": {"data": "rings"}}
    net, _, g = setup(1)
    refused(stopped, "with ema 0.9, and this run has none", net, None, g, **run)
    refused(stopped, "with ema 0.9, and this run has 0.5", net, EMA(net, 0.5), g, **run)
    refused(stopped, r"0.weight float32 \[8, 2\] .*has float32 \[9, 2\]", *setup(1, 9), **run)
    net, _, g = setup(1)
    net[2].bias.requires_grad_(False)
    refused(stopped, r"2.bias .*trained.* has .*frozen", net, EMA(net, 0.9), g, **run)


def test_another_number_of_processes_is_refused_by_name(stopped, tmp_path):
    state = torch.load(stopped, weights_only=True)
    state["facts"]["processes"] = "4"
    torch.save(state, tmp_path / "a.pt")
    match = "with processes 4, and this run has 1"
    refused(tmp_path / "a.pt", match, *setup(1), run={"data": "rings"})


def damage(state, key):
    if key == "random":
        state["random"][0]["torch"] = torch.zeros(3, dtype=torch.uint8)
    elif key == "optimizer":
        state["optimizer"][0]["exp_avg"] = torch.zeros(5)
    elif key == "network":
        state["network"]["0.bias"] = torch.zeros(3)
    elif key == "ema":
        del state["ema"]["network"]["0.bias"]
    elif key == "step":
        state["step"] = 0
    else:
        del state["facts"]


@pytest.mark.parametrize("key", ["random", "optimizer", "network", "ema", "step", "facts"])
def test_damage_is_found_before_anything_is_loaded(stopped, tmp_path, key):
    state = torch.load(stopped, weights_only=True)
    damage(state, key)
    torch.save(state, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "not a checkpoint", *setup(1), run={"data": "rings"})


@pytest.mark.parametrize("kind", ["page", "empty", "cut", "list"])
def test_other_files_are_refused(stopped, tmp_path, kind):
    whole, path = stopped.read_bytes(), tmp_path / "a.pt"
    path.write_bytes({"page": b"<html>", "empty": b"", "cut": whole[:-200]}.get(kind, b""))
    if kind == "list":
        torch.save([1], path)
    refused(path, "not a checkpoint of this run.*remove it", *setup())


def test_hostile_checkpoints_do_not_run(stopped, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    state = torch.load(stopped, weights_only=True)
    torch.save({**state, "batches": Evil()}, tmp_path / "evil.pt")
    refused(tmp_path / "evil.pt", "not a checkpoint", *setup())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "error, passed",
    [
        (OSError(5, "Input/output error"), OSError),
        (MemoryError("too much"), MemoryError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError),
    ],
)
def test_errors_that_are_not_the_files_pass(stopped, monkeypatch, error, passed):
    def load(*args, **options):
        raise error

    monkeypatch.setattr("torch.load", load)
    with pytest.raises(passed, match=str(error.args[-1])):
        next(go(*setup(), stopped))


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tmp_path, monkeypatch):
    save, path = torch.save, tmp_path / "a.pt"
    stop_at(7, go(*setup(), path))
    good = path.read_bytes()

    def half(state, file):
        file.write(good[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", half)
    with pytest.warns(UserWarning, match="step 12 was not saved.*No space left"):
        stop_at(13, go(*setup(), path))
    assert path.read_bytes() == good and list(tmp_path.iterdir()) == [path]
    monkeypatch.setattr("torch.save", save)
    net, ema, g = setup()
    assert [s.step for s in go(net, ema, g, path)][0] == 7  # what is there is whole


def test_a_folder_that_cannot_be_is_said_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        next(go(*setup(), tmp_path / "file" / "a.pt"))
    (tmp_path / "b.pt.0123.part").write_text("of a run that was killed")
    stop_at(1, go(*setup(), tmp_path / "b.pt"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


class Rows:
    """Ten rows in turn; with a position that can be saved, if `state_dict` is asked for it."""

    def __init__(self):
        self.rows = torch.arange(10.0)[:, None].repeat(1, 2)
        self.at = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.at += 1
        return self.rows[self.at % 10 : self.at % 10 + (3 if self.at % 4 else 1)]


class Saved(Rows):
    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class Odd(Saved):
    def state_dict(self):
        return {"order": {"at": np.int64(self.at)}}


def run_on(batches, path, last=20):
    net, ema, g = setup()
    options = {"steps": 20, "generator": g, "save_every": 6, "checkpoint": path}
    for step in train(net, batches, loss, **options):
        if step.step == last:
            break
    return net


def test_data_with_a_position_go_on_where_they_stopped(tmp_path):
    whole = run_on(Saved(), tmp_path / "a.pt")
    run_on(Saved(), tmp_path / "b.pt", last=8)
    assert same(whole, run_on(Saved(), tmp_path / "b.pt"))  # batches of 3 and 1 rows: no other run


def test_data_without_a_position_are_told_of(tmp_path):
    run_on(Rows(), tmp_path / "a.pt", last=8)
    again = Rows()
    again.at = 2  # the same shape as the batch that comes next, and other numbers
    with pytest.warns(UserWarning, match="data do not go on where they stopped"):
        run_on(again, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="batches.state_dict no, and this run has yes"):
        run_on(Saved(), tmp_path / "a.pt")


def test_a_position_that_could_not_be_read_again_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"state\['order'\]\['at'\] is a int64"):
        run_on(Odd(), tmp_path / "a.pt")


def test_what_was_computed_is_saved_when_the_data_break(tmp_path):
    def breaking(generator):
        for _ in range(6):
            yield torch.randn(4, 2, generator=generator)
        raise KeyError("row 24")

    net, _, g = setup()
    options = {"generator": g, "checkpoint": tmp_path / "a.pt", "save_every": 6}
    with pytest.raises(KeyError, match="row 24"):
        list(train(net, breaking(g), loss, steps=20, **options))
    assert torch.load(tmp_path / "a.pt", weights_only=True)["step"] == 6


def test_six_numbers_make_a_small_file(tmp_path):
    net = nn.ModuleDict({"words": nn.Embedding(3, 2), "body": nn.Linear(1000, 1000)})
    net["body"].requires_grad_(False)
    options = {"steps": 1, "generator": torch.Generator(), "checkpoint": tmp_path / "a.pt"}
    call = lambda net, x, g: net["words"](x).square().mean()  # noqa: E731
    list(train(net, [torch.arange(3)], call, ema=EMA(net), **options))
    assert (tmp_path / "a.pt").stat().st_size < 40_000  # the states of randomness, for the most


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_run_that_is_killed_ends_with_the_same_weights(capsys):
    spec = importlib.util.spec_from_file_location("kill", ROOT / "tools" / "kill_training.py")
    kill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kill)
    assert kill.main(kills=3) == 0, capsys.readouterr()
    assert "the same end: True" in capsys.readouterr().out


def test_an_infinite_clip_is_a_fact_like_any_other(tmp_path):
    stop_at(7, go(*setup(), tmp_path / "a.pt", clip=math.inf))
    refused(tmp_path / "a.pt", "with clip inf, and this run has 1.0", *setup())
