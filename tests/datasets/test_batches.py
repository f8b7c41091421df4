"""Batches: each sample once an epoch, in an order that a seed repeats and a state resumes."""

import io

import pytest
import torch
from PIL import Image

from sdlib.datasets.batches import Batches, collate
from sdlib.datasets.folder import Folder


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def take(batches, n):
    return [next(batches) for _ in range(n)]


@pytest.mark.parametrize("n, batch", [(6, 3), (7, 3), (5, 5), (3, 8), (1, 2)])
def test_each_epoch_is_a_fresh_permutation(n, batch):
    epochs = 12
    found = take(Batches(torch.arange(n), batch, gen()), epochs * n // batch)
    assert all(len(b) == batch for b in found)
    order = torch.cat(found)[: epochs * n // batch * batch // n * n].view(-1, n)
    assert (order.sort(1).values == torch.arange(n)).all()
    assert n == 1 or len({tuple(epoch) for epoch in order.tolist()}) > 2


def test_a_seed_repeats_the_order():
    a, b, c = (torch.stack(take(Batches(torch.arange(9), 4, gen(s)), 9)) for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def saved_and_loaded(state):
    """A state as a checkpoint keeps it: through a file that may hold nothing but tensors."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("done", [0, 1, 2, 3, 7])
def test_a_state_resumes_to_the_bit(done):
    first = Batches(torch.arange(10), 4, gen(3))
    take(first, done)
    state = saved_and_loaded(first.state_dict())
    want = torch.stack(take(first, 10))
    again = Batches(torch.arange(10), 4, gen(99))
    take(again, 2)
    for _ in range(2):  # the state itself is not used up
        again.load_state_dict(state)
        assert torch.equal(torch.stack(take(again, 10)), want)


@pytest.mark.parametrize("shared", [True, False])
def test_random_crops_resume_too(tmp_path, shared):
    for k in range(5):
        gradient = Image.linear_gradient("L").resize((16 + 8 * k, 64))
        gradient.save(tmp_path / f"{k}.png")
        (tmp_path / f"{k}.txt").write_text(str(k))

    def make(seed):
        order = gen(seed)
        return Batches(Folder(tmp_path, 16, order if shared else gen(seed + 50)), 2, order)

    first = make(0)
    take(first, 3)
    state = saved_and_loaded(first.state_dict())
    want, again = take(first, 6), make(1)
    again.load_state_dict(state)
    for (x, texts), (y, others) in zip(want, take(again, 6), strict=True):
        assert x.shape == (2, 3, 16, 16) and torch.equal(x, y) and texts == others
    with pytest.raises(
        ValueError, match="samples 5, generators 2 .*; here samples 5, generators 1"
    ):
        Batches(Folder(tmp_path, 16), 2, gen()).load_state_dict(state)


def test_a_state_of_other_data_changes_nothing():
    here = Batches(torch.arange(6), 4, gen())
    want = torch.stack(take(Batches(torch.arange(6), 4, gen()), 5))
    message = "in other data: samples 7, generators 1 .*; here samples 6, generators 1"
    with pytest.raises(ValueError, match=message):
        here.load_state_dict(Batches(torch.arange(7), 4, gen(1)).state_dict())
    assert torch.equal(torch.stack(take(here, 5)), want)


def test_samples_are_collated():
    x = torch.rand(3, 2)
    assert torch.equal(collate(list(x)), x)
    pixels, (labels, texts) = collate([(a, (torch.tensor(k), str(k))) for k, a in enumerate(x)])
    assert torch.equal(pixels, x) and labels.tolist() == [0, 1, 2] and texts == ["0", "1", "2"]


def test_it_is_an_iterator():
    batches = Batches(torch.arange(4), 2, gen())
    assert iter(batches) is batches


def test_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match="data must hold at least one sample"):
        Batches([], 2, gen())
    with pytest.raises(ValueError, match="batch must be a whole number, at least 1; got 0"):
        Batches([1], 0, gen())
