"""The digits: their shape, scale and labels, and what is said where scikit-learn is missing."""

import sys

import pytest
import torch

from sdlib.datasets.digits import digits


def test_digits_are_small_images_with_labels():
    x, labels = digits()
    assert x.shape == (1797, 1, 8, 8) and x.dtype == torch.float32
    assert x.min() == -1 and x.max() == 1 and len(x.unique()) == 17
    assert labels.dtype == torch.int64 and labels.bincount().tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip


def test_a_label_belongs_to_its_image():
    """The nearest mean, from the first half, reads most of the second half right."""
    x, labels = digits()
    means = torch.stack([x[:900][labels[:900] == k].mean(0).flatten() for k in range(10)])
    read = torch.cdist(x[900:].flatten(1), means).argmin(1)
    assert (read == labels[900:]).float().mean() > 0.8


def test_without_scikit_learn_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match="the digits come with scikit-learn.*pip install"):
        digits()
