"""The comparison of chapter outputs itself: it must forgive rounding and nothing else."""

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location(
    "chapter_conftest", Path(__file__).parents[2] / "book" / "conftest.py"
)
conftest = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(conftest)


def same(a: str, b: str, loose: bool = False) -> bool:
    left = conftest.Output(a)
    left.loose = loose
    assert (left == b) is not (left != b)
    return left == b


@pytest.mark.parametrize(
    "a, b",
    [
        ("loss 0.123", "loss 0.125"),
        ("tensor([ 0.0001, -1.2500])", "tensor([-0.0001, -1.2501])"),
        ("distance 1234.5", "distance 1235.0"),
        ("1.234e-05", "1.235e-05"),
        ("x0 and 10 steps", "x0  and 10 steps"),
        ("12.3 %", "12.4 %"),
    ],
)
def test_rounding_is_forgiven(a, b):
    assert same(a, b)


@pytest.mark.parametrize(
    "a, b",
    [
        ("loss 0.123", "loss 0.126"),
        ("loss 0.123", "gain 0.123"),
        ("10 steps", "11 steps"),
        ("sigma2", "sigma3"),
        ("1.234e-05", "1.334e-05"),
        ("0.5", "-0.5"),
        ("True 1.0", "False 1.0"),
        ("1.0 2.0", "1.0"),
        ("1.0", "nan"),
        ("12.3 %", "12.5 %"),
    ],
)
def test_everything_else_is_not(a, b):
    assert not same(a, b)


def test_loose_allows_a_tenth():
    assert same("loss 0.500, 1000 points", "loss 0.540, 1060 points", loose=True)
    assert not same("loss 0.500", "loss 0.600", loose=True)
    assert not same("loss 0.500", "gain 0.500", loose=True)
