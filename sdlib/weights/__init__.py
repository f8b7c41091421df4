"""Weights: one table of names, and files that are read without trusting them (Chapter 19)."""

from sdlib.weights.checkpoint import Checkpoint, load, save
from sdlib.weights.files import read, write

__all__ = ["Checkpoint", "load", "read", "save", "write"]
