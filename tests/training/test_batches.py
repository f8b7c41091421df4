"""Nested batches: their tensors' names, shares, fingerprints; and an iterator that looks ahead."""

from collections import namedtuple

import pytest
import torch

from sdlib.training.batches import Batches, digest, move, share, tensors

Pair = namedtuple("Pair", "x words")


def nested():
    rows = torch.arange(8).reshape(4, 2)
    return {"a": [rows, None], "b": Pair(rows.float(), ["i", "j", "k", "l"]), "c": torch.tensor(5)}


def test_tensors_are_named_by_their_place():
    assert [name for name, _ in tensors(nested())] == [
        "batch['a'][0]",
        "batch['b'][0]",
        "batch['c']",
    ]
    assert [name for name, _ in tensors(torch.ones(1))] == ["batch"]


def test_shares_are_disjoint_and_all():
    parts = [share(nested(), rank, 2) for rank in (0, 1)]
    assert parts[1]["a"][0].tolist() == [[2, 3], [6, 7]] and parts[1]["a"][1] is None
    assert isinstance(parts[0]["b"], Pair) and parts[0]["b"].words == ["i", "k"]
    assert parts[0]["c"] == parts[1]["c"] == 5
    with pytest.raises(ValueError, match="3 processes.*4 samples.*multiple of 3"):
        share(nested(), 0, 3)


def test_moving_keeps_the_form():
    moved = move(nested(), torch.device("meta"))
    assert {tensor.device.type for _, tensor in tensors(moved)} == {"meta"}
    assert moved["b"].words == ["i", "j", "k", "l"] and moved["a"][1] is None


def test_digests_tell_batches_apart():
    one = digest(nested())
    assert one == digest(nested())
    changed = nested()
    changed["b"].x[3, 1] += 1e-6
    assert digest(changed) != one
    assert digest(torch.zeros(2, 3)) != digest(torch.zeros(3, 2))
    assert len({digest(torch.zeros(2, dtype=t)) for t in (torch.bool, torch.bfloat16)}) == 2


def test_a_look_ahead_takes_nothing():
    batches = Batches([1, 2])
    batches.start()
    assert [batches.peek(), batches.peek(), batches.next(), batches.next()] == [1, 1, 1, 2]
    assert batches.peek() is None and batches.next() is None
    assert not batches.resumable and batches.state_dict() is None
