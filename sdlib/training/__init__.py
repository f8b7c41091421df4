"""Training: one loop for every model of the book, and recipes that name what was trained.

The loop is built in chapter 1; chapter 12 takes it to images.
"""

from sdlib.training.ema import EMA
from sdlib.training.logs import Log
from sdlib.training.loop import TrainingDiverged, TrainStep, train
from sdlib.training.recipes import RECIPES, Recipe, load_trained

__all__ = [
    "EMA",
    "Log",
    "RECIPES",
    "Recipe",
    "TrainStep",
    "TrainingDiverged",
    "load_trained",
    "train",
]
