"""The Frechet distance: by hand, against the matrix square root, and its bias in n."""

import pytest
import torch

from sdlib.evaluation.frechet import _at_zero, extrapolated, frechet_distance


def normal(n, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def test_on_a_line_it_is_known():
    """(m - m')^2 + (s - s')^2, with the unbiased standard deviations."""
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [7.0]])
    assert frechet_distance(a, b) == pytest.approx((1 - 4) ** 2 + (2**0.5 - 18**0.5) ** 2)


@pytest.mark.parametrize("n", [5, 300])  # fewer samples than dimensions, and more
def test_it_is_the_formula_of_covariances(n):
    a, b = normal(n, 8, 1), 2 * normal(n + 1, 8, 2) @ normal(8, 8, 3) + 1
    product = torch.linalg.eigvals(a.T.cov() @ b.T.cov())
    traces = a.T.cov().trace() + b.T.cov().trace() - 2 * product.sqrt().real.sum()
    want = (a.mean(0) - b.mean(0)).square().sum() + traces
    assert frechet_distance(a, b) == pytest.approx(want.item(), rel=1e-5)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 3) == pytest.approx(9 * 8)


def test_few_samples_are_biased_and_the_line_corrects_it():
    real, made = normal(20000, 16, 1), normal(2000, 16, 2)
    best, found = extrapolated(real, made)
    sizes, distances = zip(*found, strict=True)
    assert sizes[0] == 200 and sizes[-1] == 2000 and len(found) == 8
    assert distances[0] > 5 * distances[-1]
    assert distances[-1] == pytest.approx(frechet_distance(real, made))
    assert abs(best) < 0.3 * distances[-1]


def test_a_line_is_followed_to_zero():
    assert _at_zero([(0.1, 3.2), (0.2, 3.4), (0.5, 4.0)]) == pytest.approx(3)


def test_bad_features_are_refused():
    good = normal(30, 4)
    with pytest.raises(ValueError, match=r"real must be \[n, d\] with at least two rows"):
        frechet_distance(good[0], good)
    with pytest.raises(ValueError, match="one dimension; got 4 and 3"):
        frechet_distance(good, good[:, :3])
    with pytest.raises(ValueError, match="finite"):
        frechet_distance(good, good / 0)
    with pytest.raises(ValueError, match="at least 20 rows; got 10"):
        extrapolated(good, good[:10])
