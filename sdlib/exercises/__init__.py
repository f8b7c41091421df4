"""The checks behind the book's exercises: `check("forward-jump", your_function)`."""

from sdlib.exercises.registry import EXERCISES, Exercise, Result, check

__all__ = ["EXERCISES", "Exercise", "Result", "check"]
