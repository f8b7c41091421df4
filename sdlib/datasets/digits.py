"""Handwritten digits, 8 x 8 pixels: real images that are small enough to train on in seconds."""

import torch
from torch import Tensor


def digits() -> tuple[Tensor, Tensor]:
    """All 1,797 digits, float32 `[1797, 1, 8, 8]` from -1 (paper) to 1 (ink), and which each is.

    The test half of Alpaydin & Kaynak's optical recognition of handwritten digits (UCI, 1998), as
    scikit-learn ships it: 17 gray levels. The labels are int64 `[1797]`, from 0 to 9.

    Raises:
        ModuleNotFoundError: without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the digits come with scikit-learn, which is missing here: pip install scikit-learn."
        ) from error
    found = load_digits()
    pixels = torch.from_numpy(found.images).float()[:, None] / 8 - 1
    return pixels, torch.from_numpy(found.target).long()
