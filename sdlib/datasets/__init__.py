"""Data to learn from: points in the plane for now (`sdlib.datasets.plane`)."""
