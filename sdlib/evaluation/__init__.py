"""How far apart two sets of samples are, and how far apart two real sets would be (the floor).

For pictures of scenes, `judge` reads what is in them, and `geneval` scores how often that is what
was asked for.
"""

from sdlib.evaluation.coverage import precision_recall
from sdlib.evaluation.distances import DISTANCES, energy_distance, floor, mmd, sliced_wasserstein
from sdlib.evaluation.frechet import frechet_distance

__all__ = [
    "DISTANCES",
    "energy_distance",
    "floor",
    "frechet_distance",
    "mmd",
    "precision_recall",
    "sliced_wasserstein",
]
