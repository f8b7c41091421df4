"""Spherical interpolation: arcs of even speed, lengths kept, and the corners where arcs fail."""

import math

import pytest
import torch

from sdlib.diffusion import slerp
from sdlib.diffusion.interpolation import across


def pair(b=6, *shape):
    g = torch.Generator().manual_seed(0)
    return torch.randn(2, b, *(shape or (5,)), generator=g, dtype=torch.float64)


def lengths(x):
    return x.flatten(1).norm(dim=1)


def test_a_quarter_circle_by_hand():
    a, b = torch.tensor([[[2.0, 0.0]], [[0.0, 2.0]]], dtype=torch.float64)
    third = slerp(a, b, 1 / 3)
    torch.testing.assert_close(third, torch.tensor([[math.sqrt(3), 1.0]], dtype=torch.float64))


def test_ends_are_the_noises_themselves():
    a, b = pair()
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)


def test_is_shoemakes_formula_where_lengths_agree():
    a, b = pair()
    b = b * (lengths(a) / lengths(b))[:, None]
    angle = torch.arccos((a * b).sum(1, keepdim=True) / lengths(a)[:, None] ** 2)
    for u in (0.1, 0.5, 0.8):
        known = (torch.sin((1 - u) * angle) * a + torch.sin(u * angle) * b) / angle.sin()
        torch.testing.assert_close(slerp(a, b, u), known)


def test_length_goes_evenly_and_direction_turns_evenly():
    a, b = pair(1)
    u = torch.linspace(0, 1, 9, dtype=torch.float64)
    path = slerp(a.expand(9, 5), b.expand(9, 5), u)
    torch.testing.assert_close(lengths(path), torch.lerp(lengths(a), lengths(b), u))
    unit = path / lengths(path)[:, None]
    gaps = (unit[1:] - unit[:-1]).norm(dim=1)
    torch.testing.assert_close(gaps, gaps[:1].expand(8))


def test_images_are_vectors_too_and_a_batch_is_its_samples():
    a, b = pair(3, 4, 2, 2)
    u = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    both = slerp(a, b, u)
    assert both.shape == a.shape
    torch.testing.assert_close(both.flatten(1), slerp(a.flatten(1), b.flatten(1), u))
    for i in range(3):
        torch.testing.assert_close(both[i : i + 1], slerp(a[i : i + 1], b[i : i + 1], float(u[i])))


@pytest.mark.parametrize("tilt", [0.0, 1e-15, 1e-13, 1e-10, 1e-6])
def test_parallel_noises_go_straight(tilt):
    a = torch.tensor([[3.0, 0.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, tilt, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(slerp(a, b, 0.5), (a + b) / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize("tilt", [0.0, 1e-15, 1e-13, 1e-10, 1e-6])
def test_opposite_noises_go_around_and_never_through_zero(tilt):
    a = torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    b = -a + tilt * torch.tensor([[0.8, -0.6, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    half = slerp(a, b, 0.5)
    torch.testing.assert_close(lengths(half), torch.ones(2, dtype=torch.float64))
    assert (half * a).sum(1).abs().max() < 1e-5  # at right angles to both
    torch.testing.assert_close(half, slerp(a, b, 0.5))
    torch.testing.assert_close(slerp(a, b, 1.0), b)


def test_across_is_a_unit_vector_at_right_angles():
    a, b = pair(50, 7)
    a, b = a / lengths(a)[:, None], b / lengths(b)[:, None]
    b[:10], b[10:20] = a[:10], -a[10:20]
    c = across(a, b)
    torch.testing.assert_close(lengths(c), torch.ones(50, dtype=torch.float64))
    assert (c * a).sum(1).abs().max() < 1e-14
    assert ((c * b).sum(1)[20:] > 0).all()


def test_noise_of_many_dimensions_stays_as_long_as_noise_is():
    a, b = pair(200, 256)
    assert lengths(slerp(a, b, 0.5)).mean() == pytest.approx(16, abs=0.1)
    assert lengths((a + b) / 2).mean() == pytest.approx(16 / math.sqrt(2), abs=0.1)


def test_keeps_the_dtype():
    a, b = pair()
    assert slerp(a.float(), b.float(), 0.3).dtype == torch.float32


@pytest.mark.parametrize(
    "a, b, share, words",
    [
        (torch.ones(2, 3), torch.ones(2, 4), 0.5, "one shape"),
        (torch.ones(3), torch.ones(3), 0.5, "one shape"),
        (torch.ones(2, 1), -torch.ones(2, 1), 0.5, "two numbers a sample"),
        (torch.zeros(2, 3), torch.ones(2, 3), 0.5, "points nowhere"),
        (torch.ones(2, 3), torch.ones(2, 3), 1.5, "between 0"),
        (torch.ones(2, 3), torch.ones(2, 3), math.nan, "between 0"),
        (torch.full((2, 3), math.nan), torch.ones(2, 3), 0.5, "finite"),
    ],
)
def test_what_it_refuses(a, b, share, words):
    with pytest.raises(ValueError, match=words):
        slerp(a, b, share)
