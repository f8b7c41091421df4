"""Logs: a row a step, no step twice, and nothing that stops a run."""

import io
import sys
import types
import warnings

import pytest

from sdlib.training import Log, TrainStep


def step(k):
    return TrainStep(k, 1 / k, 0.1, 2.0)


def test_rows_are_there_at_once(tmp_path):
    log = Log(tmp_path / "logs" / "a.csv")
    log(step(1)), log(step(3))
    lines = (tmp_path / "logs" / "a.csv").read_text().splitlines()
    assert lines == ["step,loss,lr,grad_norm", "1,1.0,0.1,2.0", "3,0.3333333333333333,0.1,2.0"]
    log.close()


def test_a_run_that_goes_on_logs_no_step_twice(tmp_path):
    path = tmp_path / "a.csv"
    with Log(path) as log:
        for k in range(1, 8):
            log(step(k))
    with open(path, "a") as file:
        file.write("1")  # of 18,0.05,0.1: killed in the middle of a row
    with Log(path) as log:
        for k in range(6, 10):
            log(step(k))
    steps = [line.split(",")[0] for line in path.read_text().splitlines()]
    assert steps == ["step", *map(str, range(1, 10))]
    with Log(path) as log:
        log(step(1))
    assert len(path.read_text().splitlines()) == 2  # afresh
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


def test_rows_of_other_columns_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    with Log(path) as scores:
        scores({"step": 1000, "distance, in meters": 0.5})
        with pytest.raises(ValueError, match="got step, other after step, distance"):
            scores({"step": 2000, "other": 0.5})
    with Log(path) as log, pytest.raises(ValueError, match="log to another file"):
        log(step(1001))
    with Log(path) as scores, pytest.raises(ValueError, match="needs a step"):
        scores({"distance": 0.5})
    with Log(path) as scores:
        scores({"step": 2000, "distance, in meters": 0.25})
    assert path.read_text() == 'step,"distance, in meters"\n1000,0.5\n2000,0.25\n'


class Full(io.StringIO):
    def flush(self):
        raise OSError(28, "No space left on device")


def test_a_full_disk_ends_the_log_and_not_the_run(tmp_path, monkeypatch):
    with Log(tmp_path / "a.csv") as log:
        log(step(1))
        monkeypatch.setattr(log, "file", Full())
        with pytest.warns(UserWarning, match="a.csv ends before step 2.*No space left"):
            log(step(2))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            log(step(3))
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 2


def test_only_the_main_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.PartialState.is_main_process", False)
    with Log(tmp_path / "a.csv") as log:
        log(step(1))
    assert not (tmp_path / "a.csv").exists()


class Writer:
    """Stands for TensorBoard's SummaryWriter."""

    made = []

    def __init__(self, folder, purge_step):
        self.made.append(self)
        self.said = [(folder, purge_step)]

    def add_scalar(self, *scalar):
        self.said.append(scalar)

    def close(self):
        self.said.append("closed")


def test_tensorboard_gets_the_same_numbers(tmp_path, monkeypatch):
    module = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    with Log(tmp_path / "scores.csv", tensorboard=tmp_path / "board") as log:
        log({"step": 6, "distance": 0.5})
    assert Writer.made[-1].said == [
        (str(tmp_path / "board"), 6),
        ("scores/distance", 0.5, 6),
        "closed",
    ]


def test_tensorboard_that_is_missing_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "sdlib\[train\]"'):
        Log(tmp_path / "a.csv", tensorboard=tmp_path)
