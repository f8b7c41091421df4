"""Weights: one table of names, and files that are read without trusting them (Chapter 19)."""
