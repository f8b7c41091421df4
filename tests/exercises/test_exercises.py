"""Every exercise: its reference passes, its known mistakes are refused, each with its own words."""

import pytest
import torch

from sdlib.exercises import EXERCISES, check
from sdlib.exercises.registry import Exercise, _load, register

_load()


def answer_of(exercise: Exercise, function):
    return function() if exercise.cases is None else function


@pytest.mark.parametrize("name", EXERCISES)
def test_reference_is_correct(name):
    result = check(name, answer_of(EXERCISES[name], EXERCISES[name].reference))
    assert result and repr(result) == f"correct: {name}"


@pytest.mark.parametrize("name", EXERCISES)
def test_three_mistakes_are_refused_each_with_its_own_message(name):
    exercise = EXERCISES[name]
    assert len(exercise.mistakes) >= 3
    for message, mistake in exercise.mistakes.items():
        result = check(name, answer_of(exercise, mistake))
        assert not result and repr(result) == message


@pytest.mark.parametrize("name", EXERCISES)
def test_stubs_are_not_solved_yet(name):
    for stub in (None, ..., *([lambda *a, **k: None] if EXERCISES[name].cases else [])):
        assert repr(check(name, stub)) == f"not solved yet: {name}"


@pytest.fixture
def double():
    exercise = Exercise(
        "test-double",
        reference=lambda x: 2 * x,
        cases=lambda g: [(torch.zeros(2),), (torch.randn(3, 2, generator=g),)],
        mistakes={"You squared it.": lambda x: x**2},
    )
    register(exercise)
    yield exercise
    del EXERCISES["test-double"]


def test_unknown_wrong_answers_say_what_differs(double):
    assert "case 2" in repr(check("test-double", lambda x: 3 * x))
    assert "expected shape (2,); got ()" in repr(check("test-double", lambda x: x.sum()))
    assert "ZeroDivisionError" in repr(check("test-double", lambda x: 1 / 0))
    assert "wants a function" in repr(check("test-double", 3))
    assert not check("test-double", lambda x: 2 * x + float("nan"))
    assert "expected numbers" in repr(check("test-double", lambda x: "two"))


def test_answers_cannot_spoil_the_cases(double):
    assert check("test-double", lambda x: x.mul_(2))
    assert not check("test-double", lambda x: x.mul_(0))


def test_unknown_exercise_lists_the_names(double):
    with pytest.raises(ValueError, match="test-double"):
        check("nope", 1)


def test_a_name_is_used_once(double):
    with pytest.raises(ValueError, match="already"):
        register(double)
