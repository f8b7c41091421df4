"""How far apart two sets of samples are, and how far apart two real sets would be (the floor)."""

from sdlib.evaluation.coverage import precision_recall
from sdlib.evaluation.distances import DISTANCES, energy_distance, floor, mmd, sliced_wasserstein

__all__ = ["DISTANCES", "energy_distance", "floor", "mmd", "precision_recall", "sliced_wasserstein"]
