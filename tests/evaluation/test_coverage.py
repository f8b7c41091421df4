"""Precision and recall: by hand on small sets, and what they must tell apart."""

import numpy as np
import pytest
import torch

from sdlib.evaluation import precision_recall
from sdlib.evaluation.coverage import inside, radii


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(n, seed=0):
    return torch.randn(n, 2, generator=gen(seed), dtype=torch.float64)


LINE = torch.tensor([[0.0], [1.0], [3.0], [7.0]])


def test_radii_by_hand():
    assert radii(LINE, k=1).tolist() == [1, 1, 2, 4]
    assert radii(LINE, k=2).tolist() == [3, 2, 3, 6]
    assert radii(LINE, k=3).tolist() == [7, 6, 4, 7]


def test_inside_by_hand():
    """With k = 1 the balls are [-1, 1], [0, 2], [1, 5] and [3, 11]; edges count."""
    points = torch.tensor([[-1.01], [-1.0], [4.9], [11.0], [11.01]])
    assert inside(points, LINE, k=1).tolist() == [False, True, True, True, False]


def test_precision_and_recall_by_hand():
    made = torch.tensor([[0.5], [0.6], [20.0], [-5.0]])  # with k = 1: balls of 0.1, 0.1, 19.4, 5.5
    assert precision_recall(LINE, made, k=1) == (0.5, 1.0)
    made = torch.tensor([[0.5], [0.6], [0.7]])
    assert precision_recall(LINE, made, k=1) == (1.0, 0.0)
    made = torch.tensor([[1.0], [0.9], [3.0], [3.05]])
    assert precision_recall(LINE, made, k=1) == (1.0, 0.5)


def test_two_draws_of_one_law_score_high_and_alike():
    precision, recall = precision_recall(normal(1000, 1), normal(1000, 2))
    assert precision > 0.95 and recall > 0.95


def test_they_tell_too_narrow_from_too_wide():
    """Too little spread keeps precision and loses recall; too much does the opposite."""
    narrow, wide = 0.3 * normal(1000, 2), 2.5 * normal(1000, 2)
    precision, recall = precision_recall(normal(1000, 1), narrow)
    assert precision > 0.98 and recall < 0.6
    precision, recall = precision_recall(normal(1000, 1), wide)
    assert precision < 0.7 and recall > 0.95


def test_a_dropped_mode_costs_recall_alone():
    both = torch.cat([normal(500, 1) - 5, normal(500, 2) + 5])
    precision, recall = precision_recall(both, normal(1000, 3) - 5)
    assert precision > 0.93 and recall == pytest.approx(0.5, abs=0.03)


def test_swapped_sets_swap_the_two():
    a, b = normal(300, 1), 0.6 * normal(300, 2)
    assert precision_recall(a, b) == precision_recall(b, a)[::-1]


def test_larger_k_means_larger_regions():
    a, b = normal(300, 1), normal(300, 2) + 1
    scores = [precision_recall(a, b, k) for k in (1, 3, 10)]
    assert scores[0][0] < scores[1][0] < scores[2][0]
    assert scores[0][1] < scores[1][1] < scores[2][1]


def test_large_sets_go_in_parts_and_arrays_do():
    a, b = normal(2500, 1), normal(1500, 2)
    want = torch.cdist(b, a) <= torch.cdist(a, a).sort(1).values[:, 3]
    assert precision_recall(np.asarray(a), b.numpy())[0] == want.any(1).double().mean().item()


def test_bad_sets_are_refused():
    good = normal(10)
    with pytest.raises(ValueError, match=r"more than 3 rows; got shape \(3, 2\)"):
        precision_recall(good, normal(3))
    with pytest.raises(ValueError, match="must be"):
        precision_recall(good, torch.randn(10))
    with pytest.raises(ValueError, match="one dimension; got 3 and 2"):
        precision_recall(good, torch.randn(10, 3))
    with pytest.raises(ValueError, match="finite"):
        precision_recall(good, good / 0)
    with pytest.raises(ValueError, match="k must be a whole number"):
        precision_recall(good, good, k=1.5)
